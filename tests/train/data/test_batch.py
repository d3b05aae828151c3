"""Batches whose left and right are exchanged: pictures, points, masks and theta go together."""

from __future__ import annotations

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.mirror import FaceMirror
from train.data.pool import PooledFaces
from train.data.synthetic import SyntheticConfig, SyntheticFaces

SIZE = 64


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


@pytest.fixture(scope="module")
def source(model: FaceModel) -> SyntheticFaces:
    return SyntheticFaces(model, CropFrame.of(model, SIZE), SyntheticConfig.clean(), seed=4)


def test_a_mirrored_face_is_true_to_its_picture(model: FaceModel, source: SyntheticFaces) -> None:
    mirror, batch = FaceMirror.of(model), source.batch(0, 4)
    assert mirror is not None
    changed = batch.mirrored(mirror, torch.tensor([True, False, True, False]))
    assert changed.theta is not None
    assert changed.mask is not None
    assert batch.mask is not None
    assert torch.equal(changed.image[1], batch.image[1])
    assert torch.equal(changed.image[0], batch.image[0].flip(-1))
    drawn = decode(model, CropFrame.of(model, SIZE), changed.theta)
    assert (drawn.landmarks - changed.landmarks).norm(dim=-1).mean(1).max() < 0.05
    overlap = (drawn.rendering.mask & (changed.mask > 0.5)).sum((1, 2)) / (changed.mask > 0.5).sum((1, 2))
    assert bool((overlap > 0.97).all())


def test_a_pool_mirrors_half_of_its_faces_and_others_every_epoch(model: FaceModel, source: SyntheticFaces) -> None:
    mirror = FaceMirror.of(model)
    plain, mirrored, again = (PooledFaces(source, 16, seed=1, mirror=chosen) for chosen in (None, mirror, mirror))
    changed = [(plain.batch(step, 16).image != mirrored.batch(step, 16).image).flatten(1).any(1) for step in range(4)]
    assert torch.equal(mirrored.batch(3, 16).image, again.batch(3, 16).image)
    assert 16 < sum(int(which.sum()) for which in changed) < 48
    assert not torch.equal(changed[0], changed[1])
