# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which points of a mesh a camera sees: a z-buffer as large as a mesh of a few thousand triangles needs."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ..shapes import Bool, Float, Int

GRID_SIDE = 256
# A triangle as large as the grid covers all its cells; so many of them are no face, and get a coarser grid.
MOST_CELLS = 4_000_000
# Surfaces this close count as one: about what a cell's width makes of a cheek seen from the side.
TOLERANCE_MM = 3.0


def unseen_points(
    points: Float[ndarray, "n 2"],
    depth: Float[ndarray, "n"],
    corners: Float[ndarray, "triangles 3 2"],
    corner_depth: Float[ndarray, "triangles 3"],
) -> Bool[ndarray, "n"]:
    """Whether a triangle hides a point, or it lies behind the camera.

    Args:
        points: pixels.
        depth: of the points, mm.
        corners: of the triangles, pixels.
        corner_depth: mm.
    """
    in_front = (corner_depth > 0).all(axis=1)
    corners, corner_depth = corners[in_front], corner_depth[in_front]
    unseen = depth <= 0
    if not len(corners):
        return unseen
    low = corners.min(axis=(0, 1))
    extent = max(float((corners.max(axis=(0, 1)) - low).max()), 1e-6)
    side = GRID_SIDE
    while _count_cells((corners - low) * (side / extent)) > MOST_CELLS:
        side //= 2
    # One cell more all around, so that neighbours need no bounds.
    nearness = _rasterize((corners - low) * (side / extent) + 1, 1 / corner_depth, side + 3)
    # Points behind the camera may lie farther off than whole numbers reach.
    cells = np.clip((points - low) * (side / extent) + 1, 1, side + 1).astype(np.int64)
    return unseen | (_farthest(nearness)[cells[:, 1], cells[:, 0]] * (depth - TOLERANCE_MM) > 1)


def _cell_ranges(corners: Float[ndarray, "triangles 3 2"]) -> tuple[Int[ndarray, "triangles 2"], Int[ndarray, "triangles 2"]]:
    """First cell whose centre a triangle's box holds, and how many there are, across and down."""
    first = np.ceil(corners.min(axis=1) - 0.5).astype(np.int64)
    last = np.floor(corners.max(axis=1) - 0.5).astype(np.int64)
    return first, np.maximum(last - first + 1, 0)


def _count_cells(corners: Float[ndarray, "triangles 3 2"]) -> int:
    return int(_cell_ranges(corners)[1].prod(axis=1).sum())


def _rasterize(corners: Float[ndarray, "triangles 3 2"], inverse_depth: Float[ndarray, "triangles 3"], side: int) -> ndarray:
    """The nearest triangle's inverse depth at each cell's centre; 0 where there is none. Inverse depth is linear in the picture."""
    # Triangles seen from the edge cover nothing.
    has_area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) != 0
    corners, inverse_depth = corners[has_area], inverse_depth[has_area]
    first, size = _cell_ranges(corners)
    count = size.prod(axis=1)
    triangle = np.repeat(np.arange(len(corners)), count)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    column = first[triangle, 0] + within % size[triangle, 0]
    row = first[triangle, 1] + within // size[triangle, 0]
    a, b, c = (corners[:, k] for k in range(3))
    slopes = np.stack([c - a, b - a], axis=1) / _cross(b - a, c - a)[:, None, None]
    from_a = np.stack([column + 0.5, row + 0.5], axis=1) - a[triangle]
    weight_b = _cross(from_a, slopes[triangle, 0])
    weight_c = -_cross(from_a, slopes[triangle, 1])
    inside = (weight_b >= 0) & (weight_c >= 0) & (weight_b + weight_c <= 1)
    triangle, column, row, weight_b, weight_c = (values[inside] for values in (triangle, column, row, weight_b, weight_c))
    origin = inverse_depth[triangle, 0]
    nearness = origin + weight_b * (inverse_depth[triangle, 1] - origin) + weight_c * (inverse_depth[triangle, 2] - origin)
    order = np.argsort(nearness)
    grid = np.zeros(side * side)
    # Of equal indices the last is kept: the nearest.
    grid[(row * side + column)[order]] = nearness[order]
    return grid.reshape(side, side)


def _cross(a: Float[ndarray, "n 2"], b: Float[ndarray, "n 2"]) -> Float[ndarray, "n"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _farthest(grid: Float[ndarray, "side side"]) -> Float[ndarray, "side side"]:
    """The least of each cell and its neighbours: a point is hidden only where all of them are."""
    rows = np.minimum(np.minimum(grid[:-2], grid[1:-1]), grid[2:])
    least = np.zeros_like(grid)
    least[1:-1, 1:-1] = np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return least
