"""Compiled CPU kernel that finds where silhouette edges pass between pixel centres. Arithmetic is float64 throughout.

Importing this module imports numba, so callers import it inside the function that needs it. `antialias_torch` follows the same rules.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from focus_backend.rendering.kernels_raster import first_centre, is_drawable, last_centre, signed_area

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def mark_front_facing(points, triangles, is_front):
    """Fill is_front [f] of one image."""
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        is_front[t] = signed_area(points, a, b, c) < 0 and is_drawable(points, a, b, c)


@njit(**_OPTIONS)
def classify_edge(is_front, in_region, side0, side1):
    """Kind of an edge and the triangle inside of it: 1 silhouette or border, 2 border of the region within the surface, 0 neither."""
    front0 = side0 >= 0 and is_front[side0]
    front1 = side1 >= 0 and is_front[side1]
    if front0 and front1:
        if in_region[side0] == in_region[side1]:
            return 0, side0
        return 2, side0 if in_region[side0] else side1
    if front0:
        return 1, side0
    return (1, side1) if front1 else (0, side1)


@njit(**_OPTIONS)
def nearness_at(points, triangles, t, column, row):
    """1 / depth of a triangle's plane at a pixel centre."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    x, y = column + 0.5, row + 0.5
    x0, y0 = points[a, 0] - x, points[a, 1] - y
    x1, y1 = points[b, 0] - x, points[b, 1] - y
    x2, y2 = points[c, 0] - x, points[c, 1] - y
    w0, w1, w2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    return (w0 / points[a, 2] + w1 / points[b, 2] + w2 / points[c, 2]) / (w0 + w1 + w2)


@njit(**_OPTIONS)
def is_visible_crossing(points, triangles, in_region, kind, nearness, ids, row_in, column_in, row_out, column_out, tolerance):
    """Whether an edge of this nearness is what separates two neighbouring pixels."""
    id_in, id_out = ids[row_in, column_in], ids[row_out, column_out]
    if id_in < 0 or not (in_region[id_in] or (id_out >= 0 and in_region[id_out])):
        return False
    near_in = nearness_at(points, triangles, id_in, column_in, row_in)
    is_surface = near_in >= nearness * (1.0 - tolerance)
    if id_out < 0:
        return is_surface
    near_out = nearness_at(points, triangles, id_out, column_out, row_out)
    if kind == 1:
        return near_out < nearness and is_surface
    is_beside = abs(near_in - nearness) <= tolerance * nearness and abs(near_out - nearness) <= tolerance * nearness
    return is_beside and in_region[id_in] and not in_region[id_out]


@njit(**_OPTIONS)
def claim(slots, slot, extent, extents, count):
    """Where to write a crossing: its pixel pair's place if it lies farther out than the one there, a new place, or -1."""
    place = slots[slot]
    if place < 0:
        return count
    return place if extent > extents[place] else -1


@njit(**_OPTIONS)
def cross_edge(points, triangles, in_region, ids, edge, va, vb, kind, front, image, tolerance, slots, extents, found, count):
    """Record the visible crossings of one edge; returns the new number of records."""
    dx, dy = np.float64(points[vb, 0]) - points[va, 0], np.float64(points[vb, 1]) - points[va, 1]
    # A steep edge separates neighbours in a row (axis 0), a level one neighbours in a column.
    axis = 0 if abs(dy) >= abs(dx) else 1
    along, across, across_end = np.float64(points[va, axis]), np.float64(points[va, 1 - axis]), np.float64(points[vb, 1 - axis])
    rise = dy if axis == 0 else dx
    if rise == 0:
        return count
    slope = (dx if axis == 0 else dy) / rise
    third = triangles[front, 0] + triangles[front, 1] + triangles[front, 2] - va - vb
    is_inside_low = points[third, axis] - along < slope * (points[third, 1 - axis] - across)
    height, width = ids.shape
    lines, columns = (height, width) if axis == 0 else (width, height)
    first, last = first_centre(min(across, across_end), lines), last_centre(max(across, across_end), lines)
    for line in range(first, last + 1):
        crossing = along + slope * (line + 0.5 - across) - 0.5
        if not (0.0 <= crossing < columns - 1):
            continue
        low = int(crossing)
        inside, outside = (low, low + 1) if is_inside_low else (low + 1, low)
        row_in, column_in, row_out, column_out = line, inside, line, outside
        if axis == 1:
            row_in, column_in, row_out, column_out = inside, line, outside, line
        fraction = (line + 0.5 - across) / rise
        nearness = (1.0 - fraction) / points[va, 2] + fraction / points[vb, 2]
        if not is_visible_crossing(points, triangles, in_region, kind, nearness, ids, row_in, column_in, row_out, column_out, tolerance):
            continue
        slot = (axis * height + min(row_in, row_out)) * width + min(column_in, column_out)
        extent = np.float32(abs(crossing - inside))
        place = claim(slots, slot, extent, extents, count)
        if place < 0:
            continue
        if place == count:
            count += 1
            if place >= len(found):
                continue
            slots[slot] = place
        extents[place] = extent
        found[place, 0], found[place, 1], found[place, 2] = image, edge, axis
        found[place, 3], found[place, 4], found[place, 5], found[place, 6] = row_in, column_in, row_out, column_out
    return count


