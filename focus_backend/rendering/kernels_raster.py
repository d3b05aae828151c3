"""Compiled CPU kernel of the z-buffer. Arithmetic is float64 throughout.

Importing this module imports numba, so callers import it inside the function that needs it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def signed_area(points, a, b, c):
    """Twice the area of a screen triangle; negative where the mesh shows its outside (screen y points down)."""
    x, y = np.float64(points[a, 0]), np.float64(points[a, 1])
    return (points[b, 0] - x) * (points[c, 1] - y) - (points[b, 1] - y) * (points[c, 0] - x)


@njit(**_OPTIONS)
def is_drawable(points, a, b, c):
    """All corners in front of the camera and finite; NaN fails every comparison."""
    total = np.float64(points[a, 0]) + points[b, 0] + points[c, 0] + points[a, 1] + points[b, 1] + points[c, 1]
    if not (abs(total) < np.inf):
        return False
    d0, d1, d2 = points[a, 2], points[b, 2], points[c, 2]
    return d0 > 0 and d1 > 0 and d2 > 0 and d0 < np.inf and d1 < np.inf and d2 < np.inf


@njit(**_OPTIONS)
def first_centre(low, size):
    """Index of the first pixel centre at or after `low`, within [0, size]."""
    return int(min(max(np.ceil(low - 0.5), 0.0), float(size)))


@njit(**_OPTIONS)
def last_centre(high, size):
    """Index of the last pixel centre at or before `high`, within [-1, size - 1]."""
    return int(max(min(np.floor(high - 0.5), size - 1.0), -1.0))


@njit(**_OPTIONS)
def edge_slope(rise, run):
    """Columns per row along an edge, kept finite so that no NaN arises; unused where rise is 0."""
    return min(max(run / rise, -1e30), 1e30)


@njit(**_OPTIONS)
def narrow(low, high, crossing, rise, slack):
    """Cut a row's range of columns where it crosses one edge line; kept a little too wide, the exact test decides."""
    if rise > 0:
        high = min(high, crossing + slack)
    elif rise < 0:
        low = max(low, crossing - slack)
    return low, high


@njit(**_OPTIONS)
def fill_triangle(points, a, b, c, area, triangle, nearness, ids):
    """Write one triangle into an image's z-buffer; the same operations in the same order as `rasterize_torch`."""
    height, width = ids.shape
    x0, y0 = np.float64(points[a, 0]), np.float64(points[a, 1])
    x1, y1 = np.float64(points[b, 0]), np.float64(points[b, 1])
    x2, y2 = np.float64(points[c, 0]), np.float64(points[c, 1])
    left, right = first_centre(min(x0, x1, x2), width), last_centre(max(x0, x1, x2), width)
    top, bottom = first_centre(min(y0, y1, y2), height), last_centre(max(y0, y1, y2), height)
    if left > right or top > bottom:
        return
    n0, n1, n2 = 1.0 / points[a, 2] / area, 1.0 / points[b, 2] / area, 1.0 / points[c, 2] / area
    sign = 1.0 if area > 0 else -1.0
    rise0, rise1, rise2 = (y2 - y1) * sign, (y0 - y2) * sign, (y1 - y0) * sign
    slope0, slope1, slope2 = edge_slope(y2 - y1, x2 - x1), edge_slope(y0 - y2, x0 - x2), edge_slope(y1 - y0, x1 - x0)
    slack = 1e-6 + 1e-12 * (abs(x0) + abs(x1) + abs(x2))
    for row in range(top, bottom + 1):
        y = row + 0.5
        dy0, dy1, dy2 = y0 - y, y1 - y, y2 - y
        low, high = float(left), float(right)
        low, high = narrow(low, high, x1 - slope0 * dy1 - 0.5, rise0, slack)
        low, high = narrow(low, high, x2 - slope1 * dy2 - 0.5, rise1, slack)
        low, high = narrow(low, high, x0 - slope2 * dy0 - 0.5, rise2, slack)
        for column in range(int(np.ceil(low)), int(np.floor(high)) + 1):
            x = column + 0.5
            dx0, dx1, dx2 = x0 - x, x1 - x, x2 - x
            w0 = dx1 * dy2 - dy1 * dx2
            w1 = dx2 * dy0 - dy2 * dx0
            w2 = dx0 * dy1 - dy0 * dx1
            if (w0 * sign >= 0) & (w1 * sign >= 0) & (w2 * sign >= 0):
                value = np.float32(w0 * n0 + w1 * n1 + w2 * n2)
                # Strict: on a tie the lowest triangle id, which came first, stays.
                if value > nearness[row, column]:
                    nearness[row, column] = value
                    ids[row, column] = triangle


@njit(**_OPTIONS)
def z_buffer(points, triangles, cull_backfaces, ids):
    """Fill ids [b h w], -1 on entry, with the nearest triangle at each pixel centre."""
    nearness = np.empty(ids.shape[1:], np.float32)
    for image in range(len(points)):
        nearness[:] = -1.0
        screen, image_ids = points[image], ids[image]
        for triangle in range(len(triangles)):
            a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
            area = signed_area(screen, a, b, c)
            # Written so that a NaN area is dropped too.
            if not (area < 0 or (area > 0 and not cull_backfaces)):
                continue
            if is_drawable(screen, a, b, c):
                fill_triangle(screen, a, b, c, area, triangle, nearness, image_ids)


@njit(**_OPTIONS)
def keep_region(ids, in_region, shown):
    """Fill shown with the ids [b h w] of triangles in the region, -1 elsewhere."""
    for image in range(ids.shape[0]):
        for row in range(ids.shape[1]):
            for column in range(ids.shape[2]):
                t = ids[image, row, column]
                shown[image, row, column] = t if t >= 0 and in_region[t] else -1
