from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from focus_backend.errors import CameraError
from focus_backend.rendering import axis_angle_from_rotation, rotation_from_axis_angle
from rendering.reference import make_camera


def test_project_follows_the_convention():
    camera = make_camera(turn=(0.0, 0.0, 0.0))
    pixel = camera.project(torch.tensor([[9.0, 22.0, 100.0]], dtype=torch.float64))[0]
    # In camera space (10, 20, -100): right of and above the principal point.
    expected = camera.principal_point + torch.tensor([16.0, -32.0], dtype=torch.float64)
    torch.testing.assert_close(pixel, expected)


@pytest.mark.parametrize("bad", [200.0, 250.0, math.nan, math.inf])
def test_project_refuses_points_not_in_front(bad):
    camera = make_camera(turn=(0.0, 0.0, 0.0))
    points = torch.zeros(3, 3, dtype=torch.float64)
    points[1, 2] = bad
    with pytest.raises(CameraError):
        camera.project(points)


def test_to_screen_keeps_points_behind_finite_and_their_gradient():
    camera = make_camera()
    points = torch.tensor([[0.0, 0.0, -10.0], [1.0, 2.0, 0.0], [1.0, 2.0, 30.0]], dtype=torch.float64, requires_grad=True)
    screen = camera.to_screen(points)
    screen.sum().backward()
    assert screen.isfinite().all()
    assert points.grad.isfinite().all()
    assert (screen[1:, 2] <= 0).all()


def test_batched_camera_equals_single_ones():
    cameras = [make_camera(turn=(0.1 * i, 0.0, -0.2), focal=150.0 + i) for i in range(3)]
    points = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    names = ("rotation", "translation", "focal_length", "principal_point")
    together = type(cameras[0])(*(torch.stack([getattr(c, name) for c in cameras]) for name in names), 32, 24)
    pixels = together.project(points)
    for index, camera in enumerate(cameras):
        torch.testing.assert_close(pixels[index], camera.project(points[index]))
        torch.testing.assert_close(together[index].project(points[index]), pixels[index])
    with pytest.raises(CameraError):
        together.batched(2)


def test_resized_scales_and_shifts_pixels():
    camera = make_camera()
    points = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 20
    moved = camera.resized(50, 40, scale=1.7, offset=(3.0, -4.0))
    expected = camera.project(points) * 1.7 + torch.tensor([3.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(moved.project(points), expected)
    assert (moved.width, moved.height) == (50, 40)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.0099, 0.0101, 1.0, 3.0, math.pi - 1e-6])
def test_rotations_agree_with_scipy_both_ways(angle):
    axes = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=-1)
    rotation = rotation_from_axis_angle(axes * angle)
    expected = Rotation.from_rotvec((axes * angle).numpy()).as_matrix()
    torch.testing.assert_close(rotation, torch.from_numpy(expected), atol=1e-12, rtol=0)
    torch.testing.assert_close(axis_angle_from_rotation(rotation), axes * angle, atol=1e-9, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.005, 0.7])
def test_rotation_gradients(angle):
    vector = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64) * angle
    assert torch.autograd.gradcheck(rotation_from_axis_angle, vector.requires_grad_())
    round_trip = torch.autograd.functional.jacobian(lambda v: axis_angle_from_rotation(rotation_from_axis_angle(v)), vector.detach())
    torch.testing.assert_close(round_trip, torch.eye(3, dtype=torch.float64), atol=1e-8, rtol=0)
