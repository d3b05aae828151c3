"""What baking a texture needs of a face model's atlas: which surface point each texel shows, and which texel is its mirror image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering.rasterize import rasterize
from focus_backend.rendering.renderer import locate

# A quad whose mirror image lies farther than this from every quad, in mm, has no counterpart.
MIRROR_TOLERANCE = 3.0
# The photo fades out over this part of the atlas inside the outer border of the face region.
BORDER_RAMP = 0.02
# Beyond the face region the colour fades to the global one over this part of the atlas.
GLOBAL_RAMP = 0.2
# Texels with at least this much weight of the global colour lie on islands of their own or far from the face.
ISLAND_PRIOR, FAR_PRIOR = 0.15, 0.25


@dataclass(frozen=True)
class TextureAtlas:
    """The atlas of one face model at one size; rows from the top.

    Attributes:
        size: rows and columns.
        is_main: triangles of the largest island, the skin; the others are eyes and the inside of the mouth.
        triangles: index into the model's triangles of each texel, -1 outside every island.
        barycentric: weights of that triangle's corners.
        face_weight: how far each texel may take the photo's colour: 1 on the face, falling to 0 at its outer border.
        prior: how far a texel that was not seen takes the global colour and not that of its surroundings.
        mirror: (column, row) of the texel of the mirrored surface point, fit for `cv2.remap`.
        has_mirror: texels for which `mirror` is known.
    """

    size: int
    is_main: Bool[ndarray, "faces"]
    triangles: Int[ndarray, "size size"]
    barycentric: Float[ndarray, "size size 3"]
    face_weight: Float[ndarray, "size size"]
    prior: Float[ndarray, "size size"]
    mirror: Float[ndarray, "size size 2"]
    has_mirror: Bool[ndarray, "size size"]

    @classmethod
    def build(cls, model: FaceModel, size: int) -> TextureAtlas:
        """Rasterize the model's texture coordinates."""
        uv = model.uv[model.triangle_uv].detach().cpu().double().flatten(0, 1)
        points = torch.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, torch.ones(len(uv), dtype=torch.float64)], 1)[None]
        corners = torch.arange(len(uv)).view(-1, 3)
        ids = rasterize(points, corners, size, size)
        barycentric = locate(points, corners, ids)[0].float().numpy()
        triangles = ids[0].int().numpy()
        in_face = model.triangle_in_face.cpu().numpy()
        is_face = (triangles >= 0) & in_face[triangles]
        mirror, has_mirror = _mirror_map(model, triangles, barycentric, size)
        labels = _islands(model)
        is_main = labels == np.bincount(labels).argmax()
        prior = _prior((triangles >= 0) & is_main[triangles], triangles, is_face, size)
        return cls(size, is_main, triangles, barycentric, _face_weight(is_face, size), prior, mirror, has_mirror)

    @classmethod
    def of(cls, model: FaceModel, size: int) -> TextureAtlas:
        """The atlas of a model; built once a model and size, kept with the model like its own cached properties."""
        cached = vars(model).setdefault("_texture_atlas", {})
        if size not in cached:
            cached[size] = cls.build(model, size)
        return cached[size]


