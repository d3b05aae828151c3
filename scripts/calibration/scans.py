"""The scan statistics to agree with: ICT-FaceKit Light (USC ICT, MIT), as an npz of its neutral head and identity modes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from calibration.surface import nearest_points, triangulate, vertex_normals

EYE_DEPTH = 12.0  # mm from the middle of the eye corners back to the eyeballs' centres
OUTWARD_STEP = 6.0  # mm; a point pushed out by this that meets other surface lies inside the head


@dataclass(frozen=True)
class ScanStatistics:
    """A mean head and its identity modes, model axes, mm, origin about between the eyeballs.

    Attributes:
        vertices: the mean.
        triangles: of the whole head.
        normals: of the vertices.
        modes: offset of one standard deviation of each identity mode.
        landmarks: vertices of the 68 points.
        points: vertices to agree with: outer skin.
        is_scanned: of `points`, the face that scanners see; the others were filled in by a template.
    """

    vertices: Float[ndarray, "v 3"]
    triangles: Int[ndarray, "f 3"]
    normals: Float[ndarray, "v 3"]
    modes: Float[ndarray, "modes v 3"]
    landmarks: Int[ndarray, "68"]
    points: Int[ndarray, "p"]
    is_scanned: Bool[ndarray, "p"]


def read_scan_statistics(path: Path) -> ScanStatistics:
    """Read the npz (neutral, quads, identity, landmarks68, scan_vertices)."""
    with np.load(path, allow_pickle=False) as stored:
        vertices, quads = stored["neutral"].astype(np.float64), stored["quads"].astype(np.int64)
        modes, marks, scanned = stored["identity"].astype(np.float32), stored["landmarks68"], stored["scan_vertices"]
    origin = vertices[marks[[36, 39, 42, 45]]].mean(0) - [0, 0, EYE_DEPTH]
    vertices = vertices - origin
    triangles = triangulate(quads)
    normals = vertex_normals(vertices, triangles)
    is_scanned = np.zeros(len(vertices), dtype=bool)
    is_scanned[scanned] = True
    face = np.unique(triangles[is_scanned[triangles].all(1)])
    rest = _outer_skin(vertices, triangles, normals, np.setdiff1d(np.unique(triangles), face))
    points = np.concatenate([face, rest])
    return ScanStatistics(vertices, triangles, normals, modes, marks.astype(np.int64), points, np.arange(len(points)) < len(face))


def _outer_skin(
    vertices: Float[ndarray, "v 3"], triangles: Int[ndarray, "f 3"], normals: Float[ndarray, "v 3"], candidates: Int[ndarray, "c"]
) -> Int[ndarray, "d"]:
    """Skull and upper neck: no mouth inside or eyes, no ears (which never match), nothing below the neck."""
    candidates = candidates[vertices[candidates, 1] > -95]
    pushed = vertices[candidates] + normals[candidates] * OUTWARD_STEP
    is_outer = nearest_points(pushed, vertices, triangles)[0] > OUTWARD_STEP - 2
    x, y, z = vertices[candidates].T
    is_ear = (np.abs(x) > 66) & (y < 25) & (y > -75) & (z < -20)
    return candidates[is_outer & ~is_ear]
