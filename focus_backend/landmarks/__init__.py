"""Landmarks: detectors behind one protocol, a user's own points, and their places on a face model."""

from __future__ import annotations

from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, LandmarkDetector
from focus_backend.landmarks.registry import DEFAULT_DETECTOR, DETECTOR_NAMES, create_detector

__all__ = ["DEFAULT_DETECTOR", "DETECTOR_NAMES", "FIVE_POINT_NAMES", "Detection", "LandmarkDetector", "create_detector"]
