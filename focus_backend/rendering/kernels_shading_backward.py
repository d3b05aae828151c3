"""Compiled CPU kernel for the gradient of `kernels_shading.shade_kernel`; it recomputes what the forward pass knew instead of storing it.

An empty array stands for a gradient that is not given (inputs) or not wanted (`grad_albedo`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from focus_backend.rendering.kernels_normals import add3
from focus_backend.rendering.kernels_shading import _OPTIONS, PLACE, STATE, fold_lighting, gather_row, light_row


@njit(**_OPTIONS)
def color_row(value, shading, encoded, grad_image, curve, count, grad_value, grad_shading):
    """Through sRGB and albedo times shading, for a row: fills grad_value [3 w] and grad_shading [3 w]."""
    knee, slope, offset, gamma = curve[0], curve[1], curve[2], curve[5]
    for k in range(3):
        for j in range(count):
            linear = value[k, j] * shading[k, j]
            # The power curve's slope from both of its sides, so that no power is needed.
            rate = slope if linear <= knee else (encoded[k, j] + offset) / (gamma * linear)
            grad_linear = grad_image[k, j] * rate
            grad_value[k, j] = grad_linear * shading[k, j]
            grad_shading[k, j] = grad_linear * value[k, j]


@njit(**_OPTIONS)
def normal_gradient_row(normal, polynomial, grad_shading, count, grad_normal):
    """Fill grad_normal [3 w] with the gradient that lighting sends to the unit normals of a row."""
    xs, ys, zs, gx, gy, gz = normal[0], normal[1], normal[2], grad_normal[0], grad_normal[1], grad_normal[2]
    gx[:count] = 0
    gy[:count] = 0
    gz[:count] = 0
    for k in range(3):
        p, grad = polynomial[:, k], grad_shading[k]
        p1, p2, p3, p4, p5, p6, p7, p8 = p[1], p[2], p[3], p[4], p[5], p[6] + p[6], p[7], p[8] + p[8]
        for j in range(count):
            x, y, z, g = xs[j], ys[j], zs[j], grad[j]
            gx[j] += g * (p3 + p4 * y + p7 * z + p8 * x)
            gy[j] += g * (p1 + p4 * x + p5 * z - p8 * y)
            gz[j] += g * (p2 + p5 * y + p7 * x + p6 * z)


# Sums may be reordered here, which lets them be vectorized; the order is fixed when the code is compiled.
@njit(fastmath={"reassoc", "contract", "nsz"}, **_OPTIONS)
def lighting_gradient_row(normal, grad_shading, count, zero, sums):
    """Add the gradients of the polynomial's nine coefficients to sums [9 3]; `zero` has the dtype of the buffers."""
    xs, ys, zs = normal[0], normal[1], normal[2]
    for k in range(3):
        grad = grad_shading[k]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = zero
        for j in range(count):
            x, y, z, g = xs[j], ys[j], zs[j], grad[j]
            gx, gy, gz = g * x, g * y, g * z
            s0 += g
            s1 += gy
            s2 += gz
            s3 += gx
            s4 += gx * y
            s5 += gy * z
            s6 += gz * z
            s7 += gx * z
            s8 += gx * x - gy * y
        total = sums[:, k]
        total[0] += s0
        total[1] += s1
        total[2] += s2
        total[3] += s3
        total[4] += s4
        total[5] += s5
        total[6] += s6
        total[7] += s7
        total[8] += s8


