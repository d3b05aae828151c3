"""Tables as plain text and Markdown, and files that appear whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focus_backend.files import write_whole

Cell = str | int | float | None


def plain_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns under their names, names at the left and numbers at the right."""
    cells = [list(head), *([show(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The same as Markdown."""
    cells = [list(head), ["---", *(["---:"] * (len(head) - 1))], *([show(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def show(value: Cell) -> str:
    """Three decimals for a number, nothing for one that is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    return str(value)


def to_json(document: Mapping[str, Any]) -> str:
    """JSON in which a number that is not known is null: NaN is no JSON."""
    return json.dumps(_known(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_file(path: Path, content: str | bytes) -> None:
    """Write beside, then rename.

    Raises:
        OutputError: not writable, disk full.
    """
    write_whole(path, content.encode("utf-8") if isinstance(content, str) else content)


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
