"""Charts of evaluations as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from focus_backend.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_END = 7.0


def draw_curves(curves: Mapping[str, tuple[list[float], list[float]]]) -> bytes:
    """Cumulative curves of one run or several: thresholds in mm, and the percentage of points with an error not above.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    for name, (thresholds, percentages) in curves.items():
        # A leading underscore would hide the name from the legend.
        axes.plot(thresholds, percentages, label=name.lstrip("_") or "run")
    axes.set(xlabel="error in mm", ylabel="points in percent", xlim=(0, CURVE_END), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return to_png(figure)


def draw_bars(groups: Mapping[str, Mapping[str, tuple[float, float]]], label: str) -> bytes:
    """Means with their standard errors, a chart a group.

    Args:
        groups: mean and standard error (nan for none) by name, by title.
        label: of the values.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(5.5 * max(1, len(groups)), 4)
    for place, (title, bars) in enumerate(groups.items()):
        axes = figure.add_subplot(1, len(groups), place + 1)
        axes.bar(list(bars), [mean for mean, _ in bars.values()])
        known = {name: (mean, error) for name, (mean, error) in bars.items() if not math.isnan(error)}
        if known:
            means, errors = zip(*known.values(), strict=True)
            axes.errorbar(list(known), means, yerr=errors, fmt="none", ecolor="black", capsize=4)
        axes.set(xlabel=title, ylabel=label)
        axes.tick_params(axis="x", labelrotation=30)
        axes.grid(axis="y", alpha=0.3)
    return to_png(figure)


def draw_lines(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> None:
    """Lines through points, with a legend."""
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend()


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, apart from any window or global state.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("drawing charts needs matplotlib", 'pip install "focus-backend[evaluate]"') from error
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure's file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
