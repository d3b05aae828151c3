"""The guided filter against its definition, window by window."""

from __future__ import annotations

import numpy as np
import pytest

from focus_backend.reconstruction.guided_filter import GuidedFilter, channel_sum

RADIUS, REGULARISATION = 2, 1e-3


def reference(guide: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Float64: an affine fit in every window, then the mean of all fits that cover a pixel. Borders are mirrored like OpenCV's."""
    pad = 2 * RADIUS
    guide, values = (np.pad(a.astype(np.float64), [(pad, pad)] * 2 + [(0, 0)] * (a.ndim - 2), "reflect") for a in (guide, values))
    height, width = values.shape
    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))
    for row in range(RADIUS, height - RADIUS):
        for column in range(RADIUS, width - RADIUS):
            window = np.s_[row - RADIUS : row + RADIUS + 1, column - RADIUS : column + RADIUS + 1]
            colours, targets = guide[window].reshape(-1, 3), values[window].ravel()
            centred = colours - colours.mean(0)
            covariance = centred.T @ centred / len(colours) + REGULARISATION * np.eye(3)
            slope = np.linalg.solve(covariance, centred.T @ (targets - targets.mean()) / len(colours))
            slopes[row, column], offsets[row, column] = slope, targets.mean() - slope @ colours.mean(0)
    result = np.zeros((height, width))
    for row in range(pad, height - pad):
        for column in range(pad, width - pad):
            window = np.s_[row - RADIUS : row + RADIUS + 1, column - RADIUS : column + RADIUS + 1]
            result[row, column] = slopes[window].mean((0, 1)) @ guide[row, column] + offsets[window].mean()
    return result[pad:-pad, pad:-pad]


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return random.random((18, 15, 3)).astype(np.float32), random.random((18, 15)).astype(np.float32)


def test_equals_its_definition_inside(pictures):
    guide, values = pictures
    # At the border OpenCV mirrors the windows' slopes, the definition the picture.
    inner = np.s_[2 * RADIUS : -2 * RADIUS, 2 * RADIUS : -2 * RADIUS]
    assert np.allclose(GuidedFilter(guide, RADIUS, REGULARISATION)(values)[inner], reference(guide, values)[inner], atol=2e-4)


def test_keeps_an_edge_of_the_guide_and_smooths_noise_beside_it():
    guide = np.zeros((40, 40, 3), np.float32)
    guide[:, 20:] = 0.5
    noise = np.random.default_rng(1).normal(0, 0.3, (40, 40)).astype(np.float32)
    smooth = GuidedFilter(guide, 5, 4e-4)(np.where(guide[..., 0] > 0, 1, -1).astype(np.float32) + noise)
    assert smooth[:, :20].max() < -0.5 < 0.5 < smooth[:, 20:].min()


def test_a_flat_guide_gives_plain_means():
    values = np.random.default_rng(2).random((20, 20)).astype(np.float32)
    smooth = GuidedFilter(np.full((20, 20, 3), 0.3, np.float32), 3, 1e-3)(values)
    assert np.isfinite(smooth).all()
    assert smooth.std() < 0.3 * values.std()


def test_channel_sum_is_numpys(pictures):
    guide, _ = pictures
    assert np.allclose(channel_sum(guide), guide.sum(-1), rtol=1e-6, atol=0)
