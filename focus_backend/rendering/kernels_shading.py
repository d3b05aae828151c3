"""Compiled CPU kernels for shading: interpolation, texture lookup, lighting, sRGB encoding; the gradient is in its own module.

An image is worked row by row. What differs wildly from pixel to pixel (which triangle, which texels) is gathered into row buffers by a
scalar loop; lighting then runs over the buffers in loops that the compiler turns into vector instructions. Scalars are float64, buffers and
maps have the dtype of the inputs. `shading.shade_pixels_torch` is the same mathematics in plain torch. Importing this module imports
numba, so callers import it where they need it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
# Columns of the scalar row buffer `state`: barycentric coordinates (3), 1 / sum of the corner weights, depth, 1 / length of the normal,
# fractions between texel rows and columns, and 1 where the lookup is not clamped along rows and columns.
STATE = 10
# Columns of the row buffer `place`: image column, triangle, and the four texels: upper left, upper right, lower left, lower right.
PLACE = 6


@njit(**_OPTIONS)
def corner_weights(points, a, b, c, x, y):
    """Edge functions of a pixel over the corners' depths, their sum, and twice the triangle's area.

    Over their sum, the weights are the perspective-correct barycentric coordinates; area over sum is the depth.
    """
    x0, y0 = points[a, 0] - x, points[a, 1] - y
    x1, y1 = points[b, 0] - x, points[b, 1] - y
    x2, y2 = points[c, 0] - x, points[c, 1] - y
    w0, w1, w2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    q0, q1, q2 = w0 / points[a, 2], w1 / points[b, 2], w2 / points[c, 2]
    return q0, q1, q2, q0 + q1 + q2, w0 + w1 + w2


@njit(**_OPTIONS)
def blend3(values, a, b, c, b0, b1, b2, channel):
    """One channel of three vertices' values, weighted."""
    return b0 * values[a, channel] + b1 * values[b, channel] + b2 * values[c, channel]


@njit(**_OPTIONS)
def texel(position, size):
    """The two neighbouring texels of a (clamped) position, the fraction between them, and 1 where the position is not clamped."""
    inside = 1.0 if 0.0 <= position <= size - 1.0 else 0.0
    # A NaN position must not become an index.
    position = min(max(position, 0.0), size - 1.0) if position == position else 0.0
    low = min(int(position), max(size - 2, 0))
    return low, min(low + 1, size - 1), position - low, inside


@njit(**_OPTIONS)
def read_texel(texture, place, j, fr, fc, channel):
    """Bilinear lookup of one channel of texture [texels 3]."""
    upper = texture[place[j, 2], channel] * (1.0 - fc) + texture[place[j, 3], channel] * fc
    lower = texture[place[j, 4], channel] * (1.0 - fc) + texture[place[j, 5], channel] * fc
    return upper * (1.0 - fr) + lower * fr


@njit(**_OPTIONS)
def place_lookup(u, v, rows, columns, state, place, j):
    """Where a texture of rows x columns is read at (u, v), written to the row buffers."""
    c0, c1, fc, inside_column = texel(u * columns - 0.5, columns)
    r0, r1, fr, inside_row = texel((1.0 - v) * rows - 0.5, rows)
    state[j, 6], state[j, 7], state[j, 8], state[j, 9] = fr, fc, inside_row, inside_column
    place[j, 2], place[j, 3] = r0 * columns + c0, r0 * columns + c1
    place[j, 4], place[j, 5] = r1 * columns + c0, r1 * columns + c1


@njit(**_OPTIONS)
def gather_row(points, normals, texture, size, ids, row, triangles, uv, state, place, normal, value):
    """Fill the row buffers with the seen pixels of one row (unit normal [3 w], albedo value [3 w], `state`, `place`); returns how many.

    No views are made in the loop: each one would cost an atomic reference count.
    """
    count = 0
    for column in range(ids.shape[1]):
        t = ids[row, column]
        if t < 0:
            continue
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        q0, q1, q2, total, area = corner_weights(points, a, b, c, column + 0.5, row + 0.5)
        inverse = 1.0 / total
        b0, b1, b2 = q0 * inverse, q1 * inverse, q2 * inverse
        x = blend3(normals, a, b, c, b0, b1, b2, 0)
        y = blend3(normals, a, b, c, b0, b1, b2, 1)
        z = blend3(normals, a, b, c, b0, b1, b2, 2)
        scale = 1.0 / max(np.sqrt(x * x + y * y + z * z), 1e-12)
        normal[0, count], normal[1, count], normal[2, count] = x * scale, y * scale, z * scale
        u = b0 * uv[t, 0, 0] + b1 * uv[t, 1, 0] + b2 * uv[t, 2, 0]
        v = b0 * uv[t, 0, 1] + b1 * uv[t, 1, 1] + b2 * uv[t, 2, 1]
        place[count, 0], place[count, 1] = column, t
        place_lookup(u, v, size[0], size[1], state, place, count)
        state[count, 0], state[count, 1], state[count, 2] = b0, b1, b2
        state[count, 3], state[count, 4], state[count, 5] = inverse, area * inverse, scale
        for k in range(3):
            value[k, count] = read_texel(texture, place, count, state[count, 6], state[count, 7], k)
        count += 1
    return count


