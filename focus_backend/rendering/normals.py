"""Smooth vertex normals of a triangle mesh."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from focus_backend.rendering.execution import Execution, is_compiled


def vertex_normals(
    vertices: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], execution: Execution = "auto"
) -> Float[Tensor, "b v 3"]:
    """Unit normals: at each vertex the sum of its triangles' normals, weighted by area; zero where no triangle is.

    Differentiable in `vertices`. The outside is where the triangles are counter-clockwise.
    """
    sums = _NormalSums.apply(vertices, triangles) if is_compiled(vertices, execution) else normal_sums_torch(vertices, triangles)
    return torch.nn.functional.normalize(sums, dim=-1)


def normal_sums_torch(vertices: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Sum over each vertex's triangles of twice the area times the normal, in plain torch."""
    triangles = triangles.long()
    # index_select, because its gradient is summed in place, where that of vertices[:, triangles] is sorted first.
    a, b, c = (vertices.index_select(1, corner) for corner in triangles.unbind(1))
    face_normals = torch.linalg.cross(b - a, c - a)
    sums = torch.zeros_like(vertices)
    for corner in triangles.unbind(1):
        sums = sums.index_add(1, corner, face_normals)
    return sums


class _NormalSums(torch.autograd.Function):
    """`normal_sums_torch`, compiled."""

    @staticmethod
    def forward(ctx: Any, vertices: Tensor, triangles: Tensor) -> Tensor:
        from focus_backend.rendering.kernels_normals import normal_sums

        vertices, triangles = vertices.contiguous(), triangles.int().contiguous()
        ctx.save_for_backward(vertices, triangles)
        sums = torch.zeros_like(vertices)
        normal_sums(vertices.detach().numpy(), triangles.numpy(), sums.numpy())
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor, None]:
        from focus_backend.rendering.kernels_normals import normal_sums_backward

        vertices, triangles = ctx.saved_tensors
        grad_vertices = torch.zeros_like(vertices)
        normal_sums_backward(vertices.numpy(), triangles.numpy(), grad_sums.contiguous().numpy(), grad_vertices.numpy())
        return grad_vertices, None
