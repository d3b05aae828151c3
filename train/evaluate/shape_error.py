"""The NoW protocol for one photo (FOCUS.md, "NoW protocol"): crop the scan, align the mesh, measure from scan to mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from train.evaluate.alignment import Similarity, Surface, closest_point_rounds, fit_similarity, refine
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import Mesh

# The order of the seven landmarks.
RIGHT_OUTER, RIGHT_INNER, LEFT_INNER, LEFT_OUTER, NOSE_BOTTOM = range(5)
# Points a refinement looks at; the error is measured at every one.
REFINE_POINTS = {"converged": 4000, "rounds": 2000}
CLOSEST_POINT_ROUNDS = 12
MIN_POINTS = 20

# "converged" minimises the scan-to-mesh distance as the challenge's own evaluation does; "rounds" stops after twelve rounds of
# closest points.
Refinement = Literal["converged", "rounds"]


@dataclass(frozen=True)
class CroppedScan:
    """The part of a scan that is judged.

    Attributes:
        points: scan vertices inside the sphere, mm, scan frame.
        landmarks: the seven NoW landmarks, mm, scan frame.
    """

    points: Float[np.ndarray, "points 3"]
    landmarks: Float[np.ndarray, "7 3"]


def crop_sphere(landmarks: Float[np.ndarray, "7 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and radius of the judged sphere.

    The centre lies 0.3 of the way from nose bottom to nose bridge (between the inner eye corners); the radius is 1.4 times the mean of the
    distance of the outer eye corners and the length of the nose.
    """
    bottom = landmarks[NOSE_BOTTOM]
    nose = (landmarks[RIGHT_INNER] + landmarks[LEFT_INNER]) / 2 - bottom
    eyes = landmarks[RIGHT_OUTER] - landmarks[LEFT_OUTER]
    return bottom + 0.3 * nose, float(1.4 * (np.linalg.norm(eyes) + np.linalg.norm(nose)) / 2)


def crop_scan(vertices: Float[np.ndarray, "vertices 3"], landmarks: Float[np.ndarray, "7 3"], name: str = "scan") -> CroppedScan:
    """The scan's vertices inside the sphere.

    Raises:
        EvaluationError: next to nothing lies in it, so landmarks and scan do not belong together.
    """
    centre, radius = crop_sphere(landmarks)
    points = vertices[np.linalg.norm(vertices - centre, axis=1) <= radius]
    if len(points) < MIN_POINTS and len(points) < len(vertices):
        problem = f"only {len(points)} of {len(vertices)} points of {name} lie around its landmarks"
        raise EvaluationError(problem, "check that scan and landmarks have one frame and one unit")
    return CroppedScan(points, landmarks)


def align(
    scan: CroppedScan, mesh: Mesh, landmarks: Float[np.ndarray, "7 3"], refinement: Refinement = "converged"
) -> tuple[Similarity, Surface]:
    """The similarity from the mesh's frame to the scan's: by landmarks, then refined on the scan-to-mesh distance.

    Args:
        scan: cropped.
        mesh: the prediction, any unit.
        landmarks: the seven points on `mesh`, in its frame.
        refinement: how far the refinement goes.
    """
    surface = Surface(mesh)
    start = fit_similarity(landmarks, scan.landmarks)
    points = _spread(scan.points, REFINE_POINTS[refinement])
    if refinement == "rounds":
        return closest_point_rounds(surface, points, start, CLOSEST_POINT_ROUNDS), surface
    return refine(surface, points, start), surface


def scan_to_mesh(
    scan: CroppedScan, mesh: Mesh, landmarks: Float[np.ndarray, "7 3"], refinement: Refinement = "converged"
) -> Float[np.ndarray, "points"]:
    """Unsigned distance of every cropped scan vertex to the aligned mesh's surface, in the scan's unit (mm)."""
    similarity, surface = align(scan, mesh, landmarks, refinement)
    return surface.closest(similarity.undo(scan.points))[0] * similarity.scale


def _spread(points: Float[np.ndarray, "n 3"], count: int) -> Float[np.ndarray, "m 3"]:
    """At most `count` of the points, the same every time; vertices are often stored patch by patch, so not the first ones."""
    if len(points) <= count:
        return points
    return points[np.random.default_rng(0).permutation(len(points))[:count]]
