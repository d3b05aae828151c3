"""What is measured of faces that are not trained on: by hand, in the precision of the decoder, with the mask of the stage."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from train import masks
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits, reconstruct
from train.data.batch import FaceBatch
from train.data.synthetic import SyntheticFaces
from train.validation import measures, panel, validate

SIZE = 48


@pytest.fixture
def parts(tiny_model: FaceModel) -> Parts:
    torch.manual_seed(1)
    encoder, segmentation = Encoder(EncoderConfig(backbone="mobilenet"), tiny_model, SIZE), SegmentationNetwork(SegmentationConfig(width=4))
    calls = EncoderOutputs(encoder), SegmentationLogits(segmentation)
    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    return Parts(tiny_model, CropFrame.of(tiny_model, SIZE), encoder, segmentation, *calls, None, autocast)


@pytest.fixture
def source(parts: Parts) -> SyntheticFaces:
    return SyntheticFaces(parts.model, parts.frame, seed=3)


@pytest.fixture
def batch(source: SyntheticFaces) -> FaceBatch:
    return source.batch(0, 2)


def test_measures_by_hand(parts: Parts, batch: FaceBatch) -> None:
    parts.encoder.eval()
    with torch.no_grad():
        seen = reconstruct(parts, batch)
    # Landmarks three and four pixels beside the found ones; the second face's are not known.
    beside = seen.decoded.landmarks + torch.tensor([3.0, 4.0])
    told = dataclasses.replace(batch, landmarks=beside, landmark_weight=torch.tensor([1.0, 0.0]), mask=torch.ones_like(seen.region))
    half = torch.zeros_like(seen.region)
    half[:, :, : SIZE // 2] = 1
    seen = dataclasses.replace(seen, batch=told, photo=seen.rendering + 0.1)
    found = measures(parts.model, seen, half * seen.region)
    assert found["landmark_px"] == pytest.approx(5 * 224 / SIZE, rel=1e-4)
    assert found["colour_rmse"] == pytest.approx(25.5, rel=1e-4)
    region = seen.region.sum((1, 2))
    hit = (half * seen.region).sum((1, 2))
    assert found["mask_f1"] == pytest.approx(float((2 * hit / (hit + region)).mean()), rel=1e-5)
    vertices = parts.model.triangles[parts.model.triangle_in_face].unique()
    moved = torch.einsum("bk,kvc->bvc", batch.theta.shape, parts.model.shape_basis)[:, vertices]
    assert found["shape_mm"] == pytest.approx(float(moved.norm(dim=-1).mean()), rel=1e-4)


def test_half_precision_is_for_networks_not_for_geometry(parts: Parts, source: SyntheticFaces) -> None:
    """A zero head says the start of theta in any precision, so all measures must be those of single precision."""
    found, _ = validate(parts, source, 4, masks.everything)
    exact, _ = validate(dataclasses.replace(parts, autocast=torch.no_grad), source, 4, masks.everything)
    assert found == exact


def test_the_mask_is_the_stages(parts: Parts, source: SyntheticFaces) -> None:
    everything, first = validate(parts, source, 4, masks.everything)
    network, second = validate(parts, source, 4)
    batch = source.batch(0, 4)
    seen = reconstruct(parts, batch)
    truth = (batch.mask * seen.region).sum((1, 2))
    expected = float((2 * truth / (truth + seen.region.sum((1, 2)))).mean())
    assert everything["mask_f1"] == pytest.approx(expected, abs=1e-5)
    assert network["mask_f1"] != everything["mask_f1"]
    assert (first != second).any()
    assert not parts.encoder.training
    assert not parts.segmentation.training


def test_the_panel_has_a_column_a_face(parts: Parts, batch: FaceBatch) -> None:
    with torch.no_grad():
        seen = reconstruct(parts, batch)
    picture = panel(seen, seen.region)
    assert picture.shape == (2 * 3 * SIZE, 2 * 2 * SIZE, 3)
    assert not math.isclose(float(picture[: 2 * SIZE].mean()), float(picture[4 * SIZE :].mean()))
