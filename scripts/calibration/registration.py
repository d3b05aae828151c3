"""Fits the source's controls to the scan statistics: first to their mean, then to each of many random people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from numpy import ndarray
from scipy.spatial.transform import Rotation

from calibration.scans import ScanStatistics
from calibration.surface import nearest_points, points_on, triangulate
from focus_backend.morphable.anny_source import LOCAL_LIMIT, AnnyHead

TEMPLATE_WEIGHT = 0.06  # of what no scanner saw, against 1 for the face
FAR, FAR_TEMPLATE = 40.0, 15.0  # mm; what is farther has no counterpart
TANGENT_WEIGHT, TANGENT_WEIGHT_PEOPLE = 0.15, 0.3  # along the surface, against 1 across it
# (rounds, ridge on the controls, weight of the detector's points, whether the surfaces are matched)
SCHEDULE = ((4, 0.3, 1.0, False), (6, 0.1, 0.5, True), (8, 0.03, 0.1, True))
PEOPLE, PEOPLE_RIDGE, PEOPLE_SWEEPS = 3000, 0.004, 80


@dataclass(frozen=True)
class Knobs:
    """Controls as one-way knobs (a two-way control is two), followed by 3 of rotation, 3 of shift and 1 of log size.

    Attributes:
        offsets: of each knob at 1, mm.
        owner, sign: control that a knob belongs to, and its direction.
        low, high: bounds of all parameters.
    """

    offsets: Float[ndarray, "k v 3"]
    owner: Int[ndarray, "k"]
    sign: Float[ndarray, "k"]
    low: Float[ndarray, "n"]
    high: Float[ndarray, "n"]


@dataclass(frozen=True)
class Matches:
    """Places on the fitted head and what they should meet.

    Attributes:
        triangles, weights: the places.
        targets: index into `ScanStatistics.points`.
        importance: of each.
    """

    triangles: Int[ndarray, "m"]
    weights: Float[ndarray, "m 3"]
    targets: Int[ndarray, "m"]
    importance: Float[ndarray, "m"]


def make_knobs(head: AnnyHead) -> Knobs:
    """One-way knobs of all controls."""
    controls = head.controls
    two_way = np.flatnonzero(np.abs(controls.negative).max((1, 2)) > 0)
    owner = np.concatenate([np.arange(len(controls.names)), two_way])
    sign = np.concatenate([np.ones(len(controls.names)), -np.ones(len(two_way))])
    offsets = np.concatenate([controls.positive, controls.negative[two_way]])
    limit = np.where(controls.low[owner] < 0, LOCAL_LIMIT, 1.0)
    pose = np.array([0.5, 0.5, 0.5, 50, 50, 50, 0.3])
    return Knobs(offsets, owner, sign, np.concatenate([np.zeros(len(owner)), -pose]), np.concatenate([limit, pose]))


def pose_head(head: AnnyHead, knobs: Knobs, values: Float[ndarray, "n"]) -> Float[ndarray, "v 3"]:
    """The head of parameters."""
    count = len(knobs.owner)
    shape = head.vertices + np.tensordot(values[:count], knobs.offsets, 1)
    return np.exp(values[-1]) * shape @ _rotation(values).T + values[count + 3 : count + 6]


def _rotation(values: Float[ndarray, "n"]) -> Float[ndarray, "3 3"]:
    return Rotation.from_rotvec(values[-7:-4]).as_matrix()


def _jacobian(
    knobs: Knobs,
    values: Float[ndarray, "n"],
    posed: Float[ndarray, "v 3"],
    faces: Int[ndarray, "f 3"],
    triangles: ndarray,
    weights: ndarray,
) -> tuple[Float[ndarray, "p 3 n"], Float[ndarray, "p 3"]]:
    """Derivative of places by the parameters, and the places."""
    places = points_on(posed, faces, triangles, weights)
    count = len(knobs.owner)
    result = np.zeros((len(places), 3, count + 7))
    moved = points_on(knobs.offsets, faces, triangles, weights) @ _rotation(values).T * np.exp(values[-1])
    result[:, :, :count] = moved.transpose(1, 2, 0)
    arm = places - values[-4:-1]
    for axis in range(3):
        unit = np.eye(3)[axis]
        result[:, :, count + axis] = np.cross(unit, arm)
        result[:, axis, count + 3 + axis] = 1
    result[:, :, -1] = arm
    return result, places


def fit_mean(
    head: AnnyHead, knobs: Knobs, scans: ScanStatistics, marks: tuple[ndarray, ndarray], goals: Float[ndarray, "m 3"]
) -> Float[ndarray, "n"]:
    """Parameters whose head lies best on the scans' mean.

    Args:
        marks: triangles and weights, on the head, of points that a detector found on both.
        goals: the same points on the scans' mean.
    """
    faces = triangulate(head.quads)
    values = np.zeros(len(knobs.low))
    for rounds, ridge, mark_weight, is_matched in SCHEDULE:
        for _ in range(rounds):
            posed = pose_head(head, knobs, values)
            share = np.sqrt(mark_weight / len(goals))
            change, places = _jacobian(knobs, values, posed, faces, *marks)
            rows, gaps = [share * change.reshape(-1, change.shape[-1])], [share * (goals - places).ravel()]
            if is_matched:
                for row, gap in _surface_rows(head, knobs, scans, values, posed, TANGENT_WEIGHT):
                    rows.append(row)
                    gaps.append(gap)
            table, gap = np.concatenate(rows), np.concatenate(gaps)
            penalty = np.where(np.arange(len(values)) < len(knobs.owner), ridge, 0.0)
            square = table.T @ table + np.diag(penalty)
            pull = (table.T @ gap - penalty * values)[None]
            values = values + solve_bounded(square, pull, (knobs.low - values)[None], (knobs.high - values)[None], 60)[0]
    return values


def match(head: AnnyHead, scans: ScanStatistics, posed: Float[ndarray, "v 3"], far: float, far_template: float) -> Matches:
    """Nearest place on the head's skin of each point of the scans."""
    faces = triangulate(head.quads)
    skin = np.flatnonzero(np.isin(faces[:, 0], head.skin))
    distance, triangles, weights = nearest_points(scans.vertices[scans.points], posed, faces[skin])
    keep = np.flatnonzero(distance < np.where(scans.is_scanned, far, far_template))
    importance = np.where(scans.is_scanned, 1.0, TEMPLATE_WEIGHT)[keep]
    return Matches(skin[triangles[keep]], weights[keep], keep, importance / scans.is_scanned.sum())


