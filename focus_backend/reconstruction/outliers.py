"""The E-step: how likely each pixel of the rendered region is face, from its colour, its neighbours and what outliers look like
(eq 9, 10).

Per pixel, a bell around the model's colour competes with a mixture of the colours of known outliers (background, hair, what earlier
rounds rejected) and a uniform one. A conditional random field with near and colour-sensitive links then turns pixels into regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.guided_filter import GuidedFilter, channel_sum

# Half side of the window in which the model's colour may be found (eq 1): misaligned edges are not outliers.
WINDOW = 2
TRIAL_WINDOW = 1
TRIAL_LOG_ODDS = 1.0
# Bounds of the inliers' deviation. Shadows, gloss and wrinkles make skin darker or lighter than the model; its tint hardly changes.
LIGHTNESS_SPREAD = (0.03, 0.10)
TINT_SPREAD = (0.012, 0.04)
# Orthonormal: lightness, red against blue, green against both.
OPPONENT = np.array([[3**-0.5] * 3, [2**-0.5, 0.0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]], np.float32)
LARGEST_EVIDENCE = 6.0
HISTOGRAM_BINS = 8
LEAST_OUTLIERS = 30
# Colour variance (sRGB-encoded) below which neighbours are alike to the random field.
GUIDE_VARIANCE = 4e-4
# Outliers may wear any colour, so that a colour's being common among them never outweighs a good match with the face.
LARGEST_OUTLIER_DENSITY = 30.0
# Before its colour is looked at a pixel of the region is face with these log odds.
FACE_LOG_ODDS = 1.0


@dataclass(frozen=True)
class ColourNoise:
    """Standard deviation of inliers' colour residuals along one axis, sRGB-encoded: of lightness and of tint."""

    lightness: float
    tint: float

    def whitening(self) -> Float[np.ndarray, "3 3"]:
        """Turns colour differences into units of the (bounded) deviations."""
        lightness, tint = np.clip(self.lightness, *LIGHTNESS_SPREAD), np.clip(self.tint, *TINT_SPREAD)
        return OPPONENT / np.array([[lightness], [tint], [tint]], np.float32)


def colour_noise(residual: Float[np.ndarray, "pixels 3"], inlier: Float[np.ndarray, "pixels"]) -> ColourNoise:
    """The deviations of residuals, from weighted medians, so that outliers that the mask missed count little."""
    opponent = np.abs(residual @ OPPONENT.T)
    # Medians of |normal| and of the mean of two such are 0.67 and 0.77 standard deviations.
    return ColourNoise(_weighted_median(opponent[:, 0], inlier) / 0.67, _weighted_median(opponent[:, 1:].mean(1), inlier) / 0.77)


def _weighted_median(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, 0.5 * cumulative[-1]).clip(max=len(order) - 1)]])


TRIAL_NOISE = ColourNoise(0.06, 0.02)


@dataclass(frozen=True)
class Evidence:
    """What the E-step looks at, one picture.

    Attributes:
        photo: sRGB-encoded.
        predicted: the model's colours, sRGB-encoded; meaningful inside `region`.
        region: the rendered face region.
        surround: pixels known not to be face: outside the rendered head.
        told: log odds of face against outlier by networks, which look at more than colours; None without.
    """

    photo: Float[np.ndarray, "height width 3"]
    predicted: Float[np.ndarray, "height width 3"]
    region: Bool[np.ndarray, "height width"]
    surround: Bool[np.ndarray, "height width"]
    told: Float[np.ndarray, "height width"] | None = None


def inlier_probability(
    evidence: Evidence,
    noise: ColourNoise,
    previous: Float[np.ndarray, "height width"] | None = None,
    log_odds: float = FACE_LOG_ODDS,
    memory: float = 0.0,
    rounds: int = 6,
    beat: Beat = quiet,
) -> Float[np.ndarray, "height width"]:
    """Probability that each pixel of the region is face; 0 outside the region.

    Args:
        evidence: photo and prediction.
        noise: deviations of the inliers' colour residuals.
        previous: the last round's answer; its outliers teach what outliers look like.
        log_odds: of face against outlier before a pixel's colour is looked at.
        memory: log odds by which the last round's answer is kept: albedo must not creep over what was once seen to be no face.
        rounds: of the mean-field solution of the random field.
        beat: called at every step.
    """
    unary = _log_ratio(evidence, noise, previous, log_odds)
    if previous is not None:
        unary = unary + memory * (2 * previous - 1)
    if evidence.told is not None:
        unary = unary + evidence.told
    beat()
    field = _mean_field(evidence, unary, rounds, beat)
    return np.where(evidence.region, field, 0).astype(np.float32)


def log_evidence(evidence: Evidence, mask: Float[np.ndarray, "height width"], noise: ColourNoise = TRIAL_NOISE) -> float:
    """Mean log likelihood of the region's colours, each pixel explained by the face or by the colours that the mask's outliers share.

    Both densities are per unit of the noise, so that a cloth of one colour explains itself as well as a face does, and better than a face
    that is bent to look like it.
    """
    region = evidence.region
    whitening = noise.whitening()
    photo = evidence.photo @ whitening.T
    distance = neighbour_distance(photo, evidence.predicted @ whitening.T, region, TRIAL_WINDOW)[region]
    inlier = TRIAL_LOG_ODDS - 3.5 * np.log1p(distance / 4) - 1.5 * np.log(2 * np.pi)
    colours = photo[region]
    outlier = np.log(_histogram_density(colours - colours.min(0), 1 - mask[region]) + 1e-4)
    return float(np.logaddexp(inlier, outlier).mean())


