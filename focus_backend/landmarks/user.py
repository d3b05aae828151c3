"""A user's own landmarks: the way out when no detector finds a face. The format is documented in docs/landmarks.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.landmarks.embedding import Embedding
from focus_backend.landmarks.surface import nearest_points
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

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
_FIVE_IN_68 = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
# A person's click on an eye or a mouth corner, mm along one axis.
_NOISE = 2.0
_EXAMPLE = '{"points": {"right_eye": [210, 180], "left_eye": [270, 181], ...}}'
_LARGEST_FILE = 1_000_000


def read_landmarks(path: str | Path) -> Detection:
    """The landmarks of one face in a JSON file, in pixels of the upright photo; hold them against it with `check_inside`.

    Raises:
        LandmarkError: the file cannot be read, or its points cannot be used: too few, unknown, not finite or two at one place.
    """
    points = _points_of(_read_json(Path(path)), Path(path))
    _check(points, Path(path))
    names = tuple(points)
    positions = np.array([points[name] for name in names], dtype=np.float64)
    return Detection(NAME, names, positions, _five_points(points, Path(path)), bounding_box(positions))


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


def embed_names(model: FaceModel, names: tuple[str, ...]) -> Embedding:
    """Points that a user can name, on a model: the five, the seven of NoW and the 68.

    Raises:
        LandmarkError: the model has no such point.
    """
    triangles, barycentric = zip(*(_place(model, name) for name in names), strict=True)
    points = SurfacePoints(names, torch.stack(triangles), torch.stack(barycentric))
    noise = torch.full((len(names),), _NOISE, dtype=model.mean_shape.dtype, device=model.device)
    return Embedding(NAME, points, torch.arange(len(names), device=model.device), noise, ())


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise LandmarkError(f"{path} is too large for a file of landmarks", f"write a file like {_EXAMPLE}")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LandmarkError(f"{path} cannot be read ({error.strerror or error})", "check the name of the file") from error
    except (ValueError, RecursionError) as error:
        raise LandmarkError(f"{path} is not JSON ({str(error).splitlines()[0]})", f"write a file like {_EXAMPLE}") from error


def _points_of(document: Any, path: Path) -> dict[str, tuple[float, float]]:
    """The points by name; a list of 5 or 68 is in the order of `FIVE_POINT_NAMES` or of the 68-point scheme."""
    points = document.get("points") if isinstance(document, dict) else document
    if isinstance(points, list):
        orders = {5: FIVE_POINT_NAMES, 68: LANDMARKS68_NAMES}
        if len(points) not in orders:
            raise LandmarkError(f"{path} lists {len(points)} points", "list 5 or 68 points, or name each of them")
        points = dict(zip(orders[len(points)], points, strict=True))
    if not isinstance(points, dict):
        raise LandmarkError(f'{path} has no "points"', f"write a file like {_EXAMPLE}")
    unknown = [name for name in points if name not in KNOWN_NAMES]
    if unknown:
        raise LandmarkError(
            f"{path} names a point {unknown[0]!r} that is not known", f"known are {', '.join(KNOWN_NAMES[:10])}, landmark_00 to landmark_67"
        )
    return {name: _position(name, value, path) for name, value in points.items()}


def _position(name: str, value: Any, path: Path) -> tuple[float, float]:
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in value):
        raise LandmarkError(f"{path}: {name} is not a pair of numbers", f"write a file like {_EXAMPLE}")
    try:
        return float(value[0]), float(value[1])
    except OverflowError as error:
        raise LandmarkError(f"{path}: {name} is not finite", "give every point a place in the photo, in pixels") from error


def _check(points: dict[str, tuple[float, float]], path: Path) -> None:
    if len(points) < len(FIVE_POINT_NAMES):
        raise LandmarkError(f"{path} has {len(points)} points", f"at least 5 are needed: {', '.join(FIVE_POINT_NAMES)}")
    seen: dict[tuple[float, float], str] = {}
    for name, (x, y) in points.items():
        if not (np.isfinite(x) and np.isfinite(y)):
            raise LandmarkError(f"{path}: {name} is not finite", "give every point a place in the photo, in pixels")
        if (x, y) in seen:
            raise LandmarkError(f"{path}: {name} and {seen[x, y]} are at the same place", "give every point a place of its own")
        seen[x, y] = name


def _five_points(points: dict[str, tuple[float, float]], path: Path) -> Float[np.ndarray, "5 2"]:
    """Eye centres, nose tip and mouth corners, from whichever names say where they are."""
    sources = dict(zip(FIVE_POINT_NAMES, _FIVE_IN_68, strict=True))
    corners = {"right_eye": NOW_NAMES[:2], "left_eye": NOW_NAMES[2:4], "nose_tip": (NOW_NAMES[4],)}
    found = []
    for name in FIVE_POINT_NAMES:
        ways = ((name,), tuple(f"landmark_{index:02d}" for index in sources[name]), corners.get(name, (name,)))
        way = next((way for way in ways if all(source in points for source in way)), None)
        if way is None:
            raise LandmarkError(f"{path} does not say where the {name} is", f"needed are {', '.join(FIVE_POINT_NAMES)}")
        found.append(np.mean([points[source] for source in way], axis=0))
    return np.array(found, dtype=np.float64)


def _place(model: FaceModel, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangle and barycentric weights of a named point."""
    if name in LANDMARKS68_NAMES or (name == "nose_tip"):
        return _pick(model.landmarks68, 30 if name == "nose_tip" else LANDMARKS68_NAMES.index(name), name, model)
    if name in NOW_NAMES:
        return _pick(model.now_landmarks, NOW_NAMES.index(name), name, model)
    return _eye_centre(model, _FIVE_IN_68[FIVE_POINT_NAMES.index(name)])


def _pick(points: SurfacePoints, index: int, name: str, model: FaceModel) -> tuple[torch.Tensor, torch.Tensor]:
    if index >= len(points.names):
        raise LandmarkError(f"model {model.name!r} has no point {name!r}", "leave that point out")
    return points.triangles[index], points.barycentric[index]


def _eye_centre(model: FaceModel, lids: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The place on the front of the eye nearest to the middle of its lids."""
    if len(model.landmarks68.names) <= max(lids):
        raise LandmarkError(f"model {model.name!r} has no points of the eyes", "name the corners of the eyes instead")
    vertices = model.mean_shape.double().cpu()
    middle = model.landmarks68.to("cpu").on(vertices.float(), model.triangles.cpu())[list(lids)].double().mean(0)
    corners = vertices[model.triangles.cpu()]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # The lids' middle lies inside the eyeball: start from a little in front, and take what faces there.
    front = (normals[:, 2] > 0).nonzero()[:, 0]
    nearest, barycentric = nearest_points((middle + torch.tensor([0.0, 0.0, 8.0]))[None], corners[front])
    return front[nearest[0]].to(model.device), barycentric[0].to(model.mean_shape)
