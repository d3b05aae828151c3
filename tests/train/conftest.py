"""A small training run: the tiny face model, small crops, light networks, a recognition network that knows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model, save_model
from focus_backend.networks.checkpoint import save_network
from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork
from train.config import TrainingConfig, load_config


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, tiny_model: FaceModel) -> Path:
    """The tiny face model as a file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(tiny_model, path)
    return path


@pytest.fixture(scope="session")
def saved_model(model_file: Path) -> FaceModel:
    """The tiny face model with its hash."""
    return load_model(model_file)


@pytest.fixture(scope="session")
def recognition_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recognition network with random weights, named as such: the arithmetic of the losses is what is tested."""
    path = tmp_path_factory.mktemp("recognition") / "random.safetensors"
    torch.manual_seed(0)
    save_network(path, RecognitionNetwork(RecognitionConfig()), training={"note": "random"})
    return path


def small_settings(model_file: Path, recognition_file: Path) -> list[str]:
    """Overrides that make any configuration run in seconds."""
    return [
        f'model="{model_file}"',
        f'networks.recognition="{recognition_file}"',
        "image_size=48",
        "spread_faces=32",
        'networks.encoder.backbone="mobilenet"',
        "networks.segmentation.width=4",
        "data.pool=24",
        *(f"{stage}.batch_size=4" for stage in ("warmstart", "init", "segmentation", "em", "misfit")),
        "warmstart.steps=0",
        "init.steps=4",
        "segmentation.steps=2",
        "em.steps=6",
        "em.cycle=3",
        "em.segmentation_steps=1",
        "misfit.steps=0",
        "misfit.faces=32",
        "logging.log_every=1",
        "logging.picture_every=4",
        "logging.checkpoint_every=2",
        "logging.pictures=2",
        'compute.device="cpu"',
        "compute.threads=1",
    ]


@pytest.fixture
def small_run(model_file: Path, recognition_file: Path) -> list[str]:
    """`small_settings` of the tiny model."""
    return small_settings(model_file, recognition_file)


@pytest.fixture
def small_config(small_run: list[str]) -> TrainingConfig:
    """FOCUS with the paper's losses, small."""
    return load_config("focus", small_run)


@pytest.fixture(scope="session")
def whole_run(model_file: Path, recognition_file: Path) -> list[str]:
    """Overrides of a run of every stage."""
    return [*small_settings(model_file, recognition_file), "warmstart.steps=3", "misfit.steps=3"]
