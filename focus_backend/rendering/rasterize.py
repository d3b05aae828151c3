"""Which triangle is seen at each pixel, and where on it: z-buffer and perspective-correct barycentric coordinates."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.errors import ConfigError
from focus_backend.rendering.dense import barycentric_of_origin, corners_from_pixels, gather_corners, keep_seen, spread_triangles

Backend = Literal["auto", "numba", "torch", "triton", "pytorch3d"]

# Low bits of a z-buffer key; the high bits are the float32 nearness (1 / depth).
ID_MASK = 0x7FFFFFFF
# Candidate (triangle, pixel) pairs handled at a time; bounds the memory of the torch path to about 1 GB.
_CHUNK = 1 << 22


def rasterize(
    points: Float[Tensor, "b v 3"],
    triangles: Int[Tensor, "f 3"],
    height: int,
    width: int,
    *,
    cull_backfaces: bool = False,
    backend: Backend = "auto",
) -> Int[Tensor, "b h w"]:
    """The nearest triangle at every pixel centre, -1 where there is none. Not differentiable.

    A pixel centre on an edge belongs to the triangle; at equal depth (as float32) the lowest id wins. Triangles with a corner that
    is not in front of the camera or not finite, and triangles without area, are not drawn; nothing is clipped against the camera plane.

    Args:
        points: (x px, y px, depth > 0), depth in any unit.
        triangles: vertex indices; the outside is counter-clockwise as seen on the screen.
        height: of the image, pixels.
        width: of the image, pixels.
        cull_backfaces: drop triangles that show their inside.
        backend: "auto" takes numba on the CPU and, on CUDA, triton where it is installed and torch where not. These three agree bit by
            bit; only triton never makes the host wait for the device. pytorch3d computes in float32 and may differ at pixel centres
            that lie on an edge.

    Raises:
        ConfigError: an unknown backend, or one that does not work where the tensors are.
        MissingDependencyError: triton or pytorch3d was asked for and is not installed.
    """
    points = points.detach()
    backend = _choose_backend(points) if backend == "auto" else backend
    if backend == "torch":
        return rasterize_torch(points, triangles, height, width, cull_backfaces)
    if backend == "triton":
        from focus_backend.rendering.rasterize_triton import rasterize_triton

        return rasterize_triton(points, triangles, height, width, cull_backfaces)
    if backend == "pytorch3d":
        from focus_backend.rendering.rasterize_pytorch3d import rasterize_pytorch3d

        return rasterize_pytorch3d(points, triangles, height, width, cull_backfaces)
    if backend == "numba" and points.device.type == "cpu":
        return _rasterize_numba(points, triangles, height, width, cull_backfaces)
    raise ConfigError(f"rasterizer backend {backend!r} cannot work on {points.device.type} tensors", "use backend 'auto'")


def _choose_backend(points: Tensor) -> Backend:
    if points.device.type == "cpu":
        return "numba"
    from focus_backend.rendering.rasterize_triton import is_triton_available

    # Tensors without values go the way of CUDA, so that its shapes and devices can be checked on any machine.
    return "triton" if points.device.type in ("cuda", "meta") and is_triton_available() else "torch"


def _rasterize_numba(
    points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], height: int, width: int, cull_backfaces: bool
) -> Int[Tensor, "b h w"]:
    from focus_backend.rendering.kernels_raster import z_buffer

    ids = torch.full((len(points), height, width), -1, dtype=torch.int64)
    z_buffer(points.contiguous().numpy(), triangles.int().contiguous().numpy(), cull_backfaces, ids.numpy())
    return ids


def rasterize_torch(
    points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], height: int, width: int, cull_backfaces: bool = False
) -> Int[Tensor, "b h w"]:
    """`rasterize` in plain torch: every (triangle, pixel of its bounding box) pair scatters one key of (nearness, lowest id).

    Float64 and the operation order of the compiled kernel, so that both give the same ids on every device.
    """
    batch, faces = len(points), len(triangles)
    corners = points.double()[:, triangles.long()].flatten(0, 1)
    x, y, depth = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    is_drawn = ((area < 0) if cull_backfaces else (area != 0)) & is_drawable(x, y, depth)
    left, right = _pixel_range(x, width)
    top, bottom = _pixel_range(y, height)
    is_drawn &= (left <= right) & (top <= bottom)
    drawn = is_drawn.nonzero()[:, 0]
    columns = (right - left + 1)[drawn]
    counts = columns * (bottom - top + 1)[drawn]
    keys = torch.full((batch * height * width,), -1, dtype=torch.int64, device=points.device)
    for chunk in _chunks(counts):
        # Nested indexing keeps the per-pair tensors as the only large ones.
        triangle = drawn[chunk]
        setup = _TriangleSetup(x[triangle], y[triangle], depth[triangle], area[triangle])
        pair, offset = expand_counts(counts[chunk])
        row = top[triangle][pair] + offset // columns[chunk][pair]
        column = left[triangle][pair] + offset % columns[chunk][pair]
        is_inside, nearness = setup.cover(pair, column + 0.5, row + 0.5)
        image, face = triangle[pair] // faces, triangle[pair] % faces
        key = (nearness.float().view(torch.int32).long() << 32) | (ID_MASK - face)
        pixel = (image * height + row) * width + column
        keys.scatter_reduce_(0, pixel[is_inside], key[is_inside], "amax")
    ids = torch.where(keys < 0, -1, ID_MASK - (keys & ID_MASK))
    return ids.view(batch, height, width)


class _TriangleSetup:
    """Edge functions and nearness plane of some triangles, evaluated at many pixel centres."""

    def __init__(self, x: Tensor, y: Tensor, depth: Tensor, area: Tensor) -> None:
        self.x, self.y = x, y
        self.plane = 1.0 / depth / area[:, None]
        self.sign = area.sign()

    def cover(self, pair: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether pixel (x, y) lies in triangle `pair`, and 1 / depth there."""
        dx0, dx1, dx2 = (self.x[pair] - x[:, None]).unbind(1)
        dy0, dy1, dy2 = (self.y[pair] - y[:, None]).unbind(1)
        w0 = dx1 * dy2 - dy1 * dx2
        w1 = dx2 * dy0 - dy2 * dx0
        w2 = dx0 * dy1 - dy0 * dx1
        sign = self.sign[pair]
        n0, n1, n2 = self.plane[pair].unbind(1)
        is_inside = (w0 * sign >= 0) & (w1 * sign >= 0) & (w2 * sign >= 0)
        return is_inside, w0 * n0 + w1 * n1 + w2 * n2


