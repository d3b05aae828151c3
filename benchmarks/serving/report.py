"""Percentiles, slopes and tables of the server's benchmarks."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile; nan of nothing."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the line that fits best, in y for one x; nan of fewer than two."""
    if len(xs) < 2:
        return float("nan")
    return statistics.linear_regression(xs, ys).slope


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (least, most)."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}, {max(values):.{digits}f})"


def console() -> Console:
    """A pipe has no width of its own; the tables need this much."""
    return Console() if sys.stdout.isatty() else Console(width=190)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose cells are shown as they are."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made