@njit(**_OPTIONS)
def fold_lighting(lighting, constants, polynomial):
    """Lighting [9 3] as coefficients of 1, y, z, x, xy, yz, zz, xz, xx - yy; `constants` [9] are those of the harmonics."""
    for k in range(3):
        for s in range(9):
            polynomial[s, k] = lighting[s, k] * constants[s]
        # The seventh harmonic is 3 zz - 1.
        polynomial[0, k] -= polynomial[6, k]
        polynomial[6, k] *= 3.0


@njit(**_OPTIONS)
def light_row(normal, polynomial, count, shading):
    """Fill shading [3 w] of the first `count` normals."""
    xs, ys, zs = normal[0], normal[1], normal[2]
    for k in range(3):
        p, out = polynomial[:, k], shading[k]
        p0, p1, p2, p3, p4, p5, p6, p7, p8 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        for j in range(count):
            x, y, z = xs[j], ys[j], zs[j]
            out[j] = p0 + y * (p1 + p4 * x + p5 * z - p8 * y) + z * (p2 + p6 * z + p7 * x) + x * (p3 + p8 * x)


@njit(**_OPTIONS)
def encode(linear, curve):
    """sRGB encoding of one value; `curve` holds (knee, slope, offset, 1 + offset, 1 / gamma, gamma) in the dtype of the value."""
    if linear <= curve[0]:
        return linear * curve[1]
    return curve[3] * linear ** curve[4] - curve[2]


@njit(**_OPTIONS)
def shade_kernel(
    points, normals, albedo, lighting, ids, triangles, uv, size, constants, curve, image, albedo_map, normal_map, barycentric, depth
):  # fmt: skip
    """Fill the five maps, zero on entry, at the pixels where ids >= 0. albedo is [b texels 3], `size` its (rows, columns)."""
    width = ids.shape[2]
    normal, value, shading = np.empty((3, width), image.dtype), np.empty((3, width), image.dtype), np.empty((3, width), image.dtype)
    state, place = np.empty((width, STATE)), np.empty((width, PLACE), np.int64)
    polynomial = np.empty((9, 3), image.dtype)
    for i in range(ids.shape[0]):
        fold_lighting(lighting[i], constants, polynomial)
        screen, directions, texture, seen = points[i], normals[i], albedo[i], ids[i]
        for row in range(ids.shape[1]):
            count = gather_row(screen, directions, texture, size, seen, row, triangles, uv, state, place, normal, value)
            light_row(normal, polynomial, count, shading)
            for j in range(count):
                column = place[j, 0]
                depth[i, row, column] = state[j, 4]
                for k in range(3):
                    barycentric[i, row, column, k] = state[j, k]
                    normal_map[i, row, column, k] = normal[k, j]
                    albedo_map[i, row, column, k] = value[k, j]
                    image[i, row, column, k] = encode(value[k, j] * shading[k, j], curve)


@njit(**_OPTIONS)
def locate_kernel(points, triangles, ids, barycentric):
    """Fill barycentric [b h w 3], zero on entry, at the pixels where ids >= 0."""
    for i in range(ids.shape[0]):
        screen = points[i]
        for row in range(ids.shape[1]):
            for column in range(ids.shape[2]):
                t = ids[i, row, column]
                if t < 0:
                    continue
                a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                q0, q1, q2, total, _ = corner_weights(screen, a, b, c, column + 0.5, row + 0.5)
                barycentric[i, row, column, 0] = q0 / total
                barycentric[i, row, column, 1] = q1 / total
                barycentric[i, row, column, 2] = q2 / total
