"""What every landmark detector gives: named points of each face in a photo, in photo pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from focus_backend.progress import Beat, quiet

# The five points an aligned crop needs, in the order every `five_points` has. Right and left are the subject's.
FIVE_POINT_NAMES = ("right_eye", "left_eye", "nose_tip", "mouth_right", "mouth_left")


@dataclass(frozen=True)
class Detection:
    """The landmarks of one face, in photo pixels (origin top left, pixel centres at +0.5).

    Attributes:
        detector: name of what found them.
        names: one name a point.
        points: positions.
        five_points: centres of the eyes, nose tip, corners of the mouth, in the order of `FIVE_POINT_NAMES`.
        box: left, top, right, bottom of the face.
        score: how sure the detector is that this is a face, 0 to 1.
        spread: standard deviation of each point in pixels when the crop is moved, turned, scaled and mirrored; None where
            the detector looks once.
        depth: the detector's guess of each point's depth in pixels, relative, larger is farther away; None without one.
    """

    detector: str
    names: tuple[str, ...]
    points: Float[np.ndarray, "points 2"]
    five_points: Float[np.ndarray, "5 2"]
    box: tuple[float, float, float, float]
    score: float = 1.0
    spread: Float[np.ndarray, "points"] | None = None
    depth: Float[np.ndarray, "points"] | None = None

    @property
    def size(self) -> float:
        """Longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@runtime_checkable
class LandmarkDetector(Protocol):
    """Finds faces and their landmarks. Loads its networks on the first call and keeps them; calls may come from any thread.

    Attributes:
        name: what `--landmarks` calls it.
        version: changes whenever the same photo may give other points; part of the key of cached embeddings.
        point_names: names of the points of every detection, in order.
    """

    name: str
    version: str
    point_names: tuple[str, ...]

    def detect(self, pixels: UInt8[np.ndarray, "height width 3"], beat: Beat = quiet) -> list[Detection]:
        """Every face of an upright RGB photo, largest first; an empty list when there is none.

        Args:
            pixels: the photo.
            beat: called between looks at the photo, where there are several.

        Raises:
            MissingDependencyError: the package or its weights are absent.
        """
        ...


def bounding_box(points: Float[np.ndarray, "points 2"]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of points."""
    left, top = points.min(0)
    right, bottom = points.max(0)
    return float(left), float(top), float(right), float(bottom)


def largest_first(detections: list[Detection]) -> list[Detection]:
    """Detections from the largest face to the smallest; equal sizes from left to right, so that the order is settled."""
    return sorted(detections, key=lambda detection: (-detection.size, detection.box))
