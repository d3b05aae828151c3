"""Points on a triangle mesh: what a pixel shows, and what lies nearest to a point in space."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.rendering.dense import barycentric_of_origin


def hit_points(
    pixels: Float[Tensor, "points 2"],
    screen: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "faces 3"],
    ids: Int[Tensor, "height width"],
) -> tuple[Int[Tensor, "points"], Float[Tensor, "points 3"]]:
    """The triangle that each pixel position shows, -1 beside the mesh, and barycentric coordinates on it.

    Args:
        pixels: positions, pixel centres at +0.5.
        screen: (x px, y px, depth) of the vertices.
        triangles: vertex indices.
        ids: triangle seen at each pixel, -1 for none.
    """
    height, width = ids.shape
    column, row = pixels.floor().long().unbind(-1)
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    hit = torch.where(is_inside, ids[row.clamp(0, height - 1), column.clamp(0, width - 1)], -1)
    corners = screen[triangles[hit.clamp(min=0)]]
    from_pixel = torch.cat([corners[..., :2] - pixels.to(screen.dtype)[:, None], corners[..., 2:]], -1)
    barycentric = barycentric_of_origin(from_pixel)
    # The pixel's centre is on the triangle, the position itself may lie a fraction of a pixel beside it.
    barycentric = barycentric.clamp(min=0)
    return hit, barycentric / barycentric.sum(-1, keepdim=True)


def nearest_points(
    points: Float[Tensor, "points 3"], corners: Float[Tensor, "faces 3 3"]
) -> tuple[Int[Tensor, "points"], Float[Tensor, "points 3"]]:
    """The nearest triangle of each point in space and the barycentric coordinates of the nearest place on it."""
    indices, weights = [], []
    # A few points at a time: every point meets every triangle.
    for some in points.split(32):
        inside = _plane_weights(some, corners)
        candidates = [inside, *(_edge_weights(some, corners, edge) for edge in range(3))]
        distances = torch.stack([_distance(some, corners, candidate) for candidate in candidates])
        distances[0] = torch.where((inside >= 0).all(-1), distances[0], torch.inf)
        kind, index = divmod_index(distances.transpose(0, 1).flatten(1).argmin(1), len(corners))
        every = torch.arange(len(some))
        weights.append(torch.stack(candidates)[kind, every, index])
        indices.append(index)
    return torch.cat(indices), torch.cat(weights)


def divmod_index(flat: Int[Tensor, "points"], columns: int) -> tuple[Int[Tensor, "points"], Int[Tensor, "points"]]:
    """Row and column of flat indices."""
    return flat // columns, flat % columns


def _distance(
    points: Float[Tensor, "points 3"], corners: Float[Tensor, "faces 3 3"], weights: Float[Tensor, "points faces 3"]
) -> Float[Tensor, "points faces"]:
    return (torch.einsum("pfk,fkc->pfc", weights, corners) - points[:, None]).norm(dim=-1)


def _plane_weights(points: Float[Tensor, "points 3"], corners: Float[Tensor, "faces 3 3"]) -> Float[Tensor, "points faces 3"]:
    """Barycentric coordinates of the points dropped onto each triangle's plane."""
    origin = corners[:, 0]
    edges = corners[:, 1:] - origin[:, None]
    gram = edges @ edges.transpose(1, 2)
    # Triangles without area get no place inside; their edges stand for them.
    determinant = (gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2).clamp(min=1e-12)
    along = torch.einsum("fec,pfc->pfe", edges, points[:, None] - origin)
    second = (gram[:, 1, 1] * along[..., 0] - gram[:, 0, 1] * along[..., 1]) / determinant
    third = (gram[:, 0, 0] * along[..., 1] - gram[:, 0, 1] * along[..., 0]) / determinant
    return torch.stack([1 - second - third, second, third], -1)


def _edge_weights(points: Float[Tensor, "points 3"], corners: Float[Tensor, "faces 3 3"], edge: int) -> Float[Tensor, "points faces 3"]:
    """Barycentric coordinates of the nearest places on the edge that starts at corner `edge`."""
    start, end = corners[:, edge], corners[:, (edge + 1) % 3]
    direction = end - start
    length = (direction * direction).sum(-1).clamp(min=1e-12)
    share = (((points[:, None] - start) * direction).sum(-1) / length).clamp(0, 1)
    weights = [1 - share, share, torch.zeros_like(share)]
    return torch.stack([weights[(corner - edge) % 3] for corner in range(3)], -1)
