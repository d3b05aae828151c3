"""`focus-backend weights`: which trained weights there are, what is in them, and recognition networks from elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focus_backend.errors import WeightsError


def list_weights_command(as_json: bool) -> None:
    """Print the weights that can be named, the default marked."""
    from focus_backend.networks.weights import default_weights, list_weights

    names, default = list(list_weights()), default_weights()
    if as_json:
        print(json.dumps({"weights": names, "default": default}))
        return
    print("\n".join(f"{name} (default)" if name == default else name for name in names) or "no weights are installed")


def show_weights(name_or_path: str, as_json: bool) -> None:
    """Print what weights consist of and how they were trained: a weights folder, by name or path, or one network's file.

    Raises:
        WeightsError: no such weights, or they are damaged.
    """
    description = _describe(name_or_path)
    if as_json:
        print(json.dumps(description, default=str))
        return
    lines = list(_lines(description))
    width = max(len(key) for key, _ in lines)
    print("\n".join(f"{key:{width}}  {value}" for key, value in lines))


def convert_recognition(source: Path, output: Path) -> None:
    """Make our file of the user's own recognition network and say what it is.

    Raises:
        WeightsError: the source is no network that can be used.
        MissingDependencyError: an ONNX file without the package that reads it.
        OutputError: the file cannot be written.
    """
    from focus_backend.networks.convert import convert_recognition as convert

    made = convert(source, output)
    checked = "" if made.difference is None else f", embeddings as in the source to {made.difference:.1g}"
    print(f"{made.path} ({made.architecture}, {made.path.stat().st_size / 1e6:.1f} MB{checked})")


def _describe(name_or_path: str) -> dict[str, Any]:
    """The description of a weights folder, file by file, or of one file."""
    from focus_backend.networks.weights import LIST_NAME, find_weights, part_file

    path = Path(name_or_path)
    if path.is_file():
        return _describe_file(path)
    folder = find_weights(name_or_path)
    try:
        listed = json.loads((folder / LIST_NAME).read_bytes())
        files = dict(listed.pop("files"))
    except OSError as error:
        raise WeightsError(f"{folder / LIST_NAME} cannot be read ({error.strerror or error})", "check its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{folder / LIST_NAME} is damaged or no list of weights", "get the weights again") from error
    parts = {str(kind): _describe_file(part_file(folder, kind), sha256) for kind, sha256 in sorted(files.items())}
    return {"folder": str(folder), **listed, "files": parts}


def _describe_file(path: Path, file_sha256: str | None = None) -> dict[str, Any]:
    """What one network's file says about itself; raises where its bytes are not those of a hash."""
    from focus_backend.networks.checkpoint import read_description

    description = read_description(path)
    data = path.read_bytes()
    if file_sha256 is not None and hashlib.sha256(data).hexdigest() != file_sha256:
        raise WeightsError(f"{path} is another than the one that the weights list (sha256 differs)", "get the weights again")
    return {"file": str(path), "megabytes": round(len(data) / 1e6, 1), **description}


def _lines(description: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested entries as dotted names and text."""
    lines: list[tuple[str, str]] = []
    for key, value in description.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{prefix}{key}.")
        elif value is not None:
            lines.append((f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))
    return lines
