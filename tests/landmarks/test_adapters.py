"""Optional detectors: what is missing is said, and nothing is downloaded."""

from __future__ import annotations

import importlib.util
import socket

import numpy as np
import pytest

from focus_backend.errors import ConfigError, MissingDependencyError
from focus_backend.landmarks import DETECTOR_NAMES, LandmarkDetector, create_detector
from focus_backend.landmarks.face_alignment import FaceAlignmentDetector
from focus_backend.landmarks.insightface import InsightFaceDetector

BLANK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def no_network(monkeypatch):
    """Any connection fails the test."""

    def refuse(*arguments, **options):
        raise AssertionError("a network connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_every_name_gives_a_detector(name):
    detector = create_detector(name)
    assert isinstance(detector, LandmarkDetector)
    assert detector.name == name
    assert len(set(detector.point_names)) == len(detector.point_names)


def test_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="mediapipe, insightface, face-alignment"):
        create_detector("dlib")


@pytest.mark.parametrize(
    ("detector", "package", "extra"),
    [(InsightFaceDetector, "insightface", "insightface"), (FaceAlignmentDetector, "face_alignment", "face-alignment")],
)
def test_missing_package_or_weights_are_named(detector, package, extra, tmp_path, no_network):
    with pytest.raises(MissingDependencyError) as caught:
        detector(tmp_path).detect(BLANK)
    if importlib.util.find_spec(package) is None:
        assert f"[{extra}]" in caught.value.remedy
    else:
        assert str(tmp_path) in caught.value.problem
    assert list(tmp_path.iterdir()) == []
