"""The z-buffer on CUDA: one kernel of Triton, without any synchronisation of host and device."""

from __future__ import annotations

import importlib.util

import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.errors import ConfigError, MissingDependencyError
from focus_backend.rendering.rasterize import ID_MASK


def is_triton_available() -> bool:
    """Whether triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


def rasterize_triton(
    points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], height: int, width: int, cull_backfaces: bool = False
) -> Int[Tensor, "b h w"]:
    """`rasterize` in one kernel: the same float64 operations in the same order as `rasterize_torch`, so the same ids.

    Raises:
        MissingDependencyError: triton is not installed.
        ConfigError: the tensors are on the CPU (unless triton interprets its kernels).
    """
    if not is_triton_available():
        raise MissingDependencyError("triton is not installed", "use another rasterizer backend, or install triton")
    keys = _z_buffer(points.contiguous(), triangles.int().contiguous(), height, width, cull_backfaces)
    return torch.where(keys < 0, -1, ID_MASK - (keys & ID_MASK))


@torch.library.custom_op(
    "focus_backend::z_buffer",
    mutates_args=(),
    schema="(Tensor points, Tensor triangles, int height, int width, bool cull_backfaces) -> Tensor",
)
def _z_buffer(points: Tensor, triangles: Tensor, height: int, width: int, cull_backfaces: bool) -> Tensor:
    """The largest key at each pixel, -1 where nothing is; an operator of torch, so that fake tensors and the compiler know its shape."""
    import triton

    from focus_backend.rendering.kernels_triton import PIXELS, TRIANGLES, z_buffer

    if points.device.type != "cuda" and isinstance(z_buffer, triton.JITFunction):
        raise ConfigError(f"rasterizer backend 'triton' cannot work on {points.device.type} tensors", "use backend 'auto'")
    batch, vertices = points.shape[:2]
    keys = torch.full((batch, height, width), -1, dtype=torch.int64, device=points.device)
    grid = (triton.cdiv(len(triangles), TRIANGLES), batch)
    if keys.numel() == 0 or len(triangles) == 0:
        return keys
    # Fused multiply-adds would round otherwise than the other backends do.
    options = {"triangle_block": TRIANGLES, "pixel_block": PIXELS, "enable_fp_fusion": False}
    with torch.cuda.device_of(points):
        z_buffer[grid](points, triangles, keys, vertices, len(triangles), height, width, cull_backfaces, **options)
    return keys


@_z_buffer.register_fake
def _(points: Tensor, triangles: Tensor, height: int, width: int, cull_backfaces: bool) -> Tensor:
    return points.new_empty((len(points), height, width), dtype=torch.int64)