def _surface_rows(head: AnnyHead, knobs: Knobs, scans: ScanStatistics, values: ndarray, posed: ndarray, tangent: float) -> list:
    """Equations across and along the surface, with what they lack."""
    matches = match(head, scans, posed, FAR, FAR_TEMPLATE)
    change, places = _jacobian(knobs, values, posed, triangulate(head.quads), matches.triangles, matches.weights)
    vertices = scans.points[matches.targets]
    gap, normals, root = scans.vertices[vertices] - places, scans.normals[vertices], np.sqrt(matches.importance)
    return [
        (root[:, None] * np.einsum("pkn,pk->pn", change, normals), root * (gap * normals).sum(1)),
        (tangent * (root[:, None, None] * change).reshape(-1, change.shape[-1]), tangent * (root[:, None] * gap).ravel()),
    ]


def fit_people(head: AnnyHead, knobs: Knobs, scans: ScanStatistics, values: Float[ndarray, "n"], seed: int) -> Float[ndarray, "people c"]:
    """Control values, and log size, of random people of the scan statistics, fitted with fixed matches."""
    posed = pose_head(head, knobs, values)
    matches = match(head, scans, posed, 15.0, 5.0)
    change, places = _jacobian(knobs, values, posed, triangulate(head.quads), matches.triangles, matches.weights)
    vertices = scans.points[matches.targets]
    normals, root = scans.normals[vertices], np.sqrt(matches.importance)
    across = root[:, None] * np.einsum("pkn,pk->pn", change, normals)
    along = (TANGENT_WEIGHT_PEOPLE * root[:, None, None] * change).reshape(-1, change.shape[-1])
    penalty = np.where(np.arange(len(values)) < len(knobs.owner), PEOPLE_RIDGE, 0.0)

    def pull(gaps: Float[ndarray, "m p 3"]) -> Float[ndarray, "m n"]:
        flat = (TANGENT_WEIGHT_PEOPLE * root[:, None] * gaps).reshape(len(gaps), -1)
        return (gaps * normals).sum(-1) * root @ across + flat @ along

    alpha = np.clip(np.random.default_rng(seed).standard_normal((PEOPLE, len(scans.modes))), -3, 3)
    pulls = pull((scans.vertices[vertices] - places)[None]) + alpha @ pull(scans.modes[:, vertices].astype(np.float64)) - penalty * values
    square = across.T @ across + along.T @ along + np.diag(penalty)
    bounds = [np.broadcast_to(bound - values, pulls.shape) for bound in (knobs.low, knobs.high)]
    return signed_values(knobs, values + solve_bounded(square, pulls, *bounds, PEOPLE_SWEEPS))


def signed_values(knobs: Knobs, values: Float[ndarray, "m n"]) -> Float[ndarray, "m c"]:
    """Values of the two-way controls and log size, of one-way knobs."""
    count = len(knobs.owner)
    signed = np.zeros((len(values), int(knobs.owner.max()) + 2))
    np.add.at(signed.T, knobs.owner, (values[:, :count] * knobs.sign).T)
    signed[:, -1] = values[:, -1]
    return signed


@njit(cache=True)
def solve_bounded(square: ndarray, pulls: ndarray, low: ndarray, high: ndarray, sweeps: int) -> ndarray:
    """Minimisers of x' square x / 2 - pull' x within bounds, one a row, by coordinate descent."""
    result = np.zeros_like(pulls)
    for row in range(len(pulls)):
        left = pulls[row].copy()
        for _ in range(sweeps):
            for i in range(len(left)):
                new = min(max(result[row, i] + left[i] / square[i, i], low[row, i]), high[row, i])
                step = new - result[row, i]
                if step != 0:
                    left -= square[i] * step
                    result[row, i] = new
    return result
