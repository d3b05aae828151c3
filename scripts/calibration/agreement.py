"""Second pass: the sampled population's components fitted to the scan statistics, and the controls moved until both agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from calibration.scans import ScanStatistics
from calibration.surface import nearest_points, points_on, triangulate
from focus_backend.morphable.anny_source import AnnyHead, mirrored
from focus_backend.morphable.population import REST_WEIGHT, ShapeComponents

# What the mesh cannot follow, mm, and how many neighbouring points share one such error.
NOISE, POINTS_A_PATCH = 0.6, 20
TANGENT_WEIGHT = 0.1
LANDMARK_NOISE = 1.0  # mm; the jaw's outline (the first 17) slides and is left out
INNER_LANDMARKS = np.arange(17, 68)
MEAN_COMPONENTS = 20  # that the mean is moved in: beyond them it would follow what is only a difference of the meshes
MATCHING_ROUNDS = 4
FAR = 8.0


@dataclass(frozen=True)
class Agreement:
    """Coefficients of the scan statistics in a model's components; with full agreement mean 0 and covariance 1.

    Attributes:
        mean, covariance: of the coefficients.
        spread: of the scan statistics and of the model across the surface, mm.
        residual: of the scan statistics' people after the best fit, across the surface, mm.
    """

    mean: Float[ndarray, "k"]
    covariance: Float[ndarray, "k k"]
    spread: tuple[float, float]
    residual: float


def measure_agreement(head: AnnyHead, shapes: ShapeComponents, landmarks: tuple[ndarray, ndarray], scans: ScanStatistics) -> Agreement:
    """Fit mean and modes of the scan statistics by a model's components and a rigid motion.

    Args:
        landmarks: triangles and weights of the 68 points on the head.
    """
    points = scans.points[scans.is_scanned]
    faces = triangulate(head.quads)
    skin = np.flatnonzero(np.isin(faces[:, 0], head.skin))
    count = len(shapes.basis)
    rotation, shift, mean = np.eye(3), np.zeros(3), np.zeros(count)
    for _ in range(MATCHING_ROUNDS):
        posed = (shapes.mean + np.tensordot(mean, shapes.basis, 1)) @ rotation.T + shift
        distance, triangles, weights = nearest_points(scans.vertices[points], posed, faces[skin])
        kept = np.flatnonzero(distance < FAR)
        triangles = np.concatenate([skin[triangles[kept]], landmarks[0][INNER_LANDMARKS]])
        weights = np.concatenate([weights[kept], landmarks[1][INNER_LANDMARKS]])
        targets = np.concatenate([points[kept], scans.landmarks[INNER_LANDMARKS]])
        measure = _Measure(scans.normals[targets], len(kept))
        places = points_on(posed, faces, triangles, weights)
        rows = _equations(points_on(shapes.basis, faces, triangles, weights) @ rotation.T, places, measure)
        square = rows.T @ rows + np.diag(np.r_[np.ones(count), np.zeros(6)])
        gaps = measure.stack(scans.vertices[targets] - places)
        step = np.linalg.solve(square, rows.T @ gaps - np.r_[mean, np.zeros(6)])
        mean = mean + step[:count]
        turn = Rotation.from_rotvec(step[count : count + 3]).as_matrix()
        rotation, shift = turn @ rotation, turn @ shift + step[count + 3 :]
    modes = np.stack([measure.stack(mode) for mode in scans.modes[:, targets].astype(np.float64)], 1)
    return _summary(head, shapes, mean, rows, modes, len(kept))


@dataclass(frozen=True)
class _Measure:
    """Turns offsets of points into what is compared, in units of the noise.

    Attributes:
        normals: of all points: those of the surface, then the landmarks.
        surface: number of surface points.
    """

    normals: Float[ndarray, "p 3"]
    surface: int

    def stack(self, offsets: Float[ndarray, "p 3"]) -> Float[ndarray, "rows"]:
        """Surface offsets across and, weakly, along the surface; landmarks in all directions."""
        skin, marks = offsets[: self.surface], offsets[self.surface :]
        across = (skin * self.normals[: self.surface]).sum(1)
        surface = np.concatenate([across, TANGENT_WEIGHT * skin.ravel()]) / (NOISE * np.sqrt(POINTS_A_PATCH))
        return np.concatenate([surface, marks.ravel() / LANDMARK_NOISE])


def _equations(basis: Float[ndarray, "k p 3"], places: Float[ndarray, "p 3"], measure: _Measure) -> Float[ndarray, "rows n"]:
    """Derivatives by components, rotation and shift."""
    turns = np.stack([np.cross(axis, places) for axis in np.eye(3)])
    shifts = np.broadcast_to(np.eye(3)[:, None], turns.shape)
    return np.stack([measure.stack(part) for part in np.concatenate([basis, turns, shifts])], 1)


def _summary(
    head: AnnyHead,
    shapes: ShapeComponents,
    mean: Float[ndarray, "k"],
    rows: Float[ndarray, "rows n"],
    modes: Float[ndarray, "rows m"],
    surface: int,
) -> Agreement:
    """Coefficients of the modes, made symmetric, and spreads across the surface with the rigid motion taken out."""
    count = len(mean)
    square = rows.T @ rows + np.diag(np.r_[np.ones(count), np.zeros(6)])
    solved = np.linalg.solve(square, rows.T @ modes)
    # What the points hardly show keeps its prior spread: the expectation step adds what the fit leaves open.
    covariance = solved[:count] @ solved[:count].T + np.linalg.inv(square)[:count, :count]
    across = [table[:surface] * NOISE * np.sqrt(POINTS_A_PATCH) for table in (modes, rows[:, :count], modes - rows @ solved)]
    rigid = rows[:surface, count:]
    still = [table - rigid @ (np.linalg.pinv(rigid) @ table) for table in across]
    # Mean absolute value of a centred normal variable is 0.798 standard deviations.
    spread = [0.798 * float(np.sqrt(np.square(table).sum(1)).mean()) for table in still]
    sides = component_sides(head, shapes.basis)
    covariance = (covariance + covariance * np.outer(sides, sides)) / 2
    return Agreement(np.where(sides > 0, mean, 0.0), covariance, (spread[0], spread[1]), spread[2])


def component_sides(head: AnnyHead, basis: Float[ndarray, "k v 3"]) -> Float[ndarray, "k"]:
    """1 for symmetric components, -1 for antisymmetric ones."""
    return np.where(np.abs(basis - mirrored(basis, head.mirror)).max((1, 2)) < 1e-3, 1.0, -1.0)


def coefficients(head: AnnyHead, shapes: ShapeComponents, aligned: Float[ndarray, "n v 3"], face: ndarray) -> Float[ndarray, "n k"]:
    """Coefficients of aligned heads, as offsets from their mean."""
    weights = np.full(len(head.vertices), REST_WEIGHT)
    weights[face] = 1.0
    weighted = (shapes.basis * weights[:, None]).reshape(len(shapes.basis), -1)
    lengths = (weighted * shapes.basis.reshape(weighted.shape)).sum(1)
    offsets = (aligned - aligned.mean(0)).reshape(len(aligned), -1)
    return offsets @ (weighted / lengths[:, None]).T.astype(np.float32)


def corrected(
    mean: Float[ndarray, "c"],
    covariance: Float[ndarray, "c c"],
    values: Float[ndarray, "n c"],
    scores: Float[ndarray, "n k"],
    agreement: Agreement,
) -> tuple[Float[ndarray, "c"], Float[ndarray, "c c"]]:
    """Mean and covariance of the controls, moved so that the components' scores get the scan statistics' mean and covariance.

    Args:
        mean, covariance: of the controls until now.
        values, scores: control values of sampled people, and the components' scores of their heads.
        agreement: where the scan statistics lie.
    """
    shift = np.where(np.arange(len(agreement.mean)) < MEAN_COMPONENTS, agreement.mean, 0.0)
    slopes = np.linalg.lstsq(scores, values - values.mean(0), rcond=None)[0].T
    moved = covariance + slopes @ (agreement.covariance - np.eye(len(agreement.mean))) @ slopes.T
    roots, axes = np.linalg.eigh((moved + moved.T) / 2)
    return mean + slopes @ shift, (axes * np.maximum(roots, 1e-8)) @ axes.T
