"""The shipped model, the demo photo and fits that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import save_weights
from focus_backend.photo import Photo, read_photo
from focus_backend.reconstruction.fitting import FaceFitter
from focus_backend.reconstruction.pixels import PixelTables

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model() -> FaceModel:
    """The shipped model."""
    return load_model("anny")


@pytest.fixture(scope="session")
def fitter(model: FaceModel) -> FaceFitter:
    """A fitter of the shipped model."""
    return FaceFitter(model)


@pytest.fixture(scope="session")
def tables(fitter: FaceFitter) -> PixelTables:
    """Its tables."""
    return fitter.tables


@pytest.fixture(scope="session")
def astronaut() -> Photo:
    """The demo photo."""
    return read_photo(ROOT / "docs" / "demo" / "astronaut.jpg")


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes real weights of small networks: an encoder that says the same of every face, and a mask that is the same everywhere.

    Its arguments: the face model; `outputs` [theta], the encoder's (zeros: the mean face at the start); `face`, log odds of the mask;
    `misfit` and `training` notes.
    """

    def make(face_model: FaceModel, outputs: torch.Tensor | None = None, face: float = 4.0, **options) -> Path:
        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(backbone="mobilenet"), face_model, 224)
        segmentation = SegmentationNetwork(SegmentationConfig(width=4))
        with torch.no_grad():
            segmentation.last.weight.zero_()
            segmentation.last.bias.fill_(face)
            if outputs is not None:
                encoder.backbone.head.bias.copy_(outputs)
        folder = tmp_path_factory.mktemp("weights") / "small"
        save_weights(folder, encoder, segmentation, model=face_model, image_size=224, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def plain_weights(model: FaceModel, make_weights: Callable[..., Path]) -> Path:
    """Weights that see the mean face, all of it visible."""
    return make_weights(model)
