"""Detectors by the name that `--landmarks` takes."""

from __future__ import annotations

import importlib

from focus_backend.errors import ConfigError
from focus_backend.landmarks.detector import LandmarkDetector

_CLASSES = {
    "mediapipe": ("focus_backend.landmarks.mediapipe", "MediaPipeDetector"),
    "insightface": ("focus_backend.landmarks.insightface", "InsightFaceDetector"),
    "face-alignment": ("focus_backend.landmarks.face_alignment", "FaceAlignmentDetector"),
}
DETECTOR_NAMES = tuple(_CLASSES)
DEFAULT_DETECTOR = "mediapipe"


def create_detector(name: str = DEFAULT_DETECTOR) -> LandmarkDetector:
    """A detector that has not loaded anything yet; keep it, its networks are loaded once.

    Raises:
        ConfigError: there is no detector of that name.
    """
    if name not in _CLASSES:
        raise ConfigError(f"there is no landmark detector {name!r}", f"choose one of {', '.join(DETECTOR_NAMES)}")
    module, kind = _CLASSES[name]
    detector: LandmarkDetector = getattr(importlib.import_module(module), kind)()
    return detector
