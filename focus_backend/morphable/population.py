"""Sampled people: calibrated control values drawn, impossible heads rejected, the rest aligned and reduced to principal components."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator
from safetensors import safe_open

from focus_backend.errors import ModelError
from focus_backend.morphable.anny_source import AnnyHead, mirrored, mirrored_name
from focus_backend.morphable.head_checks import is_plausible

CALIBRATION_FILE = Path(__file__).parent / "data" / "anny_population.safetensors"
REST_WEIGHT = 0.15  # of squared distances outside the face, against 1 inside
ALIGNMENT_ROUNDS = 3
DRAW = 500  # people decoded at once
MOST_DRAWS_A_PERSON = 3  # before giving up: most of what is drawn has to be plausible
OVERSAMPLING, POWER_ITERATIONS = 20, 4  # of the randomised singular value decomposition


@dataclass(frozen=True)
class Calibration:
    """Committed numbers about a population of heads, and the places on the mesh that were found together with them.

    Attributes:
        control_names: controls in the order of the numbers below, which end with the logarithm of size.
        mean: mean value of each control.
        factor: factor @ factor.T is the covariance of the controls.
        face_vertices: vertices of the face region, by which heads are aligned and which count fully.
        face_quads: polygons of the face region.
        landmark_triangles, landmark_barycentric: the 68 points on the triangles of `FaceModel.triangles`.
        notes: sources and figures of the calibration.
    """

    control_names: tuple[str, ...]
    mean: Float[ndarray, "values"]
    factor: Float[ndarray, "values factors"]
    face_vertices: Int[ndarray, "face"]
    face_quads: Int[ndarray, "face_quads"]
    landmark_triangles: Int[ndarray, "68"]
    landmark_barycentric: Float[ndarray, "68 3"]
    notes: dict[str, str]


@dataclass(frozen=True)
class ShapeComponents:
    """A linear model of aligned heads, mm.

    Attributes:
        mean: symmetric mean head, origin between the eyeballs.
        basis: offset of one standard deviation of each component, by falling variance; each is symmetric or antisymmetric.
        explained: share of the weighted variance that the components hold.
        drawn, accepted: people sampled and people kept.
    """

    mean: Float[ndarray, "vertices 3"]
    basis: Float[ndarray, "components vertices 3"]
    explained: float
    drawn: int
    accepted: int


def read_calibration(path: Path = CALIBRATION_FILE) -> Calibration:
    """The committed calibration.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safe_open(str(path), framework="numpy") as stored:
            notes = json.loads(stored.metadata()["calibration"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, it is no dictionary
        names = tuple(notes.pop("control_names"))
        return Calibration(
            control_names=names,
            mean=tensors["mean"].astype(np.float64),
            factor=tensors["factor"].astype(np.float64),
            face_vertices=tensors["face_vertices"].astype(np.int64),
            face_quads=tensors["face_quads"].astype(np.int64),
            landmark_triangles=tensors["landmark_triangles"].astype(np.int64),
            landmark_barycentric=tensors["landmark_barycentric"].astype(np.float64),
            notes=notes,
        )
    except Exception as error:
        raise ModelError(f"the calibration {path} cannot be read ({error})", "reinstall the package") from error


def sample_shapes(head: AnnyHead, calibration: Calibration, count: int, components: int, random: Generator) -> ShapeComponents:
    """Principal components of `count` plausible people and of their mirror images.

    Raises:
        ModelError: too few of the drawn people are plausible.
    """
    people, drawn = sample_people(head, calibration, count, random)
    aligned, mean = align(people, head.vertices, calibration.face_vertices, head.mirror)
    basis, explained = principal_components(aligned - mean.astype(np.float32), head, calibration.face_vertices, components, random)
    origin = (mean[head.left_eye].mean(0) + mean[head.right_eye].mean(0)) / 2
    return ShapeComponents(mean - origin, basis, explained, drawn, count)


def sample_people(
    head: AnnyHead, calibration: Calibration, count: int, random: Generator
) -> tuple[Float[ndarray, "count vertices 3"], int]:
    """Heads of `count` plausible people, mm, and how many were drawn for them."""
    head = with_controls(head, calibration.control_names)
    kept: list[ndarray] = []
    found = drawn = 0
    while found < count and drawn < MOST_DRAWS_A_PERSON * count + DRAW:
        values = draw_controls(head, calibration, DRAW, random)
        people = decode_controls(head, values)
        landmarks = landmarks_on(head, calibration, people)
        people = people[is_plausible(head, people, landmarks, calibration.face_vertices)]
        kept.append(people)
        found, drawn = found + len(people), drawn + DRAW
    if found < count:
        raise ModelError(f"only {found} of {drawn} sampled heads are plausible", "the calibration does not fit the installed anny version")
    return np.concatenate(kept)[:count], drawn


def landmarks_on(head: AnnyHead, calibration: Calibration, people: Float[ndarray, "*batch vertices 3"]) -> Float[ndarray, "*batch 68 3"]:
    """The 68 points of heads."""
    triangles = np.concatenate([head.quads[:, :3], head.quads[:, [0, 2, 3]]])[calibration.landmark_triangles]
    return sum(people[..., triangles[:, k], :] * calibration.landmark_barycentric[:, k, None] for k in range(3))


def with_controls(head: AnnyHead, names: tuple[str, ...]) -> AnnyHead:
    """The head with its controls in the order of `names`.

    Raises:
        ModelError: the head lacks one.
    """
    place = {name: index for index, name in enumerate(head.controls.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ModelError(f"the anny head has no control {missing[0]!r}", "install the version that constraints.txt names")
    order = np.array([place[name] for name in names])
    old = head.controls
    controls = dataclasses.replace(
        old,
        names=names,
        positive=old.positive[order],
        negative=old.negative[order],
        low=old.low[order],
        high=old.high[order],
        mirror=np.array([names.index(mirrored_name(name)) for name in names]),
        mirror_sign=old.mirror_sign[order],
    )
    return dataclasses.replace(head, controls=controls)


def draw_controls(head: AnnyHead, calibration: Calibration, count: int, random: Generator) -> Float[ndarray, "count values"]:
    """Control values of random people, within the controls' ranges; the last is the logarithm of size."""
    normal = random.standard_normal((count, calibration.factor.shape[1]))
    values = calibration.mean + normal @ calibration.factor.T
    values[:, :-1] = np.clip(values[:, :-1], head.controls.low, head.controls.high)
    return values


def decode_controls(head: AnnyHead, values: Float[ndarray, "count values"]) -> Float[ndarray, "count vertices 3"]:
    """Heads of control values, mm, single precision; the last value is the logarithm of size."""
    knobs = values[:, :-1].astype(np.float32)
    positive, negative = (
        offsets.reshape(len(offsets), -1).astype(np.float32) for offsets in (head.controls.positive, head.controls.negative)
    )
    offset = np.maximum(knobs, 0) @ positive + np.maximum(-knobs, 0) @ negative
    people = head.vertices.astype(np.float32) + offset.reshape(len(values), -1, 3)
    return people * np.exp(values[:, -1]).astype(np.float32)[:, None, None]


def align(
    people: Float[ndarray, "people vertices 3"],
    reference: Float[ndarray, "vertices 3"],
    face: Int[ndarray, "face"],
    mirror: Int[ndarray, "vertices"],
) -> tuple[Float[ndarray, "people vertices 3"], Float[ndarray, "vertices 3"]]:
    """The heads turned and moved (never scaled) onto their common mean by the face, and that mean, made symmetric."""
    mean = reference
    for _ in range(ALIGNMENT_ROUNDS):
        people = _rigidly_onto(people, mean, face)
        mean = people.mean(0, dtype=np.float64)
        mean = (mean + mirrored(mean, mirror)) / 2
    return people, mean


def _rigidly_onto(
    people: Float[ndarray, "people vertices 3"], target: Float[ndarray, "vertices 3"], face: Int[ndarray, "face"]
) -> Float[ndarray, "people vertices 3"]:
    """Each head rotated and moved to lie best on the target (Kabsch), by the face's vertices."""
    centres = people[:, face].mean(1, dtype=np.float64)
    goal = target[face].mean(0)
    spans = np.einsum("nvi,vj->nij", people[:, face] - centres[:, None], target[face] - goal, optimize=True)
    left, _, right = np.linalg.svd(spans)
    left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
    turned = (people - centres[:, None].astype(np.float32)) @ (left @ right).astype(np.float32)
    return turned + goal.astype(np.float32)


def principal_components(
    offsets: Float[ndarray, "people vertices 3"], head: AnnyHead, face: Int[ndarray, "face"], count: int, random: Generator
) -> tuple[Float[ndarray, "count vertices 3"], float]:
    """Components of the offsets and of their mirror images, one standard deviation each, and the share of variance they hold.

    With the mirror images the covariance falls apart into a symmetric and an antisymmetric part, so each is solved alone.
    """
    weights = np.full(offsets.shape[1], REST_WEIGHT)
    weights[face] = 1.0
    # One side says all about a symmetric or antisymmetric offset; the middle counts once.
    middle = head.mirror == np.arange(len(weights))
    side = np.flatnonzero((head.vertices[:, 0] > 0) | middle)
    roots = np.sqrt(weights[side] * np.where(middle[side], 1.0, 2.0)).astype(np.float32)[:, None]
    total, found = 0.0, []
    for sign in (1.0, -1.0):
        table = offsets[:, side] + np.float32(sign) * offsets[:, head.mirror[side]] * np.array([-1, 1, 1], dtype=np.float32)
        table = (table * (roots / 2)).astype(np.float32).reshape(len(offsets), -1)
        total += float(np.square(table, dtype=np.float64).sum()) / len(table)
        lengths, vectors = _leading(table, count, random)
        found.append((lengths, _both_sides(vectors.reshape(count, -1, 3) * lengths[:, None, None] / roots, side, head, sign)))
    deviations = np.concatenate([lengths for lengths, _ in found])
    order = np.argsort(-deviations, kind="stable")[:count]
    basis = np.concatenate([halves for _, halves in found])[order]
    return basis * _signs(basis, head)[:, None, None], float(np.square(deviations[order]).sum() / total)


def _both_sides(
    half: Float[ndarray, "k side 3"], side: Int[ndarray, "side"], head: AnnyHead, sign: float
) -> Float[ndarray, "k vertices 3"]:
    """Offsets of one side (and the middle) completed to the whole head."""
    whole = np.zeros((len(half), len(head.vertices), 3))
    whole[:, head.mirror[side]] = half * sign * np.array([-1, 1, 1])
    whole[:, side] = half
    return whole


def _leading(table: Float[ndarray, "n d"], count: int, random: Generator) -> tuple[Float[ndarray, "k"], Float[ndarray, "k d"]]:
    """Standard deviations and directions of the leading components (randomised, Halko et al. 2011)."""
    sketch = table @ random.standard_normal((table.shape[1], count + OVERSAMPLING)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        sketch = table @ (table.T @ np.linalg.qr(sketch)[0])
    small = (np.linalg.qr(sketch)[0].T @ table).astype(np.float64)
    values, vectors = np.linalg.eigh(small @ small.T)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    lengths = np.sqrt(np.maximum(values, 1e-12))
    return lengths / np.sqrt(len(table)), (vectors.T @ small) / lengths[:, None]


def _signs(basis: Float[ndarray, "components vertices 3"], head: AnnyHead) -> Float[ndarray, "components"]:
    """+1 or -1 so that the largest entry on the subject's left is positive: a convention, for the same bytes each time."""
    left = basis[:, head.vertices[:, 0] > 1.0].reshape(len(basis), -1)
    return np.sign(np.take_along_axis(left, np.abs(left).argmax(1)[:, None], 1)[:, 0])
