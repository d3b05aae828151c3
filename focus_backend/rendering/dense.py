"""What every pixel sees, with shapes that do not depend on the picture: the way on CUDA, where such shapes make the host wait.

Pixels that see nothing get some triangle, and where its numbers could do harm (a corner behind the camera, no area) harmless ones instead.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def spread_triangles(ids: Int[Tensor, "b h w"], faces: int) -> Int[Tensor, "b n"]:
    """The triangle of each pixel; of those that see none, pixels beside each other get different ones.

    On CUDA, sums into one place wait for each other, and the zero gradients of the pixels that see nothing would all go to one triangle.
    """
    flat = ids.flatten(1)
    return torch.where(flat >= 0, flat, torch.arange(flat.shape[1], device=ids.device) % faces)


def gather_corners(values: Float[Tensor, "b v c"], triangles: Int[Tensor, "f 3"], triangle: Int[Tensor, "b n"]) -> Float[Tensor, "b n 3 c"]:
    """Vertex values at the corners of each pixel's triangle."""
    vertex = triangles.long().index_select(0, triangle.flatten()).view(len(triangle), -1)
    vertex = vertex + values.shape[1] * torch.arange(len(values), device=values.device)[:, None]
    return values.flatten(0, 1).index_select(0, vertex.flatten()).view(*triangle.shape, 3, values.shape[2])


def corners_from_pixels(corners: Float[Tensor, "b n 3 3"], ids: Int[Tensor, "b h w"]) -> Float[Tensor, "b n 3 3"]:
    """Corners (x px, y px, depth) as seen from each pixel's centre; a small triangle around the centre where nothing is seen."""
    height, width = ids.shape[1:]
    place = torch.arange(height * width, device=ids.device)
    zero = torch.zeros_like(place, dtype=corners.dtype)
    centre = torch.stack([place % width + 0.5, torch.div(place, width, rounding_mode="floor") + 0.5, zero], dim=-1).to(corners.dtype)
    x = torch.arange(-1, 2, device=ids.device, dtype=corners.dtype)
    # Its corners' mean is the origin, so that all three count alike.
    around = torch.stack([x, 2 - 3 * x.abs(), torch.ones_like(x)], dim=-1)
    return torch.where((ids >= 0).flatten(1)[..., None, None], corners - centre[:, None], around)


def barycentric_of_origin(corners: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """Perspective-correct barycentric coordinates of the origin on triangles with corners (x px, y px, depth)."""
    x, y, depth = corners.unbind(-1)
    weights = x.roll(-1, -1) * y.roll(-2, -1) - y.roll(-1, -1) * x.roll(-2, -1)
    scaled = weights / depth
    return scaled / scaled.sum(-1, keepdim=True)


def keep_seen(values: Float[Tensor, "b n *c"], ids: Int[Tensor, "b h w"]) -> Float[Tensor, "b h w *c"]:
    """Values of the pixels as a map, zero where nothing is seen."""
    values = values.unflatten(1, ids.shape[1:])
    is_seen = (ids >= 0).view(*ids.shape, *[1] * (values.ndim - 3))
    return torch.where(is_seen, values, 0.0)
