"""Plain geometry of triangle meshes in numpy: normals, nearest points, triangles of padded quads."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree

CANDIDATES = 14  # triangles by nearest centre that are tried for each point


def triangulate(quads: Int[ndarray, "quads 4"]) -> Int[ndarray, "faces 3"]:
    """Triangles of padded quads, in the order of `FaceModel.triangles`."""
    return np.concatenate([quads[:, :3], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])


def vertex_normals(vertices: Float[ndarray, "v 3"], triangles: Int[ndarray, "f 3"]) -> Float[ndarray, "v 3"]:
    """Unit normals, weighted by area; zero at a vertex of no triangle."""
    corners = vertices[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def points_on(
    vertices: Float[ndarray, "*batch v 3"], triangles: Int[ndarray, "f 3"], index: Int[ndarray, "p"], weights: Float[ndarray, "p 3"]
) -> Float[ndarray, "*batch p 3"]:
    """Positions (or offsets) of surface points."""
    corners = triangles[index]
    return sum(vertices[..., corners[:, k], :] * weights[:, k, None] for k in range(3))


def nearest_points(
    points: Float[ndarray, "p 3"], vertices: Float[ndarray, "v 3"], triangles: Int[ndarray, "f 3"]
) -> tuple[Float[ndarray, "p"], Int[ndarray, "p"], Float[ndarray, "p 3"]]:
    """Distance to a mesh, and triangle and barycentric weights of the nearest place on it."""
    corners = vertices[triangles]
    _, tried = cKDTree(corners.mean(1)).query(points, k=CANDIDATES)
    options = _nearest_weights(points[:, None], corners[tried])
    places = (corners[tried] * options[..., None]).sum(2)
    distance = np.linalg.norm(places - points[:, None], axis=-1)
    best = distance.argmin(1)
    rows = np.arange(len(points))
    return distance[rows, best], tried[rows, best], options[rows, best]


def _nearest_weights(points: Float[ndarray, "p 1 3"], corners: Float[ndarray, "p k 3 3"]) -> Float[ndarray, "p k 3"]:
    """Barycentric weights of the nearest place on each triangle: inside, or on the best edge."""
    first, second, third = (corners[..., k, :] for k in range(3))
    ab, ac, ap = second - first, third - first, points - first
    d00, d01, d11, d20, d21 = ((u * v).sum(-1) for u, v in ((ab, ab), (ab, ac), (ac, ac), (ap, ab), (ap, ac)))
    scale = np.maximum(d00 * d11 - d01 * d01, 1e-12)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    options = [np.stack([1 - v - w, v, w], -1)]
    for k in range(3):
        start, end = corners[..., k, :], corners[..., (k + 1) % 3, :]
        along = end - start
        share = np.clip(((points - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0, 1)
        weights = np.zeros((*share.shape, 3))
        weights[..., k], weights[..., (k + 1) % 3] = 1 - share, share
        options.append(weights)
    stacked = np.stack(options)
    gap = np.linalg.norm((corners * stacked[..., None]).sum(3) - points, axis=-1)
    gap[0] = np.where((stacked[0] >= 0).all(-1), gap[0], np.inf)
    return np.take_along_axis(stacked, gap.argmin(0)[None, ..., None], 0)[0]
