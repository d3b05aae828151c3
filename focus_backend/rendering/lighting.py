"""Spherical-harmonics lighting (9 coefficients x RGB on camera-space normals) and the sRGB transfer curve."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Orthonormal real spherical harmonics as polynomials of the unit normal.
SH_BAND0 = 0.5 / math.sqrt(math.pi)
SH_BAND1 = math.sqrt(3 / (4 * math.pi))
SH_BAND2 = math.sqrt(15 / (4 * math.pi))
SH_BAND2_ZZ = math.sqrt(5 / (16 * math.pi))
SH_BAND2_XX_YY = math.sqrt(15 / (16 * math.pi))

# IEC 61966-2-1.
SRGB_KNEE = 0.0031308
SRGB_SLOPE = 12.92
SRGB_OFFSET = 0.055
SRGB_GAMMA = 2.4


def spherical_harmonics(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """The first 9 orthonormal real spherical harmonics at unit normals.

    Order: 1; y, z, x; xy, yz, 3 z^2 - 1, xz, x^2 - y^2 (band by band, order m = -l..l).
    """
    x, y, z = normals.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, SH_BAND0),
            SH_BAND1 * y,
            SH_BAND1 * z,
            SH_BAND1 * x,
            SH_BAND2 * x * y,
            SH_BAND2 * y * z,
            SH_BAND2_ZZ * (3 * z * z - 1),
            SH_BAND2 * x * z,
            SH_BAND2_XX_YY * (x * x - y * y),
        ],
        dim=-1,
    )


def shade(normals: Float[Tensor, "*batch n 3"], lighting: Float[Tensor, "*batch 9 3"]) -> Float[Tensor, "*batch n 3"]:
    """Linear RGB shading sum_k l_k Y_k(n) at unit camera-space normals; radiance is albedo times this. May be negative."""
    return spherical_harmonics(normals) @ lighting


def ambient_lighting(intensity: float = 1.0, dtype: torch.dtype = torch.float32) -> Float[Tensor, "9 3"]:
    """Lighting whose shading is `intensity` on every normal."""
    lighting = torch.zeros(9, 3, dtype=dtype)
    lighting[0] = intensity / SH_BAND0
    return lighting


def encode_srgb(linear: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sRGB-encoded values of linear ones. Not clamped: linear below the knee (also below 0), the power curve also above 1."""
    is_low = linear <= SRGB_KNEE
    # The power's gradient is infinite at 0, so the untaken branch gets a harmless input.
    high = torch.where(is_low, torch.ones_like(linear), linear)
    return torch.where(is_low, SRGB_SLOPE * linear, (1 + SRGB_OFFSET) * high ** (1 / SRGB_GAMMA) - SRGB_OFFSET)


def decode_srgb(encoded: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear values of sRGB-encoded ones; the inverse of `encode_srgb` on all real numbers."""
    is_low = encoded <= SRGB_KNEE * SRGB_SLOPE
    high = torch.where(is_low, torch.ones_like(encoded), encoded)
    return torch.where(is_low, encoded / SRGB_SLOPE, ((high + SRGB_OFFSET) / (1 + SRGB_OFFSET)) ** SRGB_GAMMA)
