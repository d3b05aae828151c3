"""The crop of a face: where its pixels come from, and back."""

from __future__ import annotations

import numpy as np
import pytest

from focus_backend.errors import PhotoError
from focus_backend.face_crop import FaceCrop, crop_around, crop_face


def test_crop_round_trip_and_known_place():
    crop = crop_face(np.zeros((300, 400, 3), np.uint8), (150.0, 100.0), 80.0, 224, angle=0.3)
    points = np.random.default_rng(0).uniform(0, 224, (50, 2))
    assert np.allclose(crop.to_crop(crop.to_photo(points)), points)
    assert np.allclose(crop.to_photo(np.array([112.0, 112.0])), [150, 100])
    assert crop.scale == pytest.approx(80 / 224)


@pytest.mark.parametrize(("side", "size"), [(14.0, 56), (28.0, 28), (44.0, 22), (40.0, 9)])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_crop_shows_what_the_transform_says(side, size, angle):
    """Every pixel holds its own place, four times column in red and row in green: half a pixel's shift is two grey levels."""
    columns, rows = np.meshgrid(np.arange(64), np.arange(64))
    pixels = 4 * np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8)
    crop = crop_face(pixels, (31.3, 32.6), side, size, angle)
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    # Grey levels count from 0 at the centre of the first pixel, which lies at 0.5.
    difference = crop.pixels[:, :, :2] - 4 * (crop.to_photo(grid) - 0.5)
    # OpenCV rounds to grey levels, twice where blocks are averaged.
    assert np.abs(difference).max() < 1.1


def test_crop_does_not_alias():
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_face(stripes, (800.0, 800.0), 1500.0, 224)
    # The mean over 6.7 columns sees one stripe more or less; picking pixels would give 0 and 255.
    assert np.abs(crop.pixels.astype(int) - 127).max() <= 20


def test_crop_over_the_edge_is_black_and_marked():
    crop = crop_face(np.full((100, 100, 3), 200, np.uint8), (0.0, 50.0), 100.0, 100)
    assert not crop.is_inside[:, :50].any()
    assert crop.is_inside[:, 50:].all()
    assert (crop.pixels[:, :49] == 0).all()
    assert (crop.pixels[:, 51:] == 200).all()


def test_crop_around_points():
    points = np.array([[50.0, 60.0], [150.0, 90.0]])
    crop = crop_around(np.zeros((300, 400, 3), np.uint8), points, 200, margin=0.25)
    inside = crop.to_crop(points)
    assert np.allclose(inside[:, 0], [200 / 6, 200 - 200 / 6])
    assert isinstance(crop, FaceCrop)


@pytest.mark.parametrize("side", [0.0, -5.0, float("nan"), float("inf")])
def test_crop_needs_a_side(side):
    with pytest.raises(PhotoError, match="side"):
        crop_face(np.zeros((100, 100, 3), np.uint8), (50.0, 50.0), side)
