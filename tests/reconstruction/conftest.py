"""The shipped model, the demo photo and fits that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
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
