"""Triton kernel of the z-buffer, float64 throughout, in the operation order of `rasterize_torch`.

Importing this module imports triton, so callers import it inside the function that needs it. With the environment variable
`TRITON_INTERPRET=1`, set before that import, the kernel runs on CPU tensors, for tests.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Triangles that one program draws, and pixels of each triangle's bounding box that it looks at in one step.
TRIANGLES = 32
PIXELS = 8


@triton.jit
def load_corner(points, triangles, face, corner, is_real):
    """(x, y, depth) of one corner of each triangle, float64; `points` is those of the image."""
    vertex = tl.load(triangles + face * 3 + corner, mask=is_real, other=0).to(tl.int64) * 3
    x = tl.load(points + vertex, mask=is_real, other=0.0).to(tl.float64)
    y = tl.load(points + vertex + 1, mask=is_real, other=0.0).to(tl.float64)
    depth = tl.load(points + vertex + 2, mask=is_real, other=0.0).to(tl.float64)
    return x, y, depth


@triton.jit
def pixel_range(a, b, c, size):
    """First and last pixel whose centre lies within the range of three values; clamped, so that every number fits an integer."""
    low = tl.math.ceil(tl.minimum(tl.minimum(a, b), c) - 0.5)
    high = tl.math.floor(tl.maximum(tl.maximum(a, b), c) - 0.5)
    low = tl.minimum(tl.maximum(low, 0.0), size.to(tl.float64))
    high = tl.maximum(tl.minimum(high, size.to(tl.float64) - 1.0), -1.0)
    return low.to(tl.int32), high.to(tl.int32)


# Sizes stay variables: a size of 1 would become a constant, which has no type to convert, and every new size would be compiled anew.
@triton.jit(do_not_specialize=["vertices", "faces", "height", "width"])
def z_buffer(  # type: ignore[no-untyped-def]
    points,
    triangles,
    keys,
    vertices,
    faces,
    height,
    width,
    cull_backfaces: tl.constexpr,
    triangle_block: tl.constexpr,
    pixel_block: tl.constexpr,
):
    """Raise keys [b h w], -1 on entry, to the largest (float32 nearness << 32 | 0x7fffffff - triangle) that covers each pixel centre.

    Grid: blocks of triangles x images. Each program walks through the bounding boxes of its triangles side by side.
    """
    image = tl.program_id(1).to(tl.int64)
    face = tl.program_id(0) * triangle_block + tl.arange(0, triangle_block)[:, None]
    is_real = face < faces
    screen = points + image * vertices * 3
    x0, y0, d0 = load_corner(screen, triangles, face, 0, is_real)
    x1, y1, d1 = load_corner(screen, triangles, face, 1, is_real)
    x2, y2, d2 = load_corner(screen, triangles, face, 2, is_real)
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    # NaN fails every comparison.
    infinity = float("inf")
    is_drawn = is_real & (tl.abs(x0 + x1 + x2 + y0 + y1 + y2) < infinity)
    is_drawn &= (d0 > 0) & (d1 > 0) & (d2 > 0) & (d0 < infinity) & (d1 < infinity) & (d2 < infinity)
    is_drawn &= (area < 0) | ((area > 0) & (not cull_backfaces))
    # What is not drawn gets harmless numbers.
    area, d0, d1, d2 = tl.where(is_drawn, area, 1.0), tl.where(is_drawn, d0, 1.0), tl.where(is_drawn, d1, 1.0), tl.where(is_drawn, d2, 1.0)
    x0, x1, x2 = tl.where(is_drawn, x0, 0.0), tl.where(is_drawn, x1, 0.0), tl.where(is_drawn, x2, 0.0)
    y0, y1, y2 = tl.where(is_drawn, y0, 0.0), tl.where(is_drawn, y1, 0.0), tl.where(is_drawn, y2, 0.0)
    left, right = pixel_range(x0, x1, x2, width)
    top, bottom = pixel_range(y0, y1, y2, height)
    columns = tl.maximum(right - left + 1, 0)
    count = tl.where(is_drawn, columns * tl.maximum(bottom - top + 1, 0), 0)
    columns = tl.maximum(columns, 1)
    n0, n1, n2 = 1.0 / d0 / area, 1.0 / d1 / area, 1.0 / d2 / area
    sign = tl.where(area > 0, 1.0, -1.0).to(tl.float64)
    rank = (0x7FFFFFFF - face).to(tl.int64)
    target = keys + image * height * width
    for start in range(0, tl.max(count), pixel_block):
        place = start + tl.arange(0, pixel_block)[None, :]
        row, column = top + place // columns, left + place % columns
        y, x = row.to(tl.float64) + 0.5, column.to(tl.float64) + 0.5
        dx0, dx1, dx2 = x0 - x, x1 - x, x2 - x
        dy0, dy1, dy2 = y0 - y, y1 - y, y2 - y
        w0 = dx1 * dy2 - dy1 * dx2
        w1 = dx2 * dy0 - dy2 * dx0
        w2 = dx0 * dy1 - dy0 * dx1
        is_inside = (place < count) & (w0 * sign >= 0) & (w1 * sign >= 0) & (w2 * sign >= 0)
        nearness = (w0 * n0 + w1 * n1 + w2 * n2).to(tl.float32)
        key = (nearness.to(tl.int32, bitcast=True).to(tl.int64) << 32) | rank
        tl.atomic_max(target + row.to(tl.int64) * width + column, key, mask=is_inside, sem="relaxed")
