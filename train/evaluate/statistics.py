"""Summaries of errors, their uncertainty over photos, cumulative curves and the paired t-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from train.evaluate.charts import CURVE_END
from train.evaluate.errors import EvaluationError

BOOTSTRAPS = 1000
# Absolute yaw in degrees; the last one takes everything beyond.
YAW_EDGES = (0.0, 15.0, 30.0, 45.0, 60.0, 90.0)
CURVE_POINTS = 141


@dataclass(frozen=True)
class ShapeSummary:
    """Pooled distances of some photos, mm.

    Attributes:
        photos: how many were judged.
        points: pooled scan points.
        median, mean, std: over all points of all photos.
        median_error, mean_error: standard error of median and mean when the photos are drawn again (bootstrap); nan for one photo.
    """

    photos: int
    points: int
    median: float
    mean: float
    std: float
    median_error: float
    mean_error: float


def summarise(distances: Sequence[Float[np.ndarray, "_"]]) -> ShapeSummary:
    """Median, mean and standard deviation of all points together, each photo with as many points as its scan has.

    Args:
        distances: one array a photo, mm; at least one.
    """
    pooled = np.concatenate(distances)
    median_error, mean_error = bootstrap_errors(distances)
    values = (float(np.median(pooled)), float(pooled.mean()), float(pooled.std()))
    return ShapeSummary(len(distances), len(pooled), *values, median_error, mean_error)


def bootstrap_errors(distances: Sequence[Float[np.ndarray, "_"]], draws: int = BOOTSTRAPS) -> tuple[float, float]:
    """Standard errors of the pooled median and mean over redrawn photos: points of one photo are not independent, photos are.

    The median of a draw comes from histograms of a hundredth of a millimetre, so that it costs no sorting of millions of points.
    """
    if len(distances) < 2:
        return float("nan"), float("nan")
    edges = np.concatenate([np.arange(0.0, 20.0, 0.01), [np.inf]])
    counts = np.stack([np.histogram(d, edges)[0] for d in distances]).astype(np.float64)
    sums = np.array([d.sum() for d in distances])
    sizes = np.array([len(d) for d in distances], dtype=np.float64)
    drawn = np.random.default_rng(0).multinomial(len(distances), np.full(len(distances), 1 / len(distances)), size=draws).astype(np.float64)
    means = (drawn @ sums) / (drawn @ sizes)
    cumulative = np.cumsum(drawn @ counts, axis=1)
    medians = edges[(cumulative < cumulative[:, -1:] / 2).sum(1)]
    return float(medians.std(ddof=1)), float(means.std(ddof=1))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the finite values and its standard error; nan where there are none, or only one."""
    finite = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if not len(finite):
        return float("nan"), float("nan")
    return float(finite.mean()), float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else float("nan")


def yaw_bin(yaw: float | None) -> str | None:
    """The bin of a head's turn to either side, such as "15-30"; None where it is unknown."""
    if yaw is None or not np.isfinite(yaw):
        return None
    place = min(int(np.searchsorted(YAW_EDGES, abs(yaw), side="right")) - 1, len(YAW_EDGES) - 2)
    return f"{YAW_EDGES[place]:.0f}-{YAW_EDGES[place + 1]:.0f}"


def cumulative_curve(distances: Sequence[Float[np.ndarray, "_"]]) -> tuple[list[float], list[float]]:
    """Thresholds in mm and the percentage of all points whose error is not above."""
    pooled = np.sort(np.concatenate(distances))
    thresholds = np.linspace(0.0, CURVE_END, CURVE_POINTS)
    shares = np.searchsorted(pooled, thresholds, side="right") / len(pooled)
    return np.round(thresholds, 4).tolist(), np.round(100 * shares, 4).tolist()


@dataclass(frozen=True)
class PairedTest:
    """A two-sided paired t-test of a first run against a second.

    Attributes:
        pairs: how many.
        difference: mean of first minus second; negative where the first is better.
        t, p: statistic and probability of such a difference by chance; nan where it cannot be tested.
    """

    pairs: int
    difference: float
    t: float
    p: float


def paired_test(first: Float[np.ndarray, "n"], second: Float[np.ndarray, "n"]) -> PairedTest:
    """The paired t-test; runs that are equal everywhere differ by nothing, with p = 1."""
    from scipy.stats import ttest_rel

    difference = first - second
    if len(difference) < 2:
        return PairedTest(len(difference), float(difference.mean()) if len(difference) else float("nan"), float("nan"), float("nan"))
    if not difference.any():
        return PairedTest(len(difference), 0.0, 0.0, 1.0)
    result = ttest_rel(first, second)
    return PairedTest(len(difference), float(difference.mean()), float(result.statistic), float(result.pvalue))


def compare_runs(first: Mapping[str, Float[np.ndarray, "_"]], second: Mapping[str, Float[np.ndarray, "_"]]) -> dict[str, PairedTest]:
    """Tests over the photos both runs have: of the photos' means, and of all scan points.

    Points of one photo lie side by side and err together, so the test over points finds differences that are none; the test over photos
    is the careful one. The paper's figure is of the points.

    Args:
        first, second: distances of each photo by name, mm; a photo's scan points are in the same order in both.

    Raises:
        EvaluationError: no photo in common, or a photo was judged with different scans.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise EvaluationError("the two runs have no photo in common", "compare runs over one dataset")
    for name in common:
        if len(first[name]) != len(second[name]):
            raise EvaluationError(f"the two runs judged {name} with different scans", "evaluate both with this version and one dataset")
    means = [np.array([run[name].mean() for name in common]) for run in (first, second)]
    points = [np.concatenate([run[name] for name in common]) for run in (first, second)]
    return {"photos": paired_test(*means), "points": paired_test(*points)}
