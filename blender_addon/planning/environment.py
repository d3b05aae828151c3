# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fitted lighting as light from every direction, as a world needs it."""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from ..shapes import Float, Float32
from .frames import MODEL_TO_OBJECT

ROWS, COLUMNS = 32, 64
# What a matte surface leaves of each band of the light, over pi (Ramamoorthi and Hanrahan 2001, equation 8).
REFLECTED = np.repeat([1.0, 2 / 3, 1 / 4], [1, 3, 5])
# Weight of radiance against reflection: small enough to change nothing that can be had, large enough to end where it cannot.
RIDGE = 1e-3
STEPS = 300


def environment(lighting: Float[ndarray, "9 3"], rotation: Float[ndarray, "3 3"]) -> Float32[ndarray, "rows columns 3"]:
    """Linear radiance, nowhere negative, whose reflection on matte surfaces is that of the lighting.

    A world of radiance L shows a matte surface of albedo a as a / pi * integral of L * cosine; each band of spherical harmonics loses
    `REFLECTED`, so the lighting's coefficients over these are a radiance that reflects as it says. Where that is negative it cannot
    just be cut off, for the rest would be too bright: of all radiances that are nowhere negative the one is taken whose reflected
    coefficients differ least from the lighting's, in the least squares, with the lowest energy.

    Args:
        lighting: coefficients of docs/conventions.md, camera space.
        rotation: model to camera space.

    Returns:
        Of every direction of object space, bottom row first: column u in (0, 1) is at azimuth pi - 2 pi u from x to y, row v at
        elevation pi (v - 1/2).
    """
    directions, solid_angles = equirectangular_directions()
    basis = spherical_harmonics(directions @ (rotation @ MODEL_TO_OBJECT.T).T)
    radiance = _nonnegative(lighting, basis * REFLECTED, solid_angles)
    return radiance.reshape(ROWS, COLUMNS, 3).astype(np.float32)


def spherical_harmonics(normals: Float[ndarray, "n 3"]) -> Float[ndarray, "n 9"]:
    """The first nine real, orthonormal spherical harmonics of unit vectors: 1; y, z, x; xy, yz, 3 z^2 - 1, xz, x^2 - y^2."""
    x, y, z = normals.T
    constant = math.sqrt(1 / (4 * math.pi))
    linear = math.sqrt(3) * constant
    mixed, zonal, sectoral = math.sqrt(15) * constant, math.sqrt(5) / 2 * constant, math.sqrt(15) / 2 * constant
    return np.stack(
        [
            np.full_like(x, constant),
            *(linear * y, linear * z, linear * x),
            *(mixed * x * y, mixed * y * z, zonal * (3 * z * z - 1), mixed * x * z, sectoral * (x * x - y * y)),
        ],
        axis=1,
    )


def equirectangular_directions() -> tuple[Float[ndarray, "pixels 3"], Float[ndarray, "pixels"]]:
    """Unit vectors of the pixels as Blender maps them, bottom row first, and their solid angles."""
    azimuth = math.pi - 2 * math.pi * (np.arange(COLUMNS) + 0.5) / COLUMNS
    elevation = math.pi * ((np.arange(ROWS) + 0.5) / ROWS - 0.5)
    elevation, azimuth = (grid.ravel() for grid in np.meshgrid(elevation, azimuth, indexing="ij"))
    directions = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1)
    solid_angles = np.cos(elevation)
    return directions, solid_angles * (4 * math.pi / solid_angles.sum())


def _nonnegative(
    reflected: Float[ndarray, "9 3"], basis: Float[ndarray, "pixels 9"], solid_angles: Float[ndarray, "pixels"]
) -> Float[ndarray, "pixels 3"]:
    """The radiance x >= 0 that minimises |basis^T W x - reflected|^2 + ridge |x|^2, W the solid angles.

    Its dual has nine unknowns a colour and x = max(0, basis @ dual); climbed by steps of 1, which are safe for the basis is at most
    orthonormal.
    """
    dual = reflected / REFLECTED[:, None] ** 2
    weighted = (basis * solid_angles[:, None]).T
    for _ in range(STEPS):
        radiance = np.maximum(basis @ dual, 0)
        dual = dual + reflected - weighted @ radiance - RIDGE * dual
    return np.maximum(basis @ dual, 0)
