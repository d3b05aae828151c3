"""Faces in a mirror: the mirrored theta draws the mirrored picture."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.mirror import FaceMirror
from focus_backend.networks.theta import Theta

SIZE = 112


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


def some_face(model: FaceModel) -> Theta:
    random = torch.Generator().manual_seed(2)
    frame = CropFrame.of(model, SIZE)
    lighting = 0.3 * torch.randn(1, 9, 3, generator=random)
    lighting[:, 0] += 3
    return Theta(
        shape=torch.randn(1, model.shape_size, generator=random),
        expression=0.5 * torch.rand(1, model.expression_size, generator=random) / model.expression_scale,
        albedo=torch.randn(1, model.albedo_size, generator=random),
        lighting=lighting,
        rotation=torch.tensor([[0.1, 0.5, -0.1]]),
        translation=frame.start_translation[None] + torch.tensor([[6.0, -3.0, 20.0]]),
    )


def test_the_mirrored_theta_draws_the_mirrored_picture(model: FaceModel) -> None:
    mirror, theta, frame = FaceMirror.of(model), some_face(model), CropFrame.of(model, SIZE)
    assert mirror is not None
    plain, mirrored = (decode(model, frame, face) for face in (theta, mirror.theta(theta)))
    flipped = plain.rendering.image.flip(2)
    both = plain.rendering.mask.flip(2) & mirrored.rendering.mask
    assert both.sum() > 0.99 * mirrored.rendering.mask.sum()
    assert (flipped - mirrored.rendering.image)[both].abs().mean() < 0.01
    assert (plain.rendering.image - mirrored.rendering.image)[both].abs().mean() > 0.03
    torch.testing.assert_close(mirror.landmarks(plain.landmarks, SIZE), mirrored.landmarks, atol=0.05, rtol=0)


def test_a_mirror_before_a_mirror_changes_nothing(model: FaceModel) -> None:
    mirror, theta = FaceMirror.of(model), some_face(model)
    assert mirror is not None
    twice = mirror.theta(mirror.theta(theta))
    for name in ("shape", "expression", "lighting", "rotation", "translation"):
        torch.testing.assert_close(getattr(twice, name), getattr(theta, name), atol=1e-3, rtol=0)


def test_a_lopsided_model_has_no_mirror(model: FaceModel) -> None:
    shifted = model.mean_shape.clone()
    shifted[:10] += 1
    assert FaceMirror.of(dataclasses.replace(model, mean_shape=shifted)) is None
    basis = model.shape_basis.clone()
    basis[0, :1000] *= 2
    assert FaceMirror.of(dataclasses.replace(model, shape_basis=basis)) is None
