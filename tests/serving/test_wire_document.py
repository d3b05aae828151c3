"""docs/protocol.md says what wire.py does: its tables, limits, codes and example bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from focus_backend import errors
from focus_backend.serving import wire
from focus_backend.serving.wire import ANSWER_LIMITS, ANSWERS, REQUESTS, WireLimits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
VECTORS = Path(__file__).parent / "vectors"
PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean", Any: "any JSON"}


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text: rows of cells, head first, without backticks around a whole cell."""
    found: list[list[list[str]]] = []
    following = False
    for line in text.splitlines():
        if not line.startswith("|"):
            following = False
            continue
        cells = [re.sub(r"^`(.*)`$", r"\1", cell.strip()) for cell in line.strip("|").split("|")]
        if not following:
            found.append([])
        following = True
        if not all(set(cell) <= {"-", ":"} and cell for cell in cells):
            found[-1].append(cells)
    return found


def documented(title: str) -> dict[str, list[tuple[str, str, str]]]:
    """Field, type and default of what has a heading of the third level in a section."""
    described = {}
    for part in section(title).split("\n### ")[1:]:
        name, _, text = part.partition("\n")
        fields = [table[1:] for table in tables(text) if table[0] == ["field", "type", "default", "meaning"]]
        described[name] = [(row[0], row[1], row[2]) for rows in fields for row in rows]
        assert len(fields) == 1 or "No fields" in text
    return described


def words(annotation: Any) -> str:
    """A type as the document says it."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if dataclasses.is_dataclass(annotation):
        return annotation.__name__
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return words(next(a for a in arguments if a is not type(None))) + " or null"
    return f"list of {words(arguments[0])}" if origin is list else f"object of {words(arguments[1])}"


def fields_of(kind: Any) -> list[tuple[str, str, str]]:
    """Field, type and default as wire.py has them."""
    hints = typing.get_type_hints(kind)
    rows = []
    for entry in dataclasses.fields(kind):
        default = entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
        shown = "required" if default is dataclasses.MISSING else json.dumps({} if dataclasses.is_dataclass(default) else default)
        rows.append((entry.name, words(hints[entry.name]), shown))
    return rows


def objects_inside(kinds: tuple[type, ...]) -> set[Any]:
    """Our dataclasses that fields of these hold, however deep."""
    found: set[Any] = set()
    waiting: list[Any] = [hint for kind in kinds for hint in typing.get_type_hints(kind).values()]
    while waiting:
        annotation = waiting.pop()
        waiting += typing.get_args(annotation)
        if dataclasses.is_dataclass(annotation) and annotation not in found:
            found.add(annotation)
            waiting += typing.get_type_hints(annotation).values()
    return found


@pytest.mark.parametrize(("title", "kinds"), [("Requests", REQUESTS), ("Answers", ANSWERS)])
def test_messages_and_fields_are_those_of_the_document(title: str, kinds: tuple[Any, ...]) -> None:
    assert documented(title) == {kind.kind: fields_of(kind) for kind in kinds}


def test_objects_and_fields_are_those_of_the_document() -> None:
    assert documented("Objects in messages") == {kind.__name__: fields_of(kind) for kind in objects_inside((*REQUESTS, *ANSWERS))}


def test_types_of_arrays_are_those_of_the_document() -> None:
    types_table = next(table for table in tables(section("Messages")) if table[0][0] == "dtype")
    assert {name: int(size) for name, size in types_table[1:]} == wire.ITEM_BYTES


def test_limits_are_those_of_the_document() -> None:
    (table,) = tables(section("Limits"))
    limits = [dataclasses.astuple(WireLimits()), dataclasses.astuple(ANSWER_LIMITS)]
    assert [tuple(int(row[column]) for row in table[1:]) for column in (1, 2)] == limits


def all_errors(root: type[errors.FocusError]) -> set[str]:
    """Codes of an error's kinds."""
    return {code for kind in root.__subclasses__() for code in {kind.code} | all_errors(kind)}


def test_codes_of_errors_are_those_of_the_document() -> None:
    (table,) = tables(section("Errors"))
    here = {code for code in all_errors(errors.FocusError) if any(getattr(kind, "code", "") == code for kind in vars(errors).values())}
    assert {row[0] for row in table[1:]} == here | {"duplicate"}


def test_the_version_is_that_of_the_document() -> None:
    assert f"Version {wire.PROTOCOL}." in DOCUMENT


def test_the_worked_example_has_the_bytes_of_the_vectors() -> None:
    example = section("Worked example")
    blocks = re.findall(r"```(?:json)?\n(.*?)\n```", example, re.DOTALL)
    sent, waiting, progress, result, pong = (
        json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        for name in ("reconstruct-pixels", "accepted", "progress-preview", "result", "pong")
    )
    headers = [sent["header"], sent["arrays"][0], waiting["header"], progress["header"], result["header"], result["arrays"][0]]
    assert blocks == [*headers, pong["header"].encode("ascii").hex()]
    assert f"`{progress['arrays'][0]}`" in example
