"""Similarities between point sets, and the closest one between scan points and a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from focus_backend.errors import MissingDependencyError
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import Mesh

MAX_STEPS = 40
# The mean squared distance of two steps differs by less than this share: far below what the figures show.
CONVERGED = 1e-7


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def apply(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """The points moved."""
        return self.scale * points @ self.rotation.T + self.translation

    def undo(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """The points moved back."""
        return (points - self.translation) @ self.rotation / self.scale


def fit_similarity(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Similarity:
    """The proper similarity with the least squared distance from moved `source` to `target` (Umeyama 1991).

    Raises:
        EvaluationError: all points of `source` are one.
    """
    source_centre, target_centre = source.mean(0), target.mean(0)
    a, b = source - source_centre, target - target_centre
    variance = (a * a).sum()
    if not variance > 0:
        raise EvaluationError("points that are all the same cannot be aligned", "give a mesh with an extent")
    left, values, right = np.linalg.svd(b.T @ a)
    # A mirror image is never an alignment of a face.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / variance)
    return Similarity(scale, rotation, target_centre - scale * rotation @ source_centre)


class Surface:
    """A mesh's surface that is asked for the closest point, in the mesh's own frame.

    Raises:
        EvaluationError: no faces.
        MissingDependencyError: libigl is not installed.
    """

    def __init__(self, mesh: Mesh) -> None:
        try:
            import igl
        except ImportError as error:
            raise MissingDependencyError("the distance to a mesh needs libigl", 'pip install "focus-backend[evaluate]"') from error
        if not len(mesh.triangles):
            raise EvaluationError("the mesh has no faces, only points", "give a mesh with faces")
        self._vertices = np.ascontiguousarray(mesh.vertices, dtype=np.float64)
        self._triangles = np.ascontiguousarray(mesh.triangles, dtype=np.int64)
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._triangles)

    def closest(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
        """Distance to the surface, the triangle and the point that is closest."""
        squared, triangles, nearest = self._tree.squared_distance(self._vertices, self._triangles, np.ascontiguousarray(points))
        # libigl counts in another integer type of the same size.
        return np.sqrt(squared), triangles.astype(np.int64), nearest

    def normals(self, triangles: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n 3"]:
        """Unit normals of triangles, zero for one without an area."""
        a, b, c = np.moveaxis(self._vertices[self._triangles[triangles]], 1, 0)
        normal = np.cross(b - a, c - a)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)


def closest_point_rounds(surface: Surface, points: Float[np.ndarray, "n 3"], start: Similarity, rounds: int) -> Similarity:
    """The similarity after so many rounds of closest points and least squares: it may stop short of the least distance."""
    similarity = start
    for _ in range(rounds):
        _, _, nearest = surface.closest(similarity.undo(points))
        similarity = fit_similarity(nearest, points)
    return similarity


def refine(surface: Surface, points: Float[np.ndarray, "n 3"], start: Similarity) -> Similarity:
    """The similarity of the mesh next to `start` with the least squared distance from `points` to the moved surface.

    Levenberg-Marquardt on the distances themselves: only the part of a step along the line to the closest point changes a distance, so
    the mesh slides freely along the scan, which point-to-point rounds do only slowly. The mesh stays where it is, so that its tree is
    built once, and the points are moved into its frame.
    """
    best, damping = start, 1e-6
    residuals, jacobian, centre = _linearised(surface, points, best)
    cost = float(residuals @ residuals)
    for _ in range(MAX_STEPS):
        normal_matrix = jacobian.T @ jacobian
        damped = normal_matrix + damping * np.diag(np.maximum(np.diag(normal_matrix), 1e-12))
        trial = _moved(best, np.linalg.solve(damped, -jacobian.T @ residuals), centre)
        trial_residuals, trial_jacobian, trial_centre = _linearised(surface, points, trial)
        trial_cost = float(trial_residuals @ trial_residuals)
        if not trial_cost < cost:
            damping = max(damping * 10, 1e-4)
            if damping > 1e3:
                break
            continue
        gain = (cost - trial_cost) / cost
        best, residuals, jacobian, centre, cost = trial, trial_residuals, trial_jacobian, trial_centre, trial_cost
        damping = max(damping / 10, 1e-9)
        if gain < CONVERGED or cost <= 0:
            break
    return best


def _linearised(
    surface: Surface, points: Float[np.ndarray, "n 3"], similarity: Similarity
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n 7"], Float[np.ndarray, "3"]]:
    """Distances of `points` to the moved mesh, their derivatives by a step of `_moved`, and the step's centre."""
    distance, triangles, nearest = surface.closest(similarity.undo(points))
    moved = similarity.apply(nearest)
    direction = points - moved
    distance = distance * similarity.scale
    # On the surface the direction is rounding noise, but the normal tells which way leads off it.
    is_on = distance < 1e-9 * max(float(np.ptp(points)), 1.0)
    normals = surface.normals(triangles) @ similarity.rotation.T
    direction = np.where(is_on[:, None], normals, direction / np.maximum(distance, 1e-30)[:, None])
    centre = points.mean(0)
    arm = moved - centre
    grow = -(direction * arm).sum(1, keepdims=True)
    return distance, np.concatenate([grow, -np.cross(arm, direction), -direction], axis=1), centre


def _moved(similarity: Similarity, step: Float[np.ndarray, "7"], centre: Float[np.ndarray, "3"]) -> Similarity:
    """The mesh grown by exp(step[0]), turned by the vector step[1:4] (radians) about `centre`, then moved by step[4:7]."""
    growth, turn = float(np.exp(np.clip(step[0], -0.5, 0.5))), Rotation.from_rotvec(step[1:4]).as_matrix()
    translation = growth * turn @ (similarity.translation - centre) + centre + step[4:7]
    return Similarity(similarity.scale * growth, turn @ similarity.rotation, translation)
