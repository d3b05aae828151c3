"""Moving stored crops: pixels, landmarks and the photo's border go the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from focus_backend.landmarks.landmarks68 import mirrored68
from train.data.augment import AugmentConfig, Views, inside_photo, pixel_places, resample, stored_size

SIZE = 112
STORED = stored_size(SIZE)


def coordinates(count: int, stored: int = STORED) -> torch.Tensor:
    """Pictures whose two channels are their own x and y."""
    steps = torch.arange(stored) + 0.5
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"))[None].repeat(count, 1, 1, 1)


def random_views(count: int, config: AugmentConfig | None = None, size: int = SIZE, seed: int = 0) -> Views:
    draws = np.random.default_rng(seed).random((count, 5))
    return Views.random(draws, config or AugmentConfig(), size, stored_size(size))


def test_pixels_are_taken_from_where_the_view_says():
    views = random_views(6)
    moved = resample(coordinates(6), views.to_stored.float(), SIZE)
    expected = pixel_places(views.to_stored.float(), SIZE).permute(0, 3, 1, 2)
    torch.testing.assert_close(moved, expected, atol=2e-3, rtol=0)


def test_the_plain_view_is_the_middle_unchanged():
    random = torch.rand(2, 3, STORED, STORED)
    moved = resample(random, Views.plain(2, SIZE, STORED).to_stored.float(), SIZE)
    margin = (STORED - SIZE) // 2
    torch.testing.assert_close(moved, random[:, :, margin:-margin, margin:-margin], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [64, 112, 224, 250])
def test_no_view_reaches_beyond_the_stored_crop(size):
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], [0, 1], [0, 1])).reshape(5, -1).T.astype(float)
    for config in (AugmentConfig(), AugmentConfig(shift=20, scale=0.3, rotation=30)):
        stored = stored_size(size, config)
        places = pixel_places(Views.random(corners, config, size, stored).to_stored, size)
        assert places.min() >= 0.5
        assert places.max() <= stored - 0.5
    assert stored_size(224) == 320


def test_landmarks_stay_on_what_they_mark():
    views = random_views(12)
    assert views.is_mirrored.any()
    assert not views.is_mirrored.all()
    stored = STORED / 2 + 30 * (2 * torch.rand(12, 68, 2, generator=torch.Generator().manual_seed(2)) - 1)
    moved = views.landmarks(stored)
    # What the pictures of coordinates show at the moved landmarks is where the landmarks were.
    picture = resample(coordinates(12), views.to_stored.float(), SIZE)
    shown = torch.nn.functional.grid_sample(picture, (2 * moved / SIZE - 1)[:, None], align_corners=False)[:, :, 0].mT
    expected = torch.where(views.is_mirrored[:, None, None], stored[:, mirrored68()], stored)
    torch.testing.assert_close(shown, expected, atol=5e-3, rtol=0)


def test_a_mirrored_face_keeps_its_right_on_the_left_of_the_picture():
    config = AugmentConfig(shift=0, scale=0, rotation=0, flip=1)
    views = random_views(1, config)
    stored = torch.full((1, 68, 2), STORED / 2)
    stored[0, 36, 0], stored[0, 45, 0] = STORED / 2 - 20, STORED / 2 + 26
    moved = views.landmarks(stored)[0]
    assert moved[36, 0] == pytest.approx(SIZE / 2 - 26)
    assert moved[45, 0] == pytest.approx(SIZE / 2 + 20)


def test_ranges_are_the_configured_ones_for_any_size():
    views = random_views(4000, AugmentConfig(flip=0.25), seed=3)
    linear = views.to_stored[:, :, :2]
    step = torch.linalg.det(linear).abs().sqrt()
    face = 1 / step
    assert face.min() == pytest.approx(0.9, abs=2e-3)
    assert face.max() == pytest.approx(1.1, abs=2e-3)
    angle = torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 1, 1]))
    assert angle.abs().max() == pytest.approx(10, abs=0.05)
    middle = torch.full((1, 1, 2), STORED / 2).expand(4000, 68, 2)
    shift = views.landmarks(middle.float())[:, 0] - SIZE / 2
    # 10 pixels of 224 are 5 of 112.
    assert shift.abs().max() == pytest.approx(5, abs=0.02)
    assert views.is_mirrored.float().mean() == pytest.approx(0.25, abs=0.03)


def test_inside_is_what_the_photo_covers():
    views = random_views(5, seed=4)
    # A crop turned by a quarter, two photo pixels a crop pixel, its middle on the photo's left border.
    to_photo = torch.tensor([[0.0, -2.0, STORED], [2.0, 0.0, 40.0]]).double().expand(5, 2, 3)
    size = torch.tensor([[150.0, 300.0]]).expand(5, 2)
    inside = inside_photo(views.to_photo(to_photo).float(), size, SIZE)
    shown = resample(coordinates(5), views.to_stored.float(), SIZE)
    x, y = STORED - 2 * shown[:, 1], 40 + 2 * shown[:, 0]
    expected = (x >= 0) & (x < 150) & (y >= 0) & (y < 300)
    assert 0.05 < expected.float().mean() < 0.95
    # Rounding may decide at the very border.
    assert (inside != expected).float().mean() < 1e-3


def test_configuration_refuses_nonsense():
    with pytest.raises(ValidationError):
        AugmentConfig(scale=1.5)
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate({"shfit": 3})
