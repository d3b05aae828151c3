"""The detector of the insightface package: 106 points. Its weights are the user's to fetch, and for research only."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from focus_backend.errors import MissingDependencyError
from focus_backend.landmarks.detector import Detection, largest_first
from focus_backend.progress import Beat, quiet

_PACK = "buffalo_l"
_FILES = ("det_10g.onnx", "2d106det.onnx")
# Faces must span more than some 1/40 of this to be found.
_FINDER_PIXELS = 640


class InsightFaceDetector:
    """insightface's SCRFD finder and its 106-point network, on the CPU."""

    name = "insightface"
    version = f"insightface-{_PACK}/1"
    point_names = tuple(f"insightface_{index:03d}" for index in range(106))

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path.home() / ".insightface"
        self._analysis: Any = None
        self._lock = threading.Lock()

    def detect(self, pixels: UInt8[np.ndarray, "height width 3"], beat: Beat = quiet) -> list[Detection]:
        """Every face of an upright RGB photo, largest first, in one look: `beat` is not called meanwhile.

        Raises:
            MissingDependencyError: insightface or its weights are absent.
        """
        with self._lock:
            if self._analysis is None:
                self._analysis = self._load()
            faces = self._analysis.get(np.ascontiguousarray(pixels[:, :, ::-1]))
        return largest_first([_detection(face) for face in faces])

    def _load(self) -> Any:
        folder = self._root / "models" / _PACK
        try:
            app = importlib.import_module("insightface.app")
        except ImportError as error:
            raise MissingDependencyError(
                f"insightface cannot be loaded ({error})", 'install it with: pip install -c constraints.txt "focus-backend[insightface]"'
            ) from error
        # insightface downloads what it misses without asking, so it is asked only when nothing is missing.
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise MissingDependencyError(
                f"the weights {', '.join(missing)} of insightface are not in {folder}",
                f"unpack {_PACK}.zip of insightface's model zoo (its licence allows research only) into {folder}",
            )
        analysis = app.FaceAnalysis(
            name=_PACK, root=str(self._root), allowed_modules=["detection", "landmark_2d_106"], providers=["CPUExecutionProvider"]
        )
        analysis.prepare(ctx_id=-1, det_size=(_FINDER_PIXELS, _FINDER_PIXELS))
        return analysis


def _detection(face: Any) -> Detection:
    # Pixel centres lie at whole numbers in insightface and at +0.5 here.
    points = np.asarray(face.landmark_2d_106, dtype=np.float64) + 0.5
    left, top, right, bottom = (float(value) + 0.5 for value in face.bbox)
    return Detection(
        detector=InsightFaceDetector.name,
        names=InsightFaceDetector.point_names,
        points=points,
        five_points=np.asarray(face.kps, dtype=np.float64) + 0.5,
        box=(left, top, right, bottom),
        score=float(face.det_score),
    )
