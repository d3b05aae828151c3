from __future__ import annotations

import numpy as np
import pytest

from blender_addon.planning.frames import camera_matrix, camera_points, object_points, project

FOCAL, CENTRE = 790.0, np.array([250.0, 261.0])


@pytest.fixture
def pose() -> tuple[np.ndarray, np.ndarray]:
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return turn * np.sign(np.linalg.det(turn)), np.array([-46.0, 235.0, -700.0])


def test_axes_and_unit():
    left, up, out = object_points(1000 * np.eye(3), 1.0)
    np.testing.assert_allclose(left, [1, 0, 0])
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(out, [0, -1, 0], atol=1e-7)


def test_axes_are_not_mirrored():
    assert np.linalg.det(object_points(1000 * np.eye(3), 1.0)) == pytest.approx(1)


def test_batches_of_offsets_are_scaled_each():
    offsets = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(object_points(offsets, 2.0)[2], object_points(offsets[2], 2.0))
    assert object_points(offsets, 2.0).dtype == np.float32


@pytest.mark.parametrize("unit_scale", [1.0, 100.0, 0.01])
def test_pixels_of_object_space_are_those_of_model_space(pose, unit_scale):
    rotation, translation = pose
    points = np.random.default_rng(1).normal(size=(50, 3)) * 80
    # docs/conventions.md, word by word.
    x, y, z = (rotation @ points.T + translation[:, None]).astype(float)
    wanted = np.stack([CENTRE[0] + FOCAL * x / -z, CENTRE[1] - FOCAL * y / -z], axis=1)

    to_camera = np.linalg.inv(camera_matrix(rotation, translation, unit_scale).astype(float))
    seen = object_points(points, unit_scale) @ to_camera[:3, :3].T + to_camera[:3, 3]
    pixels, depth = project(seen, FOCAL, CENTRE)
    np.testing.assert_allclose(pixels, wanted, atol=1e-3)
    np.testing.assert_allclose(depth, -z * 0.001 * unit_scale, rtol=1e-5)


def test_matrix_is_a_rigid_pose(pose):
    matrix = camera_matrix(*pose, 100.0)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(matrix[3], [0, 0, 0, 1])


def test_head_straight_ahead_is_seen_from_in_front():
    matrix = camera_matrix(np.eye(3), np.array([0, 0, -600.0]), 1.0)
    np.testing.assert_allclose(matrix[:3, 3], [0, -0.6, 0], atol=1e-7)
    np.testing.assert_allclose(-matrix[:3, 2], [0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(matrix[:3, 1], [0, 0, 1], atol=1e-7)


def test_points_behind_the_camera_have_negative_depth(pose):
    rotation, translation = pose
    behind = camera_points(np.array([[0.0, 0.0, 0.0]]), rotation, -translation)
    pixels, depth = project(behind, FOCAL, CENTRE)
    assert depth[0] < 0
    assert np.isfinite(pixels).all()
