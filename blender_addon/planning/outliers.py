# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the photo shows no face: on the mesh, and as a picture to lie over the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from ..shapes import Bool, Float, Float32, Int, Int32, UInt8
from .visibility import unseen_points

# Cosine between normal and view below which too few pixels show a place.
LEAST_FACING = 0.1
OVERLAY_COLOUR = (255, 0, 170)
OVERLAY_ALPHA = 0.6
# Half a side of the smallest neighbourhood, pixels: single ones are noise.
LEAST_REACH_PX = 1.0


@dataclass(frozen=True)
class SeenMesh:
    """A mesh as a photo shows it.

    Attributes:
        points: camera space, mm.
        pixels: of the points.
        quads: as in `HeadMesh`.
        is_face: which quads the masks tell of.
    """

    points: Float[ndarray, "vertices 3"]
    pixels: Float[ndarray, "vertices 2"]
    quads: Int32[ndarray, "quads 4"]
    is_face: Bool[ndarray, "quads"]


def outlier_weights(
    mesh: SeenMesh, face_mask: UInt8[ndarray, "rows columns"], outlier_mask: UInt8[ndarray, "rows columns"]
) -> tuple[Float32[ndarray, "vertices"], Float32[ndarray, "quads"]]:
    """How much of what the photo shows around each vertex and in each quad is no face, 0 to 1; 0 where it shows neither.

    The share of outliers in the pixels of both masks, in a square as large as the quads around the vertex, or the quad.

    Args:
        mesh: with the photo's expression.
        face_mask, outlier_mask: above 127 is on.
    """
    corners = np.where(mesh.quads < 0, mesh.quads[:, :1], mesh.quads)
    normals = _quad_normals(mesh.points, corners)
    areas = _pixel_areas(mesh.pixels, corners)
    centres = np.stack([_corner_mean(mesh.points[:, k], mesh.quads) for k in range(3)], axis=1)
    centre_pixels = np.stack([_corner_mean(mesh.pixels[:, k], mesh.quads) for k in range(2)], axis=1)
    vertex_normals, vertex_areas, in_face = _around_vertices(mesh, normals, areas)
    is_seen = _seen(
        np.concatenate([mesh.points, centres]),
        np.concatenate([mesh.pixels, centre_pixels]),
        np.concatenate([vertex_normals, normals]),
        mesh,
        corners[_facing(centres, normals) > 0],
    )
    # Twice a vertex's own share, so that neighbours overlap and the weights are smooth.
    reach = np.concatenate([np.sqrt(vertex_areas), np.sqrt(areas) / 2])
    shares = _shares(np.concatenate([mesh.pixels, centre_pixels]), reach, face_mask > 127, outlier_mask > 127)
    weights = np.where(is_seen & np.concatenate([in_face, mesh.is_face]), shares, 0).astype(np.float32)
    return weights[: len(mesh.points)], weights[len(mesh.points) :]


def overlay(outlier_mask: UInt8[ndarray, "rows columns"]) -> UInt8[ndarray, "rows columns 4"]:
    """A tint over the outliers with an opaque edge, straight alpha; clear elsewhere."""
    is_outlier = outlier_mask > 127
    is_edge = is_outlier & ~_eroded(is_outlier)
    picture = np.zeros((*outlier_mask.shape, 4), np.uint8)
    picture[is_outlier] = (*OVERLAY_COLOUR, round(255 * OVERLAY_ALPHA))
    picture[is_edge, 3] = 255
    return picture


def _quad_normals(points: Float[ndarray, "n 3"], corners: Int32[ndarray, "quads 4"]) -> Float[ndarray, "quads 3"]:
    """As long as the quad's area, outwards: half the cross product of the diagonals, which holds for triangles as well."""
    a, b, c, d = (points[corners[:, k]] for k in range(4))
    return np.cross(c - a, d - b) / 2


def _pixel_areas(pixels: Float[ndarray, "n 2"], corners: Int32[ndarray, "quads 4"]) -> Float[ndarray, "quads"]:
    a, b, c, d = (pixels[corners[:, k]] for k in range(4))
    across, down = c - a, d - b
    return np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]) / 2


