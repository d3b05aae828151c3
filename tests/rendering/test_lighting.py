from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from focus_backend.rendering import ambient_lighting, decode_srgb, encode_srgb, shade, spherical_harmonics
from rendering.reference import make_lighting, real_harmonics


def _unit(count, seed=0):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(points, dim=-1)


def test_harmonics_are_the_textbook_ones():
    normals = _unit(10)
    expected = torch.tensor([real_harmonics(*normal.tolist()) for normal in normals], dtype=torch.float64)
    torch.testing.assert_close(spherical_harmonics(normals), expected)


def test_harmonics_are_orthonormal_on_the_sphere():
    # Gauss-Legendre in z times equal steps in azimuth integrates degree 4 exactly.
    z, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
    azimuth = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    radius = (1 - z**2).sqrt()[:, None]
    points = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z[:, None].expand(-1, 16)], dim=-1)
    basis = spherical_harmonics(points)
    gram = torch.einsum("ijk,ijl,i->kl", basis, basis, weights) * (2 * math.pi / 16)
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=1e-12, rtol=0)


def test_shade_of_ambient_light_and_of_a_batch():
    normals = _unit(12).view(3, 4, 3)
    torch.testing.assert_close(shade(normals[0], ambient_lighting(0.8, torch.float64)), torch.full((4, 3), 0.8, dtype=torch.float64))
    lighting = torch.stack([make_lighting() * (1 + i) for i in range(3)])
    torch.testing.assert_close(shade(normals, lighting)[2], shade(normals[2], lighting[2]))


def test_srgb_known_values_and_inverse():
    linear = torch.tensor([-0.2, 0.0, 0.0031308, 0.0031309, 0.2, 0.5, 1.0, 1.7], dtype=torch.float64)
    encoded = encode_srgb(linear)
    torch.testing.assert_close(encoded[[1, 5, 6]], torch.tensor([0.0, 0.735357, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(decode_srgb(encoded), linear, atol=1e-6, rtol=0)


@pytest.mark.parametrize("function", [encode_srgb, decode_srgb])
def test_srgb_gradients_are_finite_and_right(function):
    values = torch.tensor([-1.0, -1e-3, 0.0, 1e-12, 1e-3, 0.02, 0.3, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, values)