def _face_weight(is_face: Bool[ndarray, "size size"], size: int) -> Float[ndarray, "size size"]:
    """1 on the face, with a ramp at its outer border only: eyes, nostrils and lips have to stay sharp."""
    contours, _ = cv2.findContours(is_face.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(is_face.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, (1,), cv2.FILLED)
    # A frame of background, so that the atlas's edge counts as a border.
    depth = cv2.distanceTransform(np.pad(filled, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.where(is_face, smoothstep(depth / max(1.0, BORDER_RAMP * size)), 0).astype(np.float32)


def _prior(
    on_main: Bool[ndarray, "size size"], triangles: Int[ndarray, "size size"], is_face: Bool[ndarray, "size size"], size: int
) -> Float[ndarray, "size size"]:
    """Weight of the global colour: rises with distance from the face; eyes and other small islands do not take their neighbours' colour."""
    distance = cv2.distanceTransform((~(is_face & on_main)).astype(np.uint8), cv2.DIST_L2, 5)
    far = FAR_PRIOR * smoothstep(distance / (GLOBAL_RAMP * size))
    return np.where((triangles >= 0) & ~on_main, ISLAND_PRIOR, far).astype(np.float32)


def _islands(model: FaceModel) -> Int[ndarray, "faces"]:
    """Connected component of the atlas that each triangle belongs to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    corners = model.triangle_uv.cpu().numpy()
    ends = np.roll(corners, -1, axis=1)
    graph = coo_matrix((np.ones(corners.size), (corners.ravel(), ends.ravel())), shape=(len(model.uv),) * 2)
    return connected_components(graph, directed=False)[1][corners[:, 0]]


def _mirror_map(
    model: FaceModel, triangles: Int[ndarray, "size size"], barycentric: Float[ndarray, "size size 3"], size: int
) -> tuple[Float[ndarray, "size size 2"], Bool[ndarray, "size size"]]:
    """Where the mirrored surface point lies in the atlas, by the geometry of the mean face, so that the atlas need not be symmetric."""
    corner_uv, known = _mirrored_corners(model)
    has_mirror = (triangles >= 0) & known[triangles]
    # Component by component: numpy takes several times as long over short last axes.
    shown, weights = triangles[has_mirror], barycentric[has_mirror]
    # A texel without a mirror image stands for itself.
    mirror = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float32)
    for axis, (scale, offset) in enumerate(np.array([[size, -0.5], [-size, size - 0.5]], np.float32)):
        u = corner_uv[..., axis].astype(np.float32)
        places = weights[:, 0] * u[shown, 0] + weights[:, 1] * u[shown, 1] + weights[:, 2] * u[shown, 2]
        mirror[..., axis][has_mirror] = places * scale + offset
    return mirror, has_mirror


def _mirrored_corners(model: FaceModel) -> tuple[Float[ndarray, "faces 3 2"], Bool[ndarray, "faces"]]:
    """Texture coordinates of the mirror image of each triangle corner, and the triangles that have a mirror image."""
    vertices, quads = model.mean_shape.double().cpu().numpy(), model.quads.cpu().numpy()
    quad_uv, uv = model.quad_uv.cpu().numpy(), model.uv.double().cpu().numpy()
    is_corner = (quads >= 0)[..., None]
    corners = vertices[quads]
    centres = (corners * is_corner).sum(1) / is_corner.sum(1)
    flip = np.array([-1.0, 1.0, 1.0])
    distance, partner = cKDTree(centres).query(centres * flip)
    # Of the partner quad, the corner nearest to the mirrored corner; the padding of triangles is never nearest.
    offsets = np.where(is_corner[partner][:, None], corners[partner][:, None] - (corners * flip)[:, :, None], np.inf)
    nearest = np.square(offsets).sum(-1).argmin(-1)
    mirrored = uv[np.take_along_axis(quad_uv[partner], nearest, 1)]
    second = np.nonzero(quads[:, 3] >= 0)[0]
    faces = np.concatenate([mirrored[:, :3], mirrored[second][:, [0, 2, 3]]])
    known = distance <= MIRROR_TOLERANCE
    return faces, np.concatenate([known, known[second]])


@dataclass(frozen=True)
class AlbedoGrid:
    """How the model's own albedo texture is filled where it stores nothing.

    Attributes:
        nearest: (row, column) of the nearest stored texel.
    """

    nearest: Int[ndarray, "2 rows rows"]

    @classmethod
    def of(cls, model: FaceModel) -> AlbedoGrid:
        """The grid of a model; kept with the model."""
        cached = vars(model).setdefault("_albedo_grid", [])
        if not cached:
            empty = np.ones(model.texture_size**2, bool)
            empty[model.texels.cpu().numpy()] = False
            indices = distance_transform_edt(empty.reshape(model.texture_size, -1), return_distances=False, return_indices=True)
            cached.append(cls(indices))
        return cached[0]


def smoothstep(value: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)