def _corner_mean(values: Float[ndarray, "n"], quads: Int32[ndarray, "quads 4"]) -> Float[ndarray, "quads"]:
    is_corner = quads >= 0
    return np.where(is_corner, values[quads], 0).sum(axis=1) / is_corner.sum(axis=1)


def _around_vertices(
    mesh: SeenMesh, normals: Float[ndarray, "quads 3"], areas: Float[ndarray, "quads"]
) -> tuple[Float[ndarray, "vertices 3"], Float[ndarray, "vertices"], Bool[ndarray, "vertices"]]:
    """Sum of the normals, a quarter of the pixel areas, and whether any quad is of the face, around each vertex."""
    is_corner = mesh.quads >= 0

    def gathered(values: ndarray) -> ndarray:
        return np.bincount(mesh.quads[is_corner], np.repeat(values, 4)[is_corner.ravel()], len(mesh.points))

    summed = np.stack([gathered(normals[:, k]) for k in range(3)], axis=1)
    return summed, gathered(areas) / 4, gathered(mesh.is_face.astype(float)) > 0


def _facing(points: Float[ndarray, "n 3"], normals: Float[ndarray, "n 3"]) -> Float[ndarray, "n"]:
    """Cosine between normals and the way back to the camera."""
    lengths = np.linalg.norm(points, axis=1) * np.linalg.norm(normals, axis=1)
    return -(points * normals).sum(axis=1) / np.maximum(lengths, 1e-12)


def _seen(
    points: Float[ndarray, "n 3"], pixels: Float[ndarray, "n 2"], normals: Float[ndarray, "n 3"], mesh: SeenMesh, front: Int[ndarray, "f 4"]
) -> Bool[ndarray, "n"]:
    """Whether points face the camera and none of the quads in `front` hides them."""
    triangles = np.concatenate([front[:, :3], front[:, [0, 2, 3]]])
    is_hidden = unseen_points(pixels, -points[:, 2], mesh.pixels[triangles], -mesh.points[triangles, 2])
    return (_facing(points, normals) > LEAST_FACING) & ~is_hidden


def _shares(
    pixels: Float[ndarray, "n 2"],
    reach: Float[ndarray, "n"],
    is_face: Bool[ndarray, "rows columns"],
    is_outlier: Bool[ndarray, "rows columns"],
) -> Float[ndarray, "n"]:
    """Outliers among the pixels of both masks in squares of half side `reach` (pixels) around points; 0 where there are none."""
    size = np.array(is_face.shape[::-1])
    # Points behind the camera may lie anywhere.
    pixels = np.clip(pixels, -1e6, 1e6)
    reach = np.clip(reach, LEAST_REACH_PX, 1e6)[:, None]
    low = np.clip(np.round(pixels - reach), 0, size).astype(np.int64)
    high = np.clip(np.round(pixels + reach), 0, size).astype(np.int64)
    outliers = _box_counts(is_outlier, low, high)
    rendered = outliers + _box_counts(is_face & ~is_outlier, low, high)
    return outliers / np.maximum(rendered, 1)


def _box_counts(mask: Bool[ndarray, "rows columns"], low: Int[ndarray, "n 2"], high: Int[ndarray, "n 2"]) -> Int[ndarray, "n"]:
    """Pixels that are on in the boxes from `low` to before `high` (x, y), by a summed-area table of where any is on."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(len(low), np.int64)
    first = np.array([columns[0], rows[0]])
    size = np.array([columns[-1], rows[-1]]) + 1 - first
    table = np.zeros((size[1] + 1, size[0] + 1), np.int32)
    inner = mask[first[1] : first[1] + size[1], first[0] : first[0] + size[0]]
    np.cumsum(np.cumsum(inner, axis=0, dtype=np.int32), axis=1, out=table[1:, 1:])
    (x0, y0), (x1, y1) = np.clip(low - first, 0, size).T, np.clip(high - first, 0, size).T
    return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]


def _eroded(mask: Bool[ndarray, "rows columns"]) -> Bool[ndarray, "rows columns"]:
    """Without the pixels that have a neighbour, beside or above, that is off; the photo's edge is no such."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner
