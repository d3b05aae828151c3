"""Cutting regions out of a photo and taking points back."""

from __future__ import annotations

import numpy as np
import pytest

from focus_backend.landmarks.crops import PhotoPyramid, Region, region_around


def _blob(x: float, y: float, size: int = 400, sigma: float = 12.0) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def _centroid(picture: np.ndarray) -> np.ndarray:
    grey = picture[..., 0].astype(float)
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
    return np.array([(grey * columns).sum(), (grey * rows).sum()]) / grey.sum() / len(grey)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("size", "angle"), [(160.0, 0.0), (150.0, 0.5), (390.0, -1.2), (300.0, 3.0)])
def test_a_spot_in_a_crop_is_found_again_in_the_photo(size, angle, mirrored):
    spot = np.array([210.0, 190.0])
    photo = PhotoPyramid(_blob(*spot))
    region = Region((200.0, 200.0), size, angle)
    crop = photo.cut(region, 96, mirrored)
    # A tenth of a pixel is what rounding to 8 bits moves the centroid.
    assert np.abs(region.to_photo(_centroid(crop)[None], mirrored)[0] - spot).max() < 0.1


def test_reduced_levels_keep_positions():
    photo = PhotoPyramid(_blob(210.0, 190.0))
    region = Region((200.0, 200.0), 400.0)
    assert np.abs(region.to_photo(_centroid(photo.cut(region, 32))[None])[0] - [210, 190]).max() < 0.3


def test_region_around_stands_with_the_eyes():
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array([[-10.0, 0], [10, 0], [0, 30], [0, -10]]) @ turn.T + [100, 50]
    region = region_around(points, points[0], points[1], 1.5)
    assert region.angle == pytest.approx(angle)
    assert region.size == pytest.approx(60)
    assert region.center == pytest.approx(tuple(turn @ [0, 10] + [100, 50]))


def test_moved_shifts_along_the_region():
    moved = Region((10.0, 20.0), 8.0, np.pi / 2).moved((0.25, 0.0), 2.0, 0.1)
    assert moved.center == pytest.approx((10.0, 22.0))
    assert (moved.size, moved.angle) == pytest.approx((16.0, np.pi / 2 + 0.1))
