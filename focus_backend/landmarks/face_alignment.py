"""The detector of the face-alignment package: the 68 points. Its weights are the user's to fetch."""

from __future__ import annotations

import importlib
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from focus_backend.errors import MissingDependencyError
from focus_backend.landmarks.detector import Detection, largest_first
from focus_backend.progress import Beat, quiet

_FILES = ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar")
# Right eye, left eye, nose tip, right and left mouth corner among the 68.
_FIVE_POINT_SOURCES = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))


class FaceAlignmentDetector:
    """face-alignment's S3FD finder and 2D FAN-4, on the CPU."""

    name = "face-alignment"
    version = "face-alignment-2dfan4/1"
    point_names = tuple(f"landmark_{index:02d}" for index in range(68))

    def __init__(self, weights: Path | None = None) -> None:
        self._weights = weights
        self._network: Any = None
        self._lock = threading.Lock()

    def detect(self, pixels: UInt8[np.ndarray, "height width 3"], beat: Beat = quiet) -> list[Detection]:
        """Every face of an upright RGB photo, largest first, in one look: `beat` is not called meanwhile.

        Raises:
            MissingDependencyError: face-alignment or its weights are absent.
        """
        with self._lock, warnings.catch_warnings():
            # "No faces were detected." is an answer here, not a warning.
            warnings.simplefilter("ignore")
            if self._network is None:
                self._network = self._load()
            landmarks, _, boxes = self._network.get_landmarks_from_image(np.ascontiguousarray(pixels), return_bboxes=True)
        return largest_first([_detection(points, box) for points, box in zip(landmarks or [], boxes or [], strict=True)])

    def _load(self) -> Any:
        try:
            package = importlib.import_module("face_alignment")
        except ImportError as error:
            raise MissingDependencyError(
                f"face-alignment cannot be loaded ({error})",
                'install it with: pip install -c constraints.txt "focus-backend[face-alignment]"',
            ) from error
        # face-alignment downloads what it misses without asking, so it is asked only when nothing is missing.
        folder = self._weights or _hub_folder()
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise MissingDependencyError(
                f"the weights {', '.join(missing)} of face-alignment are not in {folder}",
                "fetch them once with: python -c \"import face_alignment as f; f.FaceAlignment(f.LandmarksType.TWO_D, device='cpu')\"",
            )
        # Compiling pays off after hundreds of photos only, and wants a C++ compiler.
        return package.FaceAlignment(package.LandmarksType.TWO_D, device="cpu", flip_input=True, compile=False)


def _hub_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _detection(points: Float[np.ndarray, "68 _"], box: Any) -> Detection:
    # Pixel centres lie at whole numbers in face-alignment and at +0.5 here.
    positions = np.asarray(points[:, :2], dtype=np.float64) + 0.5
    left, top, right, bottom, score = (float(value) for value in box[:5])
    return Detection(
        detector=FaceAlignmentDetector.name,
        names=FaceAlignmentDetector.point_names,
        points=positions,
        five_points=np.stack([positions[list(source)].mean(0) for source in _FIVE_POINT_SOURCES]),
        box=(left + 0.5, top + 0.5, right + 0.5, bottom + 0.5),
        score=score,
    )
