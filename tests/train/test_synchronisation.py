"""Steps of training take the way of CUDA on tensors without values: nothing may be read, no devices may meet, and no one may wait."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import cached_property

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.theta import Theta
from focus_backend.rendering import MeshTopology
from synchronisation import count_synchronisations
from train import masks, steps
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits
from train.config import load_config
from train.data.batch import FaceBatch
from train.data.synthetic import SyntheticFaces
from train.steps import error_forms

SIZE = 48


def _without_values(value):
    """The same with every tensor on the device "meta", also those inside of dataclasses."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{f.name: _without_values(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


def _parts(model, frame, encoder, segmentation, recognition):
    calls = EncoderOutputs(encoder), SegmentationLogits(segmentation)
    return Parts(model, frame, encoder, segmentation, *calls, recognition.freeze(), contextlib.nullcontext)


def _networks(model, device):
    encoder = Encoder(EncoderConfig(backbone="mobilenet"), model, SIZE)
    return [network.to(device) for network in (encoder, SegmentationNetwork(SegmentationConfig(width=4)), RecognitionNetwork())]


@pytest.fixture
def parts(tiny_model, monkeypatch):
    """All parts of a run, with what a model computes once, on the CPU, already there."""
    # There is no mixed precision without values.
    monkeypatch.setattr(torch, "autocast", lambda *given, **options: contextlib.nullcontext())
    model = _without_values(tiny_model)
    for name, value in vars(FaceModel).items():
        if isinstance(value, cached_property):
            vars(model)[name] = _without_values(getattr(tiny_model, name))
    vars(model)["_rendering_topology"] = {"face": _without_values(MeshTopology.of(tiny_model))}
    return _parts(model, _without_values(CropFrame.of(tiny_model, SIZE)), *_networks(tiny_model, "meta"))


@pytest.fixture
def batch(tiny_model):
    """Two faces."""
    sizes = (tiny_model.shape_size, tiny_model.expression_size, tiny_model.albedo_size)
    theta = Theta(*(torch.zeros(2, size) for size in sizes), torch.zeros(2, 9, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    image, landmarks = torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, 68, 2)
    inside, mask = torch.ones(2, SIZE, SIZE, dtype=torch.bool), torch.ones(2, SIZE, SIZE)
    return _without_values(FaceBatch(image, landmarks, torch.ones(2), inside, mask, theta))


def _computations(parts, forms):
    losses = load_config("focus").losses
    likelihood = losses.model_copy(update={"preliminary": "likelihood", "pixel": "lengths"})
    return {
        "R, mask of S": lambda batch: steps.encoder_step(parts, losses, batch, masks.by_network(parts)),
        "R, M_pre": lambda batch: steps.encoder_step(parts, losses, batch, masks.by_difference(losses)),
        "R, likelihood": lambda batch: steps.encoder_step(parts, likelihood, batch, masks.by_difference(likelihood)),
        "S": lambda batch: steps.segmentation_step(parts, losses, batch),
        "S, start": lambda batch: steps.segmentation_start_step(parts, batch, masks.of_truth),
        "R, warm start": lambda batch: steps.warm_start_step(parts, batch, forms),
    }


def test_no_step_waits_for_the_device(parts, batch, tiny_model):
    pytest.importorskip("triton", reason="triton is not installed")
    forms = {name: form.to("meta") for name, form in error_forms(tiny_model).items()}
    for name, compute in _computations(parts, forms).items():
        learner = parts.segmentation if name.startswith("S") else parts.encoder
        with count_synchronisations() as found:
            compute(batch).total.backward()
        assert not found, name
        assert any(parameter.grad is not None for parameter in learner.parameters()), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_step_waits_for_cuda(tiny_model):
    config = load_config("focus")
    model = tiny_model.to("cuda")
    frame = CropFrame.of(model, SIZE)
    parts = _parts(model, frame, *_networks(tiny_model, "cuda"))
    source = SyntheticFaces(model, frame, config.synthetic, seed=0, device="cuda")
    computations = _computations(parts, error_forms(model))

    def once(step):
        faces = source.batch(step, 2)
        for compute in computations.values():
            compute(faces).total.backward()

    once(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        once(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
