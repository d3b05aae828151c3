"""The E-step: how likely each pixel of the rendered region is face, from its colour, its neighbours and what outliers look like (eq 9, 10).

Per pixel, a normal around the model's colour competes with a mixture of the colours of known outliers (background, hair, what earlier rounds
rejected) and a uniform one. A conditional random field with short- and long-range colour-sensitive links then turns the pixels into regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

# Half side of the window in which the model's colour may be found (eq 1): misaligned edges are not outliers.
WINDOW = 2
# The model cannot draw everything that belongs to a face; below this deviation nothing is called an outlier.
LEAST_SPREAD = 0.05
LARGEST_EVIDENCE = 6.0
HISTOGRAM_BINS = 8
# Outliers may wear any colour, so that a colour's being common among them never outweighs a good match with the face.
LARGEST_OUTLIER_DENSITY = 30.0
# Before its colour is looked at a pixel of the region is face with these log odds.
FACE_LOG_ODDS = 1.0


@dataclass(frozen=True)
class Evidence:
    """What the E-step looks at, one picture.

    Attributes:
        photo: sRGB-encoded.
        predicted: the model's colours, sRGB-encoded; meaningful inside `region`.
        region: the rendered face region.
        surround: pixels known not to be face: outside the rendered head.
    """

    photo: Float[np.ndarray, "height width 3"]
    predicted: Float[np.ndarray, "height width 3"]
    region: Bool[np.ndarray, "height width"]
    surround: Bool[np.ndarray, "height width"]


def inlier_probability(
    evidence: Evidence, noise: float, previous: Float[np.ndarray, "height width"] | None = None, rounds: int = 6
) -> Float[np.ndarray, "height width"]:
    """Probability that each pixel of the region is face; 0 outside the region.

    Args:
        evidence: photo and prediction.
        noise: standard deviation of the inliers' colour residuals.
        previous: the last round's answer; its outliers teach what outliers look like.
        rounds: of the mean-field solution of the random field.
    """
    unary = _log_ratio(evidence, noise, previous)
    field = _mean_field(evidence, unary, rounds)
    return np.where(evidence.region, field, 0).astype(np.float32)


def log_evidence(evidence: Evidence, mask: Float[np.ndarray, "height width"], spread: float = 0.04) -> float:
    """Mean log likelihood of the region's colours, each pixel explained by the face or by the colours that the mask's outliers share.

    A cloth of one colour explains itself well as an outlier; a face bent to look like it does not.
    """
    region = evidence.region
    inlier = FACE_LOG_ODDS + _log_inlier_density(evidence, spread)
    rejected = np.where(region, 1 - mask, 0).astype(np.float32)
    outlier = np.log(0.05 + 0.95 * _colour_density(evidence.photo, rejected))
    return float(np.logaddexp(inlier, outlier)[region].mean())


def neighbour_distance(evidence: Evidence, window: int = WINDOW) -> Float[np.ndarray, "height width"]:
    """Squared colour distance of each photo pixel to the nearest predicted colour in a window (eq 1, 12)."""
    height, width = evidence.region.shape
    predicted = np.where(evidence.region[..., None], evidence.predicted, 10.0).astype(np.float32)
    padded = np.pad(predicted, ((window, window), (window, window), (0, 0)), constant_values=10.0)
    best = np.full((height, width), np.inf, np.float32)
    for row in range(2 * window + 1):
        for column in range(2 * window + 1):
            shifted = padded[row : row + height, column : column + width]
            np.minimum(best, ((evidence.photo - shifted) ** 2).sum(-1), out=best)
    return best


def _log_ratio(
    evidence: Evidence, noise: float, previous: Float[np.ndarray, "height width"] | None
) -> Float[np.ndarray, "height width"]:
    """Log likelihood ratio of face against outlier, bounded."""
    inlier = _log_inlier_density(evidence, max(LEAST_SPREAD, 1.5 * noise))
    outlier = np.log(_outlier_density(evidence, previous))
    return np.clip(FACE_LOG_ODDS + inlier - outlier, -LARGEST_EVIDENCE, LARGEST_EVIDENCE).astype(np.float32)


def _log_inlier_density(evidence: Evidence, spread: float) -> Float[np.ndarray, "height width"]:
    """Student's t with 4 degrees in 3 dimensions: normal near the centre, tolerant of gloss and shadow."""
    distance = neighbour_distance(evidence)
    return -3.5 * np.log1p(distance / (4 * spread**2)) - 3 * np.log(spread * np.sqrt(2 * np.pi))


def _outlier_density(
    evidence: Evidence, previous: Float[np.ndarray, "height width"] | None
) -> Float[np.ndarray, "height width"]:
    """Density of each pixel's colour among outliers: uniform, the surround and the previous outliers in equal parts."""
    weights = evidence.surround.astype(np.float32)
    parts = [np.ones(evidence.region.shape, np.float32), _colour_density(evidence.photo, weights)]
    if previous is not None:
        parts.append(_colour_density(evidence.photo, np.where(evidence.region, 1 - previous, 0).astype(np.float32)))
    return np.minimum(np.mean(parts, 0), LARGEST_OUTLIER_DENSITY) + 1e-6


def _colour_density(
    photo: Float[np.ndarray, "height width 3"], weights: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width"]:
    """Smoothed colour histogram of the weighted pixels, looked up at every pixel; 1 everywhere for too few pixels."""
    total = float(weights.sum())
    if total < 30:
        return np.ones(weights.shape, np.float32)
    bins = np.clip((photo * HISTOGRAM_BINS).astype(int), 0, HISTOGRAM_BINS - 1)
    flat = (bins[..., 0] * HISTOGRAM_BINS + bins[..., 1]) * HISTOGRAM_BINS + bins[..., 2]
    counts = np.bincount(flat.ravel(), weights.ravel(), HISTOGRAM_BINS**3).reshape((HISTOGRAM_BINS,) * 3)
    for axis in range(3):
        ends = np.take(counts, [0, -1], axis)
        padded = np.concatenate([np.take(ends, [0], axis), counts, np.take(ends, [1], axis)], axis)
        size = counts.shape[axis]
        lower, middle, upper = (np.take(padded, np.arange(start, start + size), axis) for start in range(3))
        counts = 0.25 * lower + 0.5 * middle + 0.25 * upper
    return (counts / total * HISTOGRAM_BINS**3).astype(np.float32).ravel()[flat]


def _mean_field(
    evidence: Evidence, unary: Float[np.ndarray, "height width"], rounds: int
) -> Float[np.ndarray, "height width"]:
    """Probabilities under Potts links: strong between near pixels, and between pixels of like colour over a wider range."""
    region = evidence.region.astype(np.float32)
    guide = cv2.GaussianBlur(evidence.photo.astype(np.float32), (0, 0), 0.7)
    probability = 1 / (1 + np.exp(-unary))
    for _ in range(rounds):
        vote = (2 * probability - 1).astype(np.float32) * region
        near = _normalised(cv2.GaussianBlur(vote, (0, 0), 1.5), cv2.GaussianBlur(region, (0, 0), 1.5))
        alike = _normalised(_guided(guide, vote), _guided(guide, region))
        probability = 1 / (1 + np.exp(-(unary + 2.5 * near + 3.0 * alike)))
    return probability


def _guided(guide: Float[np.ndarray, "height width 3"], values: Float[np.ndarray, "height width"]) -> np.ndarray:
    return cv2.ximgproc.guidedFilter(guide, values, max(4, len(guide) // 28), 4e-4)


def _normalised(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values / np.maximum(weights, 1e-3)
