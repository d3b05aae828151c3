"""Real photos and a detector that all tests share, because its networks take a moment to load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus_backend.landmarks.mediapipe import MediaPipeDetector
from spots import spotted_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """The demo photo: one face of about 110 pixels, looking at the camera."""
    return np.asarray(Image.open(ROOT / "docs" / "demo" / "astronaut.jpg").convert("RGB"))


@pytest.fixture(scope="session")
def detector() -> MediaPipeDetector:
    """The default detector."""
    return MediaPipeDetector()


@pytest.fixture(scope="session")
def spotted(tiny_model):
    """The tiny model with painted spots, and where those are (mm)."""
    return spotted_model(tiny_model)