@njit(**_OPTIONS)
def find_edge_crossings(points, triangles, edges, edge_triangles, in_region, ids, tolerance, slots, found):
    """Fill found [*, 7] with (image, edge, axis, row in, column in, row out, column out); returns how many there are.

    axis 0: the two pixels are neighbours in a row, 1: in a column. Each pair of pixels is found once, for the edge farthest out.
    slots [2 h w] is scratch, -1 on entry. If `found` was too short, returns minus a length that suffices.
    """
    height, width = ids.shape[1:]
    extents = np.empty(len(found), np.float32)
    is_front = np.empty(len(triangles), np.bool_)
    count = 0
    for image in range(len(points)):
        start = count
        screen, seen = points[image], ids[image]
        mark_front_facing(screen, triangles, is_front)
        for edge in range(len(edges)):
            kind, front = classify_edge(is_front, in_region, edge_triangles[edge, 0], edge_triangles[edge, 1])
            if kind > 0:
                va, vb = edges[edge, 0], edges[edge, 1]
                count = cross_edge(
                    screen, triangles, in_region, seen, edge, va, vb, kind, front, image, tolerance, slots, extents, found, count
                )
        for place in range(start, min(count, len(found))):
            row, column = min(found[place, 3], found[place, 5]), min(found[place, 4], found[place, 6])
            slots[(found[place, 2] * height + row) * width + column] = -1
    return count if count <= len(found) else -count


@njit(**_OPTIONS)
def edge_position(points, image, va, vb, axis, row_in, column_in, row_out, column_out):
    """How far past the pixels' common border the edge lies (towards the outer one), the fraction along the edge, its extents, direction."""
    along_a, across_a = np.float64(points[image, va, axis]), np.float64(points[image, va, 1 - axis])
    run, rise = points[image, vb, axis] - along_a, points[image, vb, 1 - axis] - across_a
    inside, line = (column_in, row_in) if axis == 0 else (row_in, column_in)
    direction = (column_out - column_in) + (row_out - row_in)
    fraction = (line + 0.5 - across_a) / rise
    excess = (along_a + fraction * run - (inside + 0.5)) * direction - 0.5
    return excess, fraction, run, rise, direction


@njit(**_OPTIONS)
def blend_kernel(image, points, edges, crossings, blended):
    """Add to blended [b h w c], a copy of image on entry, the change at every crossing."""
    for n in range(len(crossings)):
        i, edge, axis = crossings[n, 0], crossings[n, 1], crossings[n, 2]
        row_in, column_in, row_out, column_out = crossings[n, 3], crossings[n, 4], crossings[n, 5], crossings[n, 6]
        excess = edge_position(points, i, edges[edge, 0], edges[edge, 1], axis, row_in, column_in, row_out, column_out)[0]
        row, column = (row_out, column_out) if excess > 0 else (row_in, column_in)
        for k in range(image.shape[3]):
            blended[i, row, column, k] += excess * (image[i, row_in, column_in, k] - image[i, row_out, column_out, k])


@njit(**_OPTIONS)
def blend_backward(image, points, edges, crossings, grad, grad_image, grad_points):
    """Add the gradient of `blend_kernel` to grad_image, a copy of grad on entry, and to grad_points."""
    for n in range(len(crossings)):
        i, edge, axis = crossings[n, 0], crossings[n, 1], crossings[n, 2]
        row_in, column_in, row_out, column_out = crossings[n, 3], crossings[n, 4], crossings[n, 5], crossings[n, 6]
        va, vb = edges[edge, 0], edges[edge, 1]
        excess, fraction, run, rise, direction = edge_position(points, i, va, vb, axis, row_in, column_in, row_out, column_out)
        row, column = (row_out, column_out) if excess > 0 else (row_in, column_in)
        grad_excess = 0.0
        for k in range(image.shape[3]):
            g = grad[i, row, column, k]
            grad_excess += g * (image[i, row_in, column_in, k] - image[i, row_out, column_out, k])
            grad_image[i, row_in, column_in, k] += excess * g
            grad_image[i, row_out, column_out, k] -= excess * g
        grad_along = grad_excess * direction
        grad_across = grad_along * run / rise
        grad_points[i, va, axis] += grad_along * (1.0 - fraction)
        grad_points[i, vb, axis] += grad_along * fraction
        grad_points[i, va, 1 - axis] -= grad_across * (1.0 - fraction)
        grad_points[i, vb, 1 - axis] -= grad_across * fraction