@njit(**_OPTIONS)
def texture_backward(texture, size, state, place, j, g0, g1, g2, grad_texture):
    """Through one lookup: adds to grad_texture [texels 3] (unless empty), returns the gradient to (u, v)."""
    fr, fc = state[j, 6], state[j, 7]
    t00, t01, t10, t11 = place[j, 2], place[j, 3], place[j, 4], place[j, 5]
    if len(grad_texture) > 0:
        w00, w01, w10, w11 = (1.0 - fr) * (1.0 - fc), (1.0 - fr) * fc, fr * (1.0 - fc), fr * fc
        add3(grad_texture, t00, w00 * g0, w00 * g1, w00 * g2)
        add3(grad_texture, t01, w01 * g0, w01 * g1, w01 * g2)
        add3(grad_texture, t10, w10 * g0, w10 * g1, w10 * g2)
        add3(grad_texture, t11, w11 * g0, w11 * g1, w11 * g2)
    d00 = g0 * texture[t00, 0] + g1 * texture[t00, 1] + g2 * texture[t00, 2]
    d01 = g0 * texture[t01, 0] + g1 * texture[t01, 1] + g2 * texture[t01, 2]
    d10 = g0 * texture[t10, 0] + g1 * texture[t10, 1] + g2 * texture[t10, 2]
    d11 = g0 * texture[t11, 0] + g1 * texture[t11, 1] + g2 * texture[t11, 2]
    along_u = ((d01 - d00) * (1.0 - fr) + (d11 - d10) * fr) * size[1] * state[j, 9]
    along_v = -((d10 - d00) * (1.0 - fc) + (d11 - d01) * fc) * size[0] * state[j, 8]
    return along_u, along_v


@njit(**_OPTIONS)
def tangent(normal, grad_normal, state, j):
    """Gradient of the interpolated normal before its normalisation."""
    x, y, z = normal[0, j], normal[1, j], normal[2, j]
    gx, gy, gz = grad_normal[0, j], grad_normal[1, j], grad_normal[2, j]
    along, scale = x * gx + y * gy + z * gz, state[j, 5]
    return (gx - along * x) * scale, (gy - along * y) * scale, (gz - along * z) * scale


@njit(**_OPTIONS)
def corner_backward(normals, corner, weight, gx, gy, gz, uv, t, k, along_u, along_v, grad_normals):
    """Add one corner's share to grad_normals [v 3]; returns the gradient to its barycentric coordinate."""
    add3(grad_normals, corner, weight * gx, weight * gy, weight * gz)
    by_normal = normals[corner, 0] * gx + normals[corner, 1] * gy + normals[corner, 2] * gz
    return by_normal + uv[t, k, 0] * along_u + uv[t, k, 1] * along_v


@njit(**_OPTIONS)
def position_backward(points, a, b, c, x, y, state, j, grad0, grad1, grad2, grad_depth, grad_points):
    """Through the barycentric coordinates (their gradients given) and depth of one pixel: adds to grad_points [v 3]."""
    x0, y0, i0 = points[a, 0] - x, points[a, 1] - y, 1.0 / points[a, 2]
    x1, y1, i1 = points[b, 0] - x, points[b, 1] - y, 1.0 / points[b, 2]
    x2, y2, i2 = points[c, 0] - x, points[c, 1] - y, 1.0 / points[c, 2]
    b0, b1, b2, inverse = state[j, 0], state[j, 1], state[j, 2], state[j, 3]
    common = grad0 * b0 + grad1 * b1 + grad2 * b2 + grad_depth * state[j, 4]
    # To the corner weights (edge function over depth) first, times 1 / depth of the corner.
    h0, h1, h2 = (grad0 - common) * i0, (grad1 - common) * i1, (grad2 - common) * i2
    grad_area = grad_depth * inverse
    g0, g1, g2 = h0 * inverse + grad_area, h1 * inverse + grad_area, h2 * inverse + grad_area
    add3(grad_points, a, g2 * y1 - g1 * y2, g1 * x2 - g2 * x1, -h0 * b0)
    add3(grad_points, b, g0 * y2 - g2 * y0, g2 * x0 - g0 * x2, -h1 * b1)
    add3(grad_points, c, g1 * y0 - g0 * y1, g0 * x1 - g1 * x0, -h2 * b2)


@njit(**_OPTIONS)
def add_row(grads, place, count, target):
    """target [3 w] += the given map's row [w 3] at the seen pixels."""
    for j in range(count):
        for k in range(3):
            target[k, j] += grads[place[j, 0], k]


