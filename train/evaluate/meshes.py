"""Meshes and landmark files as people keep them: OBJ, PLY, STL; landmarks as text, NumPy arrays or MeshLab's picked points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from focus_backend.photo_paths import printable
from train.evaluate.errors import EvaluationError

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".off")
LANDMARK_SUFFIXES = (".pp", ".lmk", ".txt", ".npy")
NOW_POINTS = 7
_PICKED_POINT = re.compile(r"<point\b([^>]*?)/?>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r'\b(\w+)\s*=\s*["\']([^"\']*)["\']')


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in its own frame and unit; `triangles` may be empty where only the points matter."""

    vertices: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]


def read_mesh(path: Path) -> Mesh:
    """A mesh, polygons cut into triangles.

    Raises:
        EvaluationError: missing, damaged, without points, or with points that are not finite; the file is named.
    """
    try:
        mesh = _read_obj(path) if path.suffix.lower() == ".obj" else _read_with_trimesh(path)
    except OSError as error:
        raise EvaluationError(f"the mesh {_name(path)} cannot be read ({error.strerror or error})", "check the file") from error
    except Exception as error:  # a damaged file makes a parser fail in any way it likes
        raise EvaluationError(f"the mesh {_name(path)} is damaged ({_first_line(error)})", "get the file again") from error
    if not len(mesh.vertices):
        raise EvaluationError(f"the mesh {_name(path)} has no points", "get the file again")
    if not np.isfinite(mesh.vertices).all():
        raise EvaluationError(f"the mesh {_name(path)} has points that are not finite", "get the file again")
    if len(mesh.triangles) and not 0 <= mesh.triangles.min() <= mesh.triangles.max() < len(mesh.vertices):
        raise EvaluationError(f"the mesh {_name(path)} has faces of points that are not there", "get the file again")
    return mesh


def read_landmarks(path: Path) -> Float[np.ndarray, "7 3"]:
    """The seven NoW landmarks of a scan or a mesh, in the file's order: subject's right eye first, mouth corners last.

    Raises:
        EvaluationError: missing, damaged, or not seven points; the file is named.
    """
    try:
        points = _landmark_values(path)
    except OSError as error:
        raise EvaluationError(f"the landmarks {_name(path)} cannot be read ({error.strerror or error})", "check the file") from error
    except Exception as error:  # as above
        raise EvaluationError(f"the landmarks {_name(path)} are damaged ({_first_line(error)})", "get the file again") from error
    return check_landmarks(points, _name(path))


def check_landmarks(points: np.ndarray, name: str) -> Float[np.ndarray, "7 3"]:
    """Seven finite points in space that are not all one.

    Raises:
        EvaluationError: they are not.
    """
    if points.size != NOW_POINTS * 3 or not np.isfinite(points).all():
        raise EvaluationError(f"{name}: {points.size} numbers instead of 7 finite landmarks in space", "give the seven NoW landmarks")
    points = points.reshape(NOW_POINTS, 3).astype(np.float64)
    if np.ptp(points, axis=0).max() <= 0:
        raise EvaluationError(f"{name}: all seven landmarks are the same point", "give the seven NoW landmarks")
    return points


def _landmark_values(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    text = path.read_text(encoding="utf-8", errors="replace")
    if suffix == ".pp" or "<point" in text:
        return _picked_points(text)
    lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    # Some files lead each line with the point's name or number.
    return np.array([[float(value) for value in line[-3:]] for line in lines])


def _picked_points(text: str) -> np.ndarray:
    """MeshLab's picked points that are switched on, in the file's order."""
    points = []
    for element in _PICKED_POINT.findall(text):
        attributes = dict(_ATTRIBUTE.findall(element))
        if attributes.get("active", "1") != "0":
            points.append([float(attributes[axis]) for axis in "xyz"])
    return np.array(points)


def _read_obj(path: Path) -> Mesh:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64).reshape(-1, 3)
    polygons = [[int(corner.partition("/")[0]) for corner in line.split()[1:]] for line in lines if line.startswith("f ")]
    fans = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    triangles = np.array(fans, dtype=np.int64).reshape(-1, 3)
    # A negative index counts from the last vertex, which is right only for files whose vertices all come first; scans' do.
    return Mesh(vertices, np.where(triangles < 0, triangles + len(vertices), triangles - 1))


def _read_with_trimesh(path: Path) -> Mesh:
    import trimesh

    loaded: Any = trimesh.load(path, force="mesh", process=False)
    faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    return Mesh(np.asarray(loaded.vertices, dtype=np.float64).reshape(-1, 3), faces)


def _name(path: Path) -> str:
    return printable(str(path))


def _first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0][:120])