def is_drawable(x: Float[Tensor, "n 3"], y: Float[Tensor, "n 3"], depth: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
    """Triangles with all corners finite and in front of the camera."""
    total = x[:, 0] + x[:, 1] + x[:, 2] + y[:, 0] + y[:, 1] + y[:, 2]
    return total.isfinite() & ((depth > 0) & (depth < torch.inf)).all(1)


def _pixel_range(values: Float[Tensor, "n 3"], size: int) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """First and last pixel whose centre lies within each row's range; an empty range where the values are not finite."""
    low = torch.nan_to_num((values.amin(1) - 0.5).ceil(), nan=size).clamp(0, size).long()
    high = torch.nan_to_num((values.amax(1) - 0.5).floor(), nan=-1).clamp(-1, size - 1).long()
    return low, high


def _chunks(counts: Int[Tensor, "n"]) -> list[slice]:
    """Ranges of triangles with about `_CHUNK` candidate pixels each (a single triangle may exceed it)."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    bounds = torch.arange(0, total, _CHUNK, device=counts.device)[1:]
    cuts = sorted({0, *torch.searchsorted(ends, bounds).tolist(), len(counts)})
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def expand_counts(counts: Int[Tensor, "n"]) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Repeat each index `counts` times; the index, and the running number within it."""
    index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    start = counts.cumsum(0) - counts
    return index, torch.arange(len(index), device=counts.device) - start[index]


def barycentric_coordinates(
    points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], ids: Int[Tensor, "b h w"]
) -> Float[Tensor, "b h w 3"]:
    """Perspective-correct barycentric coordinates at pixel centres, zero where ids is -1; differentiable in `points`.

    Plain torch with fixed shapes, in the precision of `points`: the reference for the compiled path and the way on CUDA.
    """
    if len(triangles) == 0 or ids.numel() == 0:
        return points.new_zeros(*ids.shape, 3)
    corners = gather_corners(points, triangles, spread_triangles(ids, len(triangles)))
    return keep_seen(barycentric_of_origin(corners_from_pixels(corners, ids)), ids)
