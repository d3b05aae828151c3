"""A user's own landmarks as points in a photo: read and checked without torch, so that a client of the server starts at once.

The format is documented in docs/landmarks.md.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.photo import Photo

NAME = "user"
LANDMARKS68_NAMES = tuple(f"landmark_{index:02d}" for index in range(68))
NOW_NAMES = (
    "right_eye_outer",
    "right_eye_inner",
    "left_eye_inner",
    "left_eye_outer",
    "nose_bottom",
    "mouth_right",
    "mouth_left",
)
KNOWN_NAMES = tuple(dict.fromkeys((*FIVE_POINT_NAMES, *NOW_NAMES, *LANDMARKS68_NAMES)))
# Where the five points lie among the 68.
FIVE_IN_68 = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
_EXAMPLE = '{"points": {"right_eye": [210, 180], "left_eye": [270, 181], ...}}'
_LARGEST_FILE = 1_000_000


def read_landmarks(path: str | Path) -> Detection:
    """The landmarks of one face in a JSON file, in pixels of the upright photo; hold them against it with `check_inside`.

    Raises:
        LandmarkError: the file cannot be read, or its points cannot be used: too few, unknown, not finite or two at one place.
    """
    return landmarks_of(_read_json(Path(path)), str(path))


def landmarks_of(document: Any, source: str) -> Detection:
    """The landmarks of one face in what a JSON file or a request holds, in pixels of the upright photo.

    Args:
        document: points by name, below "points"; or a list of 5 or 68.
        source: what messages call it.

    Raises:
        LandmarkError: its points cannot be used: too few, unknown, not finite or two at one place.
    """
    points = _points_of(document, source)
    _check(points, source)
    names = tuple(points)
    positions = np.array([points[name] for name in names], dtype=np.float64)
    return Detection(NAME, names, positions, _five_points(points, source), bounding_box(positions))


def check_inside(landmarks: Detection, width: int, height: int) -> None:
    """Checks that landmarks lie in a photo of this size in pixels.

    Raises:
        LandmarkError: one does not.
    """
    for name, (x, y) in zip(landmarks.names, landmarks.points.tolist(), strict=True):
        if not (0 <= x <= width and 0 <= y <= height):
            raise LandmarkError(
                f"landmark {name} at ({x:g}, {y:g}) lies outside the photo of {width} x {height} pixels",
                "give points in pixels of the upright photo, origin top left",
            )


def landmarks_in(photo: Photo, landmarks: Detection) -> Detection:
    """Landmarks that were measured in the upright file, in pixels of the photo as it was scaled down.

    Raises:
        LandmarkError: one lies outside the photo.
    """
    check_inside(landmarks, *photo.original_size)
    left, top, right, bottom = (edge * photo.scale for edge in landmarks.box)
    return dataclasses.replace(
        landmarks,
        points=landmarks.points * photo.scale,
        five_points=landmarks.five_points * photo.scale,
        box=(left, top, right, bottom),
    )


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise LandmarkError(f"{path} is too large for a file of landmarks", f"write a file like {_EXAMPLE}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LandmarkError(f"{path} cannot be read ({error.strerror or error})", "check the name of the file") from error
    except (ValueError, RecursionError) as error:
        raise LandmarkError(f"{path} is not JSON ({str(error).splitlines()[0]})", f"write a file like {_EXAMPLE}") from error


def _points_of(document: Any, source: str) -> dict[str, tuple[float, float]]:
    """The points by name; a list of 5 or 68 is in the order of `FIVE_POINT_NAMES` or of the 68-point scheme."""
    points = document.get("points") if isinstance(document, dict) else document
    if isinstance(points, list):
        orders = {5: FIVE_POINT_NAMES, 68: LANDMARKS68_NAMES}
        if len(points) not in orders:
            raise LandmarkError(f"{source} lists {len(points)} points", "list 5 or 68 points, or name each of them")
        points = dict(zip(orders[len(points)], points, strict=True))
    if not isinstance(points, dict):
        raise LandmarkError(f'{source} has no "points"', f"write a file like {_EXAMPLE}")
    unknown = [name for name in points if name not in KNOWN_NAMES]
    if unknown:
        raise LandmarkError(
            f"{source} names a point {unknown[0]!r} that is not known",
            f"known are {', '.join(KNOWN_NAMES[:10])}, landmark_00 to landmark_67",
        )
    return {name: _position(name, value, source) for name, value in points.items()}


def _position(name: str, value: Any, source: str) -> tuple[float, float]:
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        raise LandmarkError(f"{source}: {name} is not a pair of numbers", f"write a file like {_EXAMPLE}")
    try:
        return float(value[0]), float(value[1])
    except OverflowError as error:
        raise LandmarkError(f"{source}: {name} is not finite", "give every point a place in the photo, in pixels") from error


def _check(points: dict[str, tuple[float, float]], source: str) -> None:
    if len(points) < len(FIVE_POINT_NAMES):
        raise LandmarkError(f"{source} has {len(points)} points", f"at least 5 are needed: {', '.join(FIVE_POINT_NAMES)}")
    seen: dict[tuple[float, float], str] = {}
    for name, (x, y) in points.items():
        if not (np.isfinite(x) and np.isfinite(y)):
            raise LandmarkError(f"{source}: {name} is not finite", "give every point a place in the photo, in pixels")
        if (x, y) in seen:
            raise LandmarkError(f"{source}: {name} and {seen[x, y]} are at the same place", "give every point a place of its own")
        seen[x, y] = name


def _five_points(points: dict[str, tuple[float, float]], source: str) -> Float[np.ndarray, "5 2"]:
    """Eye centres, nose tip and mouth corners, from whichever names say where they are."""
    sources = dict(zip(FIVE_POINT_NAMES, FIVE_IN_68, strict=True))
    corners = {"right_eye": NOW_NAMES[:2], "left_eye": NOW_NAMES[2:4], "nose_tip": (NOW_NAMES[4],)}
    found = []
    for name in FIVE_POINT_NAMES:
        ways = ((name,), tuple(f"landmark_{index:02d}" for index in sources[name]), corners.get(name, (name,)))
        way = next((way for way in ways if all(point in points for point in way)), None)
        if way is None:
            raise LandmarkError(f"{source} does not say where the {name} is", f"needed are {', '.join(FIVE_POINT_NAMES)}")
        found.append(np.mean([points[point] for point in way], axis=0))
    return np.array(found, dtype=np.float64)
