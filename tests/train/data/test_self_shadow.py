"""What the head takes from its own light, and where single strands of hair lie."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from focus_backend.rendering import ambient_lighting
from train.data.draws import Draws
from train.data.population import draw_distance
from train.data.self_shadow import LIGHT_LOBE, SelfShadow, _lobe
from train.data.synthetic import SyntheticConfig, SyntheticFaces

NOSE_TIP, NOSTRIL, INNER_EYE, CHIN = 30, 32, 39, 8


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


@pytest.fixture(scope="module")
def shadow(model) -> SelfShadow:
    return SelfShadow.of(model)


def test_is_found_once_a_model(model, shadow):
    assert SelfShadow.of(model) is shadow
    # Where the skull is another, so is its shadow.
    other = dataclasses.replace(model, mean_shape=model.mean_shape * torch.tensor([1.0, 1.0, 0.5]))
    assert not torch.equal(SelfShadow.of(other).seen, shadow.seen)


def at_points(model: FaceModel, light: torch.Tensor) -> torch.Tensor:
    """Values of vertices at the 68 points."""
    return model.landmarks68.on(light[..., None].expand(-1, -1, 3), model.triangles)[..., 0]


def test_hollows_are_dark_and_what_stands_out_is_not(model, shadow):
    light = shadow.shade(ambient_lighting()[None], torch.eye(3)[None])
    assert light.min() >= 0
    assert light.max() <= 1 + 1e-5
    points = at_points(model, light)[0]
    assert points[NOSE_TIP] > 0.97
    assert points[CHIN] > 0.8
    assert points[NOSTRIL] < 0.95
    assert points[INNER_EYE] < 0.7


def test_light_turns_with_the_camera_not_with_the_head(model, shadow):
    """Light from the camera's right falls on the subject's left; of a head that turned its back to it, on the other side."""
    lighting = torch.zeros(1, 9, 3)
    lighting[:, 0], lighting[:, 3] = 1.0, 1.5
    around = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    straight, turned = (shadow.shade(lighting, rotation[None])[0] for rotation in (torch.eye(3), around))
    # Sides of the nose.
    side = model.mean_shape[:, 0].sign() * ((model.mean_shape[:, 0].abs() < 25) & (model.mean_shape[:, 2] > 5))
    lit, dark = side > 0, side < 0
    assert straight[lit].mean() > straight[dark].mean()
    assert turned[lit].mean() < turned[dark].mean()


def test_the_lobe_is_that_of_lights():
    torch.testing.assert_close(_lobe(torch.zeros(1)), torch.tensor(LIGHT_LOBE))


def test_self_shadow_only_darkens_and_leaves_the_truth_alone(model):
    def drawn(share: float):
        config = SyntheticConfig.clean(self_shadow_share=share)
        return SyntheticFaces(model, CropFrame.of(model, 64), config, seed=3).batch(0, 4)

    plain, dark = drawn(0.0), drawn(1.0)
    assert torch.equal(plain.mask, dark.mask)
    assert torch.equal(plain.landmarks, dark.landmarks)
    difference = dark.image - plain.image
    assert difference.max() < 0.02
    assert difference.min() < -0.1


def test_strands_hide_what_they_cover(model):
    """A fringe takes some of the face, bristles stand behind it and take nothing."""

    def drawn(**shares: float):
        config = SyntheticConfig.clean(hair_share=1.0, **shares)
        return SyntheticFaces(model, CropFrame.of(model, 64), config, seed=3).batch(0, 6)

    plain, fringe, bristles = drawn(), drawn(fringe_share=1.0), drawn(bristle_share=1.0)
    assert bool((fringe.mask <= plain.mask).all())
    assert 0.5 < fringe.mask.sum() / plain.mask.sum() < 0.999
    assert torch.equal(bristles.mask, plain.mask)
    assert (bristles.image - plain.image).abs().max() > 0.1


def test_some_photos_are_taken_from_close_up():
    distance = draw_distance(Draws("cpu", 1), 4000, 0.3, 0.08)
    assert 0.05 < (distance < 0.35).float().mean() < 0.09
    assert 0.72 < distance.median() < 0.82
    assert distance.max() > 1.8
    assert 0.15 <= distance.min() < 0.2
    assert bool((draw_distance(Draws("cpu", 1), 10, 0.0, 0.0) == 1).all())
