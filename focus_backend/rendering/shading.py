"""Colour of every visible pixel: interpolation, albedo lookup, spherical-harmonics lighting, sRGB encoding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from focus_backend.rendering.dense import barycentric_of_origin, corners_from_pixels, gather_corners, keep_seen, spread_triangles
from focus_backend.rendering.execution import Execution, is_compiled
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
    shade,
)
from focus_backend.rendering.topology import MeshTopology

# Bounds the memory of the dense way to about 1 GB.
PIXELS_AT_A_TIME = 1 << 21


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
    execution: Execution = "auto",
) -> ShadedPixels:
    """Shade the pixels where ids >= 0; differentiable in the first four.

    Args:
        points: (x px, y px, depth > 0) of the vertices.
        normals: unit vertex normals, camera space.
        albedo: linear RGB texture, row 0 at the top; read bilinearly, clamped at its borders.
        lighting: spherical-harmonics coefficients x RGB, camera space.
        ids: triangle seen at each pixel, -1 for none.
        topology: of the mesh; its `in_region` is not looked at.
        execution: compiled, or dense torch.
    """
    if is_compiled(points, execution):
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
    """`shade_pixels` in plain torch, on every pixel, seen or not, so that no shape depends on the picture.

    A part of the batch at a time; the backward pass computes a part's intermediate values again instead of keeping those of all.
    """
    if ids.numel() == 0 or len(topology.triangles) == 0:
        nothing = points.new_zeros(*ids.shape, 3)
        return ShadedPixels(nothing, nothing, nothing, nothing, nothing[..., 0])
    size = max(1, PIXELS_AT_A_TIME // max(1, ids.shape[1] * ids.shape[2]))
    given = zip(*(values.split(size) for values in (points, normals, albedo, lighting, ids)), strict=True)
    parts = [_shade_part(points, normals, albedo, lighting, ids, topology) for points, normals, albedo, lighting, ids in given]
    image, value, unit, barycentric, depth = (torch.cat(maps) for maps in zip(*parts, strict=True))
    return ShadedPixels(image, value, unit, barycentric, depth)


def _shade_part(points: Tensor, normals: Tensor, albedo: Tensor, lighting: Tensor, ids: Tensor, topology: MeshTopology) -> ShadedPixels:
    """Some images of the batch; with gradients, only the inputs are kept for the backward pass."""
    given = (points, normals, albedo, lighting, ids, topology)
    if not torch.is_grad_enabled():
        return _shade_every_pixel(*given)
    # There is nothing random in it, and to save the generator's state would make the host wait.
    return checkpoint(_shade_every_pixel, *given, use_reentrant=False, preserve_rng_state=False, determinism_check="none")


def _shade_every_pixel(
    points: Float[Tensor, "b v 3"],
    normals: Float[Tensor, "b v 3"],
    albedo: Float[Tensor, "b rows columns 3"],
    lighting: Float[Tensor, "b 9 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
) -> ShadedPixels:
    """All maps at once."""
    triangle = spread_triangles(ids, len(topology.triangles))
    corners = gather_corners(torch.cat([points, normals], dim=-1), topology.triangles, triangle)
    seen = corners_from_pixels(corners[..., :3], ids)
    barycentric = barycentric_of_origin(seen)
    unit = torch.nn.functional.normalize((corners[..., 3:] * barycentric[..., None]).sum(2), dim=-1)
    uv = topology.uv.to(points.dtype).index_select(0, triangle.flatten()).view(*triangle.shape, 3, 2)
    value = sample_texture(albedo, (uv * barycentric[..., None]).sum(2))
    # A triangle's nearness is linear on the screen, so the depth is the perspective-weighted mean of the corners' depths.
    depth = (barycentric * seen[..., 2]).sum(2)
    maps = (encode_srgb(value * shade(unit, lighting)), value, unit, barycentric, depth)
    return ShadedPixels(*(keep_seen(values, ids) for values in maps))


def sample_texture(texture: Float[Tensor, "b rows columns 3"], uv: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n 3"]:
    """Bilinear lookup at uv (origin bottom left, texel centres at +0.5), clamped at the borders."""
    # [-1, 1] spans the texture from border to border, not from texel centre to texel centre.
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)
    found = torch.nn.functional.grid_sample(
        texture.permute(0, 3, 1, 2), grid[:, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[:, :, 0].transpose(1, 2)


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