@njit(**_OPTIONS)
def spread_row(
    points, normals, texture, size, row, triangles, uv, state, place, count, normal, grad_value, grad_normal,
    grad_barycentric, grad_depth, grad_points, grad_normals, grad_texture,
):  # fmt: skip
    """Send a row's gradients of albedo value, unit normal, barycentric coordinates and depth on to vertices and texture."""
    for j in range(count):
        column, t = place[j, 0], place[j, 1]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u, v = texture_backward(texture, size, state, place, j, grad_value[0, j], grad_value[1, j], grad_value[2, j], grad_texture)
        gx, gy, gz = tangent(normal, grad_normal, state, j)
        grad0 = corner_backward(normals, a, state[j, 0], gx, gy, gz, uv, t, 0, u, v, grad_normals)
        grad1 = corner_backward(normals, b, state[j, 1], gx, gy, gz, uv, t, 1, u, v, grad_normals)
        grad2 = corner_backward(normals, c, state[j, 2], gx, gy, gz, uv, t, 2, u, v, grad_normals)
        if grad_barycentric.size > 0:
            grad0 += grad_barycentric[0, row, column, 0]
            grad1 += grad_barycentric[0, row, column, 1]
            grad2 += grad_barycentric[0, row, column, 2]
        grad_here = grad_depth[0, row, column] if grad_depth.size > 0 else 0.0
        position_backward(points, a, b, c, column + 0.5, row + 0.5, state, j, grad0, grad1, grad2, grad_here, grad_points)


@njit(**_OPTIONS)
def unfold_lighting(sums, constants, grad_lighting):
    """Add to the gradient of lighting [9 3] that of its folded polynomial."""
    for k in range(3):
        for s in range(9):
            grad = sums[s, k] if s != 6 else 3.0 * sums[6, k] - sums[0, k]
            grad_lighting[s, k] += grad * constants[s]


@njit(**_OPTIONS)
def shade_backward(
    points, normals, albedo, lighting, ids, triangles, uv, size, constants, curve, image,
    grad_image, grad_albedo_map, grad_normal_map, grad_barycentric, grad_depth,
    grad_points, grad_normals, grad_albedo, grad_lighting,
):  # fmt: skip
    """Add the gradient of `shade_kernel` to grad_points, grad_normals, grad_albedo and grad_lighting."""
    buffers = np.empty((8, 3, ids.shape[2]), image.dtype)
    normal, value, shading, encoded = buffers[0], buffers[1], buffers[2], buffers[3]
    grad_row, grad_value, grad_shading, grad_normal = buffers[4], buffers[5], buffers[6], buffers[7]
    state, place = np.empty((ids.shape[2], STATE)), np.empty((ids.shape[2], PLACE), np.int64)
    polynomial = np.empty((9, 3), image.dtype)
    zero = curve[0] - curve[0]
    for i in range(ids.shape[0]):
        fold_lighting(lighting[i], constants, polynomial)
        sums = np.zeros((9, 3))
        screen, directions, texture, seen = points[i], normals[i], albedo[i], ids[i]
        grad_screen, grad_directions = grad_points[i], grad_normals[i]
        grad_texture = grad_albedo[i] if len(grad_albedo) > 0 else np.empty((0, 3), albedo.dtype)
        # A slice of an absent gradient is empty, as `spread_row` expects.
        grad_weights, grad_depths = grad_barycentric[i : i + 1], grad_depth[i : i + 1]
        for row in range(ids.shape[1]):
            count = gather_row(screen, directions, texture, size, seen, row, triangles, uv, state, place, normal, value)
            if count == 0:
                continue
            light_row(normal, polynomial, count, shading)
            encoded[:, :count] = 0
            grad_row[:, :count] = 0
            add_row(image[i, row], place, count, encoded)
            add_row(grad_image[i, row], place, count, grad_row)
            color_row(value, shading, encoded, grad_row, curve, count, grad_value, grad_shading)
            normal_gradient_row(normal, polynomial, grad_shading, count, grad_normal)
            lighting_gradient_row(normal, grad_shading, count, zero, sums)
            if grad_albedo_map.size > 0:
                add_row(grad_albedo_map[i, row], place, count, grad_value)
            if grad_normal_map.size > 0:
                add_row(grad_normal_map[i, row], place, count, grad_normal)
            spread_row(
                screen, directions, texture, size, row, triangles, uv, state, place, count, normal, grad_value, grad_normal,
                grad_weights, grad_depths, grad_screen, grad_directions, grad_texture,
            )  # fmt: skip
        unfold_lighting(sums, constants, grad_lighting[i])
