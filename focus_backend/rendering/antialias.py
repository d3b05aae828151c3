"""Antialiasing of silhouettes, by which edges get gradients.

The z-buffer decides each pixel at its centre, so an image made from it does not change when an edge moves a little: it has no
gradient at silhouettes. Here each visible silhouette edge (one side faces the camera, the other does not or is missing; and the
border of the shown region) is intersected with the lines through the pixel centres: steep edges with the rows, level edges with
the columns. Where an edge crosses between two neighbouring pixels at distance t (0..1) from the inner one, it covers the part
t - 1/2 of the outer pixel, or leaves the part 1/2 - t of the inner pixel uncovered; that part of the pixel is blended with its
neighbour's colour. t is a smooth function of the edge's two vertices, so the image has the derivative of the coverage: exact for
a straight edge that passes through the pixel's row (column), first order elsewhere. Which edges are visible is not
differentiated, and a part thinner than a pixel that meets no pixel centre has no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from focus_backend.rendering.antialias_torch import edge_crossings_torch
from focus_backend.rendering.execution import Execution, is_compiled
from focus_backend.rendering.topology import MeshTopology

# Relative difference in depth up to which an edge and a pixel beside it count as one surface (12 mm at 600 mm).
DEPTH_TOLERANCE = 0.02
# First guess of how many crossings an image has, per pixel of its height and width.
CROSSINGS_PER_BORDER_PIXEL = 16


def antialias(
    image: Float[Tensor, "b h w c"],
    points: Float[Tensor, "b v 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
    execution: Execution = "auto",
) -> Float[Tensor, "b h w c"]:
    """The image with silhouettes blended by coverage; differentiable in `image` and in the x and y of `points`.

    Args:
        image: colours at pixel centres, background included.
        points: (x px, y px, depth > 0) of the vertices.
        ids: nearest front-facing triangle of the whole mesh at each pixel, of the region or not.
        topology: of the mesh.
        execution: compiled, or dense torch.
    """
    crossings = edge_crossings(points.detach(), ids, topology, execution)
    if is_compiled(image, execution):
        return _BlendCrossings.apply(image, points, topology.edges, crossings)
    return blend_crossings_torch(image, points, crossings, topology)


def edge_crossings(
    points: Float[Tensor, "b v 3"], ids: Int[Tensor, "b h w"], topology: MeshTopology, execution: Execution = "auto"
) -> Int[Tensor, "n 7"]:
    """Where visible silhouette edges pass between pixel centres: (image, edge, axis, row, column inside, row, column outside).

    The dense way fills up with rows of -1 to a length that does not depend on the picture.
    """
    if not is_compiled(points, execution):
        return edge_crossings_torch(points, ids, topology, DEPTH_TOLERANCE)
    from focus_backend.rendering.kernels_antialias import find_edge_crossings

    batch, height, width = ids.shape
    slots = torch.full((2 * height * width,), -1, dtype=torch.int32).numpy()
    arrays = (points.contiguous(), topology.triangles, topology.edges, topology.edge_triangles, topology.in_region, ids.contiguous())
    capacity = batch * CROSSINGS_PER_BORDER_PIXEL * (height + width)
    while True:
        found = torch.empty(capacity, 7, dtype=torch.int64)
        count = find_edge_crossings(*(value.numpy() for value in arrays), DEPTH_TOLERANCE, slots, found.numpy())
        if count >= 0:
            return found[:count]
        capacity = -count


def blend_crossings_torch(
    image: Float[Tensor, "b h w c"], points: Float[Tensor, "b v 3"], crossings: Int[Tensor, "n 7"], topology: MeshTopology
) -> Float[Tensor, "b h w c"]:
    """Blend each crossing's pixel pair by how far the edge lies from the pixels' common border; rows of -1 change nothing."""
    if len(crossings) == 0:
        return image
    height, width, channels = image.shape[1:]
    is_real = crossings[:, 0] >= 0
    which, edge, axis, row_in, column_in, row_out, column_out = crossings.clamp(min=0).unbind(1)
    # Rows that mean nothing read and write places far from each other: on CUDA, sums into one place wait for each other.
    spread = torch.arange(len(crossings), device=crossings.device)
    edge = torch.where(is_real, edge, spread % len(topology.edges))
    vertices = (which[:, None] * points.shape[1] + topology.edges.long()[edge]).flatten()
    ends = points[..., :2].flatten(0, 1).index_select(0, vertices).view(-1, 2, 2)
    # Nor may their edges divide by zero.
    ends = torch.where(is_real[:, None, None], ends, torch.arange(2, device=ends.device, dtype=ends.dtype)[:, None])
    is_row = axis == 0
    along, across = (torch.where(is_row[:, None], ends[..., first], ends[..., 1 - first]) for first in (0, 1))
    centre_along = torch.where(is_row, column_in, row_in) + 0.5
    centre_across = torch.where(is_row, row_in, column_in) + 0.5
    fraction = (centre_across - across[:, 0]) / (across[:, 1] - across[:, 0])
    direction = column_out - column_in + row_out - row_in
    excess = (along[:, 0] + fraction * (along[:, 1] - along[:, 0]) - centre_along) * direction - 0.5
    pixels = spread % (len(image) * height * width)
    flat_in = torch.where(is_real, (which * height + row_in) * width + column_in, pixels)
    flat_out = torch.where(is_real, (which * height + row_out) * width + column_out, pixels)
    flat = image.reshape(-1, channels)
    # Positive: the edge reaches into the outer pixel, which takes that much of the inner colour; negative: the other way round.
    change = excess[:, None] * (flat.index_select(0, flat_in) - flat.index_select(0, flat_out))
    target = torch.where(excess.detach() > 0, flat_out, flat_in)
    return flat.index_add(0, target, change).view(image.shape)


class _BlendCrossings(torch.autograd.Function):
    """`blend_crossings_torch`, compiled."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, points: Tensor, edges: Tensor, crossings: Tensor) -> Tensor:
        from focus_backend.rendering.kernels_antialias import blend_kernel

        given = tuple(value.detach().contiguous() for value in (image, points, edges, crossings))
        # numpy copies on this thread: torch would wake its workers for a fraction of a millisecond.
        blended = torch.from_numpy(given[0].numpy().copy())
        blend_kernel(*(value.numpy() for value in given), blended.numpy())
        ctx.save_for_backward(*given)
        return blended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        from focus_backend.rendering.kernels_antialias import blend_backward

        grad = grad.contiguous()
        grad_image, grad_points = torch.from_numpy(grad.numpy().copy()), torch.zeros_like(ctx.saved_tensors[1])
        arrays = (*ctx.saved_tensors, grad, grad_image, grad_points)
        blend_backward(*(value.numpy() for value in arrays))
        return grad_image, grad_points, None, None