def neighbour_distance(
    photo: Float[np.ndarray, "height width 3"],
    predicted: Float[np.ndarray, "height width 3"],
    region: Bool[np.ndarray, "height width"],
    window: int = WINDOW,
) -> Float[np.ndarray, "height width"]:
    """Squared distance of each photo pixel to the nearest predicted colour of the region in a window (eq 1, 12)."""
    height, width = region.shape
    far = np.float32(1e3)
    padded = np.pad(np.where(region[..., None], predicted, far), ((window, window), (window, window), (0, 0)), constant_values=far)
    best = np.full((height, width), np.inf, np.float32)
    for row in range(2 * window + 1):
        for column in range(2 * window + 1):
            shifted = padded[row : row + height, column : column + width]
            np.minimum(best, channel_sum((photo - shifted) ** 2), out=best)
    return best


def _log_ratio(
    evidence: Evidence, noise: ColourNoise, previous: Float[np.ndarray, "height width"] | None, log_odds: float
) -> Float[np.ndarray, "height width"]:
    """Log likelihood ratio of face against outlier, bounded."""
    inlier = _log_inlier_density(evidence, noise)
    outlier = np.log(_outlier_density(evidence, previous))
    return np.clip(log_odds + inlier - outlier, -LARGEST_EVIDENCE, LARGEST_EVIDENCE).astype(np.float32)


def _log_inlier_density(evidence: Evidence, noise: ColourNoise) -> Float[np.ndarray, "height width"]:
    """Student's t with 4 degrees in 3 dimensions: normal near the centre, tolerant of gloss and shadow."""
    whitening = noise.whitening()
    distance = neighbour_distance(evidence.photo @ whitening.T, evidence.predicted @ whitening.T, evidence.region)
    return -3.5 * np.log1p(distance / 4) + np.log(abs(np.linalg.det(whitening))) - 1.5 * np.log(2 * np.pi)


def _outlier_density(evidence: Evidence, previous: Float[np.ndarray, "height width"] | None) -> Float[np.ndarray, "height width"]:
    """Density of each pixel's colour among outliers: uniform, the surround and the previous outliers in equal parts."""
    weights = evidence.surround.astype(np.float32)
    parts = [np.ones(evidence.region.shape, np.float32), _colour_density(evidence.photo, weights)]
    if previous is not None:
        parts.append(_colour_density(evidence.photo, np.where(evidence.region, 1 - previous, 0).astype(np.float32)))
    return np.minimum(np.mean(parts, 0), LARGEST_OUTLIER_DENSITY) + 1e-6


def _colour_density(
    photo: Float[np.ndarray, "height width 3"], weights: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width"]:
    """Density of each pixel's colour in the unit cube among the weighted pixels; 1 everywhere for too few of them."""
    if weights.sum() < LEAST_OUTLIERS:
        return np.ones(weights.shape, np.float32)
    density = _histogram_density(photo.reshape(-1, 3) * HISTOGRAM_BINS, weights.ravel())
    return (density * HISTOGRAM_BINS**3).reshape(weights.shape)


def _histogram_density(values: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Density at each of the (non-negative) values, per unit volume, of the weighted values: a histogram of unit bins, smoothed once."""
    bins = values.astype(np.int64)
    shape = tuple(int(size) for size in bins.max(0) + 1)
    flat = np.ravel_multi_index(tuple(bins.T), shape)
    counts = np.bincount(flat, weights, int(np.prod(shape))).reshape(shape)
    for axis in range(3):
        counts = _smoothed(counts, axis)
    return (counts / max(1e-6, float(weights.sum()))).astype(np.float32).ravel()[flat]


def _smoothed(counts: Float[np.ndarray, "l m n"], axis: int) -> Float[np.ndarray, "l m n"]:
    """Quarter, half, quarter along an axis; what would leave stays in the end bin."""
    first, last = (np.take(counts, [end], axis) for end in (0, -1))
    padded = np.concatenate([first, counts, last], axis)
    lower, middle, upper = (np.take(padded, np.arange(start, start + counts.shape[axis]), axis) for start in range(3))
    return 0.25 * lower + 0.5 * middle + 0.25 * upper


def _mean_field(evidence: Evidence, unary: Float[np.ndarray, "height width"], rounds: int, beat: Beat) -> Float[np.ndarray, "height width"]:
    """Probabilities under Potts links: strong between near pixels, and between pixels of like colour over a wider range."""
    from scipy.special import expit

    region = evidence.region.astype(np.float32)
    guide = cv2.GaussianBlur(evidence.photo.astype(np.float32), (0, 0), 0.7)
    smooth = GuidedFilter(guide, max(4, len(guide) // 28), GUIDE_VARIANCE)
    covered = smooth(region)
    probability = expit(unary)
    for _ in range(rounds):
        vote = (2 * probability - 1).astype(np.float32) * region
        near = _normalised(cv2.GaussianBlur(vote, (0, 0), 1.5), cv2.GaussianBlur(region, (0, 0), 1.5))
        alike = _normalised(smooth(vote), covered)
        probability = expit(unary + 2.5 * near + 3.0 * alike)
        beat()
    return probability


def _normalised(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values / np.maximum(weights, 1e-3)


def without_specks(
    probability: Float[np.ndarray, "height width"],
    region: Bool[np.ndarray, "height width"],
    least_outlier: float,
    least_face: float,
) -> Float[np.ndarray, "height width"]:
    """The mask with smaller islands of outliers, then of face, than so many pixels turned into what surrounds them."""
    cleaned = probability
    for is_face, least in ((False, least_outlier), (True, least_face)):
        islands = region & ((cleaned > 0.5) == is_face)
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(islands.astype(np.uint8), connectivity=8)
        is_speck = statistics[:, cv2.CC_STAT_AREA] < least
        is_speck[0] = False
        cleaned = np.where(is_speck[labels], 1 - cleaned, cleaned)
    return cleaned
