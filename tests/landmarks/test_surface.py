"""Places on a mesh against plain geometry."""

from __future__ import annotations

import math

import torch

from focus_backend.landmarks.surface import hit_points, nearest_points
from focus_backend.rendering.camera import Camera
from focus_backend.rendering.rasterize import rasterize


def _at(triangles, barycentric, corners):
    return (corners[triangles] * barycentric[:, :, None]).sum(1)


def test_nearest_points_beat_every_sample_of_the_surface():
    random = torch.Generator().manual_seed(0)
    corners = torch.randn(40, 3, 3, generator=random, dtype=torch.float64)
    points = 2 * torch.randn(70, 3, generator=random, dtype=torch.float64)
    triangles, barycentric = nearest_points(points, corners)
    assert barycentric.min() > -1e-9
    assert torch.allclose(barycentric.sum(1), torch.ones(70, dtype=torch.float64))
    found = (_at(triangles, barycentric, corners) - points).norm(dim=1)
    weights = torch.distributions.Dirichlet(torch.full((3,), 0.7, dtype=torch.float64)).sample((3000,))
    samples = torch.einsum("sk,fkc->sfc", weights, corners).flatten(0, 1)
    sampled = torch.cdist(points, samples).min(1).values
    assert (found <= sampled + 1e-12).all()
    # Samples come close to the true distance, so it cannot be far below.
    assert (sampled - found).max() < 0.15


def test_points_of_the_surface_are_their_own_nearest():
    corners = torch.randn(30, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = corners.mean(1)
    triangles, barycentric = nearest_points(points, corners)
    assert torch.allclose(_at(triangles, barycentric, corners), points)


def test_degenerate_triangles_do_no_harm():
    corners = torch.zeros(2, 3, 3, dtype=torch.float64)
    corners[1] += torch.eye(3, dtype=torch.float64)
    triangles, barycentric = nearest_points(torch.ones(1, 3, dtype=torch.float64), corners)
    assert triangles.tolist() == [1]
    assert barycentric.isfinite().all()


def test_hits_project_back_to_their_pixels(tiny_model):
    camera = Camera(torch.eye(3), torch.tensor([0.0, 0.0, -700.0]), torch.tensor(600.0), torch.tensor([128.0, 128.0]), 256, 256)
    screen = camera.to_screen(camera.to_camera_space(tiny_model.mean_shape))
    ids = rasterize(screen[None], tiny_model.triangles, 256, 256)[0]
    pixels = torch.tensor([[128.3, 120.8], [110.2, 140.1], [3.0, 3.0], [-5.0, 20.0], [300.0, math.pi]], dtype=torch.float64)
    hit, barycentric = hit_points(pixels, screen.double(), tiny_model.triangles, ids)
    assert (hit[:2] >= 0).all()
    assert hit[2:].tolist() == [-1, -1, -1]
    places = _at(hit[:2], barycentric[:2].float(), tiny_model.mean_shape[tiny_model.triangles])
    assert (camera.project(places) - pixels[:2]).abs().max() < 0.05
