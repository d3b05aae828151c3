"""Colour of every visible pixel: interpolation, albedo lookup, spherical-harmonics lighting, sRGB encoding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from focus_backend.rendering.lighting import (
    SH_BAND0,
    SH_BAND1,
    SH_BAND2,
    SH_BAND2_XX_YY,
    SH_BAND2_ZZ,
    SRGB_GAMMA,
    SRGB_KNEE,
    SRGB_OFFSET,
    SRGB_SLOPE,
    encode_srgb,
    spherical_harmonics,
)
from focus_backend.rendering.rasterize import barycentric_at
from focus_backend.rendering.topology import MeshTopology


class ShadedPixels(NamedTuple):
    """Maps of one rendering, zero where no triangle is seen.

    Attributes:
        image: sRGB, not clamped.
        albedo: linear RGB.
        normals: unit, camera space.
        barycentric: perspective-correct, of the seen triangle's corners.
        depth: distance along the viewing direction, in the unit of the points' depth.
    """

    image: Float[Tensor, "b h w 3"]
    albedo: Float[Tensor, "b h w 3"]
    normals: Float[Tensor, "b h w 3"]
    barycentric: Float[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]


def shade_pixels(
    points: Float[Tensor, "b v 3"],
    normals: Float[Tensor, "b v 3"],
    albedo: Float[Tensor, "b rows columns 3"],
    lighting: Float[Tensor, "b 9 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
) -> ShadedPixels:
    """Shade the pixels where ids >= 0; differentiable in the first four. Compiled on the CPU, torch elsewhere.

    Args:
        points: (x px, y px, depth > 0) of the vertices.
        normals: unit vertex normals, camera space.
        albedo: linear RGB texture, row 0 at the top; read bilinearly, clamped at its borders.
        lighting: spherical-harmonics coefficients x RGB, camera space.
        ids: triangle seen at each pixel, -1 for none.
        topology: of the mesh; its `in_region` is not looked at.
    """
    if points.device.type == "cpu":
        uv = topology.uv.to(points.dtype)
        return ShadedPixels(*_ShadePixels.apply(points, normals, albedo, lighting, ids, topology.triangles, uv))
    return shade_pixels_torch(points, normals, albedo, lighting, ids, topology)


def shade_pixels_torch(
    points: Float[Tensor, "b v 3"],
    normals: Float[Tensor, "b v 3"],
    albedo: Float[Tensor, "b rows columns 3"],
    lighting: Float[Tensor, "b 9 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
) -> ShadedPixels:
    """`shade_pixels` in plain torch, on the seen pixels only."""
    image, row, column = (ids >= 0).nonzero(as_tuple=True)
    seen = ids[image, row, column]
    corners = topology.triangles.long()[seen]
    pixels = torch.stack([column, row], dim=-1).to(points.dtype) + 0.5
    seen_points = points[image[:, None], corners]
    barycentric = barycentric_at(seen_points, pixels)
    unit = (normals[image[:, None], corners] * barycentric[..., None]).sum(1)
    unit = torch.nn.functional.normalize(unit, dim=-1)
    uv = (topology.uv.to(points.dtype)[seen] * barycentric[..., None]).sum(1)
    value = sample_texture(albedo, image, uv)
    # A triangle's nearness is linear on the screen, so the depth is the perspective-weighted mean of the corners' depths.
    depth = (barycentric * seen_points[..., 2]).sum(1)
    shading = (spherical_harmonics(unit)[:, :, None] * lighting[image]).sum(1)
    flat = (image * ids.shape[1] + row) * ids.shape[2] + column
    maps = (encode_srgb(value * shading), value, unit, barycentric, depth)
    return ShadedPixels(*(_scatter(values, flat, ids.shape) for values in maps))


def sample_texture(texture: Float[Tensor, "b rows columns 3"], image: Int[Tensor, "n"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Bilinear lookup at uv (origin bottom left, texel centres at +0.5) in the texture of each point's image."""
    rows, columns = texture.shape[1:3]
    x = (uv[:, 0] * columns - 0.5).clamp(0, columns - 1)
    y = ((1 - uv[:, 1]) * rows - 0.5).clamp(0, rows - 1)
    left = x.detach().long().clamp(0, max(columns - 2, 0))
    top = y.detach().long().clamp(0, max(rows - 2, 0))
    right, bottom = (left + 1).clamp(max=columns - 1), (top + 1).clamp(max=rows - 1)
    along_x, along_y = (x - left)[:, None], (y - top)[:, None]
    upper = texture[image, top, left] * (1 - along_x) + texture[image, top, right] * along_x
    lower = texture[image, bottom, left] * (1 - along_x) + texture[image, bottom, right] * along_x
    return upper * (1 - along_y) + lower * along_y


def _scatter(values: Tensor, flat: Tensor, shape: torch.Size) -> Tensor:
    """Values of the seen pixels as a map, zero elsewhere."""
    return values.new_zeros(shape.numel(), *values.shape[1:]).index_copy(0, flat, values).unflatten(0, shape)


def _kernel_constants(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors of the nine harmonics, and the sRGB curve, as the kernels expect them."""
    harmonics = [SH_BAND0, *[SH_BAND1] * 3, SH_BAND2, SH_BAND2, SH_BAND2_ZZ, SH_BAND2, SH_BAND2_XX_YY]
    curve = [SRGB_KNEE, SRGB_SLOPE, SRGB_OFFSET, 1 + SRGB_OFFSET, 1 / SRGB_GAMMA, SRGB_GAMMA]
    return torch.tensor(harmonics, dtype=dtype), torch.tensor(curve, dtype=dtype)


class _ShadePixels(torch.autograd.Function):
    """`shade_pixels_torch`, compiled; the backward pass recomputes what it needs pixel by pixel."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        from focus_backend.rendering.kernels_shading import shade_kernel

        points, normals, albedo, lighting, ids, triangles, uv = (value.detach().contiguous() for value in inputs)
        size = torch.tensor(albedo.shape[1:3])
        given = (points, normals, albedo.flatten(1, 2), lighting, ids, triangles, uv, size, *_kernel_constants(points.dtype))
        # numpy's zeros come from the system untouched, so that empty regions cost nothing.
        maps = [np.zeros((*ids.shape, 3), points.numpy().dtype) for _ in range(4)] + [np.zeros(ids.shape, points.numpy().dtype)]
        shade_kernel(*(value.numpy() for value in given), *maps)
        outputs = tuple(torch.from_numpy(value) for value in maps)
        ctx.save_for_backward(*given, outputs[0])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        from focus_backend.rendering.kernels_shading_backward import shade_backward

        saved = [value.numpy() for value in ctx.saved_tensors]
        dtype, image = saved[0].dtype, saved[-1]
        # An empty array tells the kernel that this gradient is absent.
        absent = [np.zeros_like(image), *[np.empty((0, 0, 0, 0), dtype)] * 3, np.empty((0, 0, 0), dtype)]
        given = [empty if grad is None else grad.contiguous().numpy() for grad, empty in zip(grads, absent, strict=True)]
        wants_albedo = ctx.needs_input_grad[2]
        wanted = [np.zeros_like(value) for value in saved[:4]]
        if not wants_albedo:
            wanted[2] = np.empty((0, 0, 3), dtype)
        shade_backward(*saved, *given, *wanted)
        points, normals, albedo, lighting = (torch.from_numpy(value) for value in wanted)
        size = ctx.saved_tensors[7].tolist()
        return points, normals, albedo.unflatten(1, size) if wants_albedo else None, lighting, None, None, None
