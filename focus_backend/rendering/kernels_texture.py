"""Compiled CPU kernels of texture baking: looking up the photo for every texel, and encoding the result.

Importing this module imports numba, so callers import it inside the function that needs it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from focus_backend.rendering.lighting import SH_BAND0, SH_BAND1, SH_BAND2, SH_BAND2_XX_YY, SH_BAND2_ZZ

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def smoothstep(value, low, high):
    """0 below low, 1 above high, smooth between."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(**_OPTIONS)
def shade_normal(lighting, x, y, z, channel):
    """One channel of the shading at a unit normal."""
    return (
        SH_BAND0 * lighting[0, channel]
        + SH_BAND1 * (y * lighting[1, channel] + z * lighting[2, channel] + x * lighting[3, channel])
        + SH_BAND2 * (x * y * lighting[4, channel] + y * z * lighting[5, channel] + x * z * lighting[7, channel])
        + SH_BAND2_ZZ * (3.0 * z * z - 1.0) * lighting[6, channel]
        + SH_BAND2_XX_YY * (x * x - y * y) * lighting[8, channel]
    )


@njit(**_OPTIONS)
def bilinear(picture, x, y, channel):
    """One channel of a picture at a pixel position (centres at +0.5), clamped to its border."""
    height, width = picture.shape[:2]
    x, y = min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0)
    column, row = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    right, below = min(column + 1, width - 1), min(row + 1, height - 1)
    fx, fy = x - column, y - row
    upper = picture[row, column, channel] * (1.0 - fx) + picture[row, right, channel] * fx
    lower = picture[below, column, channel] * (1.0 - fx) + picture[below, right, channel] * fx
    return upper * (1.0 - fy) + lower * fy


@njit(**_OPTIONS)
def read_photo(
    triangles,
    barycentric,
    face_weight,
    is_main,
    corners,
    positions,
    normals,
    lighting,
    camera,
    photo,
    trust,
    depth,
    albedo,
    limits,
    ratio,
    weight,
):
    """Log ratio of the photo's albedo to the model's, and how far to believe it, for every texel of the face that the photo shows.

    Args:
        triangles, barycentric, face_weight, is_main: of the atlas.
        corners: vertices of each triangle.
        positions, normals: of the vertices, camera space.
        lighting: spherical harmonics x RGB.
        camera: focal length, x and y of the principal point, in photo pixels; left and top of the cut-out, photo pixels; scale of
            `photo`; scale of `trust` and `depth`.
        photo: linear RGB cut-out.
        trust: probability that a pixel may be used, for the largest island and for the others.
        depth: of the nearest surface, infinite where there is none.
        albedo: the model's, linear RGB, at the atlas's size.
        limits: depth tolerance (mm); facing cosine that counts nothing and that counts fully; reference shading; shading (of the
            reference) that counts nothing and that counts fully; least albedo; lowest and highest log ratio.
        ratio, weight: results, zero where nothing is seen.
    """
    rows, columns = triangles.shape
    for row in range(rows):
        for column in range(columns):
            believed = face_weight[row, column]
            if believed <= 0.0:
                continue
            triangle = triangles[row, column]
            a, b, c = corners[triangle, 0], corners[triangle, 1], corners[triangle, 2]
            b0, b1, b2 = barycentric[row, column, 0], barycentric[row, column, 1], barycentric[row, column, 2]
            px = b0 * positions[a, 0] + b1 * positions[b, 0] + b2 * positions[c, 0]
            py = b0 * positions[a, 1] + b1 * positions[b, 1] + b2 * positions[c, 1]
            pz = b0 * positions[a, 2] + b1 * positions[b, 2] + b2 * positions[c, 2]
            nx = b0 * normals[a, 0] + b1 * normals[b, 0] + b2 * normals[c, 0]
            ny = b0 * normals[a, 1] + b1 * normals[b, 1] + b2 * normals[c, 1]
            nz = b0 * normals[a, 2] + b1 * normals[b, 2] + b2 * normals[c, 2]
            length = math.sqrt(nx * nx + ny * ny + nz * nz)
            if not (pz < 0.0 and length > 0.0):
                continue
            nx, ny, nz = nx / length, ny / length, nz / length
            facing = -(nx * px + ny * py + nz * pz) / math.sqrt(px * px + py * py + pz * pz)
            believed *= smoothstep(facing, limits[1], limits[2])
            x = camera[1] - camera[0] * px / pz - camera[3]
            y = camera[2] + camera[0] * py / pz - camera[4]
            gx, gy = x * camera[6], y * camera[6]
            if believed <= 0.0 or not (0.0 <= gx < depth.shape[1] and 0.0 <= gy < depth.shape[0]):
                continue
            if -pz > depth[int(gy), int(gx)] + limits[0]:
                continue
            believed *= bilinear(trust, gx, gy, 0 if is_main[triangle] else 1)
            # Shading, which takes long, only takes more away.
            if believed <= 1e-3:
                continue
            shade0, shade1, shade2 = (
                shade_normal(lighting, nx, ny, nz, 0),
                shade_normal(lighting, nx, ny, nz, 1),
                shade_normal(lighting, nx, ny, nz, 2),
            )
            brightness = (shade0 + shade1 + shade2) / 3.0
            believed *= smoothstep(brightness, limits[4] * limits[3], limits[5] * limits[3])
            if believed <= 1e-3:
                continue
            weight[row, column] = believed
            for channel in range(3):
                shade = shade0 if channel == 0 else (shade1 if channel == 1 else shade2)
                # Dark shading has no weight; a single dark channel must not explode either.
                shade = max(shade, 0.3 * brightness)
                colour = bilinear(photo, x * camera[5], y * camera[5], channel)
                seen = min(max(colour / shade, limits[6]), 1.0)
                value = math.log(seen / max(albedo[row, column, channel], limits[6]))
                ratio[row, column, channel] = min(max(value, limits[7]), limits[8])


