"""The 68 points of the one face of an aligned crop, seen the same way in training and in photos.

Networks learn a detector's errors with its points, and those depend on how it looks: resolution, turn and number of looks. So it looks
again at the crop, whatever found the face.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from focus_backend.landmarks.calibration_store import calibration_for
from focus_backend.landmarks.detector import LandmarkDetector
from focus_backend.landmarks.landmarks68 import Landmarks68
from focus_backend.landmarks.mediapipe import MediaPipeDetector
from focus_backend.landmarks.registry import create_detector
from focus_backend.morphable.face_model import FaceModel

# A crop's face lies in its middle: points that lie farther from those of the mean face, as a share of the crop, are of another face.
_LARGEST_MISS = 0.15


class CropLandmarks:
    """Looks at aligned crops; loads nothing before the first one. Calls may come from any thread.

    Args:
        model: whose 68 points are wanted.
        detector: its name.

    Raises:
        ConfigError: there is no such detector.
    """

    def __init__(self, model: FaceModel, detector: str) -> None:
        self._model = model
        self._calibrated = create_detector(detector)
        # One look is enough for a face that fills its crop.
        is_quick = detector == MediaPipeDetector.name
        self._detector: LandmarkDetector = MediaPipeDetector(views=1, is_thorough=False) if is_quick else self._calibrated

    def find(self, crop: UInt8[np.ndarray, "size size 3"], expected: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68 2"] | None:
        """The points of the face nearest to the expected ones, crop pixels; None where none is near.

        Args:
            crop: RGB, sRGB-encoded.
            expected: roughly where the points are.

        Raises:
            MissingDependencyError: the detector's package is absent.
        """
        seen = [self._landmarks68(found.points) for found in self._detector.detect(crop)]
        misses = [float(np.linalg.norm(points - expected, axis=1).mean()) for points in seen]
        if not misses or min(misses) > _LARGEST_MISS * len(crop):
            return None
        return seen[int(np.argmin(misses))]

    @cached_property
    def _landmarks68(self) -> Landmarks68:
        return Landmarks68.of(self._model.to("cpu"), calibration_for(self._model, self._calibrated))
