from __future__ import annotations

import numpy as np
import pytest
import torch

from blender_addon.planning.environment import environment, equirectangular_directions, spherical_harmonics
from blender_addon.planning.frames import MODEL_TO_OBJECT
from focus_backend.rendering.lighting import shade


def reflection(radiance: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """What a white matte surface shows of the radiance: the integral, summed up."""
    directions, solid_angles = equirectangular_directions()
    cosines = np.maximum(normals @ directions.T, 0)
    return (cosines * solid_angles) @ radiance.reshape(-1, 3) / np.pi


def normals_everywhere(count: int = 200) -> np.ndarray:
    normals = np.random.default_rng(2).normal(size=(count, 3))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def shading(lighting: np.ndarray, rotation: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The backend's own, of normals in object space."""
    in_camera = normals @ MODEL_TO_OBJECT @ rotation.T
    return shade(torch.tensor(in_camera), torch.tensor(lighting)).numpy()


@pytest.fixture
def rotation() -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return turn * np.sign(np.linalg.det(turn))


def test_harmonics_are_the_backends():
    normals, lighting = normals_everywhere(), np.random.default_rng(1).normal(size=(9, 3))
    np.testing.assert_allclose(spherical_harmonics(normals) @ lighting, shade(torch.tensor(normals), torch.tensor(lighting)), atol=1e-12)


def test_directions_cover_the_sphere():
    directions, solid_angles = equirectangular_directions()
    basis = spherical_harmonics(directions)
    assert solid_angles.sum() == pytest.approx(4 * np.pi)
    np.testing.assert_allclose((basis * solid_angles[:, None]).T @ basis, np.eye(9), atol=5e-3)


def test_soft_light_is_reflected_as_the_lighting_says(rotation):
    lighting = np.random.default_rng(5).normal(0, 0.1, (9, 3))
    lighting[0] = 3
    radiance, normals = environment(lighting, rotation), normals_everywhere()
    assert radiance.shape == (32, 64, 3)
    assert radiance.min() > 0
    # 32 rows integrate the cosine's edge to half a percent.
    np.testing.assert_allclose(reflection(radiance, normals), shading(lighting, rotation, normals), rtol=6e-3)


def test_light_from_one_side_stays_positive_and_close(rotation):
    lighting = np.zeros((9, 3))
    # As bright as it can be on one side while the other gets nothing.
    lighting[0], lighting[2] = 2, 2 / np.sqrt(3)
    radiance, normals = environment(lighting, rotation), normals_everywhere()
    wanted = shading(lighting, rotation, normals)
    assert radiance.min() >= 0
    assert np.abs(reflection(radiance, normals) - wanted).max() < 0.05 * wanted.max()


def test_lighting_that_no_light_can_make_ends_in_something_finite(rotation):
    lighting = np.zeros((9, 3))
    lighting[0] = -3
    lighting[6] = 5
    radiance = environment(lighting, rotation)
    assert np.isfinite(radiance).all()
    assert radiance.min() >= 0
    assert radiance.max() < 100


def test_no_light_is_black(rotation):
    assert not environment(np.zeros((9, 3)), rotation).any()