@njit(**_OPTIONS)
def depth_of(ids, barycentric, corners, vertex_depth, depth):
    """Depth of each pixel's surface point; infinite where there is none."""
    rows, columns = ids.shape
    for row in range(rows):
        for column in range(columns):
            triangle = ids[row, column]
            value = np.inf
            if triangle >= 0:
                value = 0.0
                for corner in range(3):
                    value += barycentric[row, column, corner] * vertex_depth[corners[triangle, corner]]
            depth[row, column] = value


@njit(**_OPTIONS)
def temper_ratio(ratio, weight, centre, darker, brighter):
    """Bend the brightness of log ratios softly towards `centre`: at most `darker` below and `brighter` above it; hue stays."""
    middle = (centre[0] + centre[1] + centre[2]) / 3.0
    rows, columns = weight.shape
    for row in range(rows):
        for column in range(columns):
            if weight[row, column] > 0.0:
                excess = (ratio[row, column, 0] + ratio[row, column, 1] + ratio[row, column, 2]) / 3.0 - middle
                limit = brighter if excess > 0.0 else darker
                change = limit * excess / math.sqrt(limit * limit + excess * excess) - excess
                for channel in range(3):
                    ratio[row, column, channel] += change


@njit(**_OPTIONS)
def mix(values, weight, prior, colour, known, total):
    """Weighted mean of each texel's value and the global colour, and the sum of the weights."""
    rows, columns = weight.shape
    for row in range(rows):
        for column in range(columns):
            w = weight[row, column]
            p = prior[row, column] * (1.0 - w)
            total[row, column] = w + p
            for channel in range(3):
                known[row, column, channel] = (w * values[row, column, channel] + p * colour[channel]) / max(w + p, 1e-6)


@njit(**_OPTIONS)
def encode_product(albedo, ratio, curve, encoded):
    """sRGB bytes of albedo * exp(ratio); `curve` holds the bytes of (i / (len - 1))^2."""
    rows, columns = albedo.shape[:2]
    top = len(curve) - 1
    for row in range(rows):
        for column in range(columns):
            for channel in range(3):
                value = albedo[row, column, channel]
                change = ratio[row, column, channel]
                if change != 0.0:
                    value *= math.exp(change)
                value = min(max(value, 0.0), 1.0)
                encoded[row, column, channel] = curve[int(math.sqrt(value) * top + 0.5)]
