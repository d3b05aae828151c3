from __future__ import annotations

import numpy as np
import pytest

from blender_addon.planning import visibility
from blender_addon.planning.visibility import unseen_points

FOCAL = 500.0


def seen_from_origin(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of camera-space points."""
    depth = -points[..., 2]
    return FOCAL * points[..., :2] / depth[..., None], depth


def hidden_by_ray(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A slow truth: how far (mm) in front of each point the nearest triangle on its ray lies, and how near to an edge rays pass."""
    a, b, c = (triangles[:, k] for k in range(3))
    gap, edge = np.full(len(points), -np.inf), np.full(len(points), np.inf)
    for index, point in enumerate(points):
        for first, second, third in zip(a, b, c, strict=True):
            matrix = np.stack([point, first - second, first - third], axis=1)
            if abs(np.linalg.det(matrix)) < 1e-9:
                continue
            along, u, v = np.linalg.solve(matrix, first)
            margin = min(u, v, 1 - u - v)
            edge[index] = min(edge[index], abs(margin))
            if margin >= 0 and along > 0:
                gap[index] = max(gap[index], -point[2] * (1 - along))
    return gap, edge


def test_agrees_with_rays():
    random = np.random.default_rng(4)
    triangles = random.uniform([-60, -60, -700], [60, 60, -500], (12, 3, 3))
    points = random.uniform([-90, -90, -900], [90, 90, -450], (400, 3))
    unseen = unseen_points(*seen_from_origin(points), *seen_from_origin(triangles))
    gap, edge = hidden_by_ray(points, triangles)
    # Within a cell of an edge, or of the tolerance, either is right.
    clear = (edge > 0.06) & (np.abs(gap - visibility.TOLERANCE_MM) > 8)
    wanted = gap > visibility.TOLERANCE_MM
    assert 20 < wanted[clear].sum() < clear.sum() - 20
    np.testing.assert_array_equal(unseen[clear], wanted[clear])


def test_surface_does_not_hide_itself():
    # A steep plane, whose depth changes by several millimetres a cell.
    corners = np.array([[-50, -50, -500], [50, -50, -800], [50, 50, -800], [-50, 50, -500]], float)
    triangles = corners[[[0, 1, 2], [0, 2, 3]]]
    weights = np.random.default_rng(0).dirichlet(np.ones(4), 300)
    assert not unseen_points(*seen_from_origin(weights @ corners), *seen_from_origin(triangles)).any()


def test_points_behind_the_camera_are_unseen():
    points = np.array([[0, 0, 100.0], [0, 0, -100.0]])
    pixels, depth = np.zeros((2, 2)), -points[:, 2]
    assert unseen_points(pixels, depth, np.zeros((0, 3, 2)), np.zeros((0, 3))).tolist() == [True, False]


def test_triangles_behind_the_camera_hide_nothing():
    triangle = np.array([[[-9, -9], [9, -9], [0, 9]]], float)
    assert not unseen_points(np.zeros((1, 2)), np.array([100.0]), triangle, np.array([[-50.0, 50.0, 50.0]])).any()


def test_triangles_from_the_edge_hide_nothing():
    triangle = np.array([[[-9, 0], [9, 0], [3, 0]], [[-9, -9], [9, -9], [0, 9]]], float)
    depths = np.array([[50.0] * 3, [200.0] * 3])
    assert not unseen_points(np.array([[0.0, 0.0]]), np.array([100.0]), triangle, depths).any()


@pytest.mark.parametrize("count", [1, 300])
def test_many_large_triangles_need_no_more_memory(monkeypatch, count):
    monkeypatch.setattr(visibility, "MOST_CELLS", 500_000)
    triangle = np.repeat(np.array([[[-90, -90], [90, -90], [0, 90]]], float), count, axis=0)
    points = np.array([[0.0, 0.0], [80.0, 80.0]])
    unseen = unseen_points(points, np.array([100.0, 100.0]), triangle, np.full((count, 3), 50.0))
    assert unseen.tolist() == [True, False]


@pytest.mark.filterwarnings("error")
def test_points_as_far_off_as_those_behind_the_camera_get():
    triangle = np.array([[[-9, -9], [9, -9], [0, 9]]], float)
    points = np.array([[0.0, 0.0], [1e25, -1e25], [-1e25, 1e25]])
    unseen = unseen_points(points, np.array([100.0, 100.0, -1.0]), triangle, np.full((1, 3), 50.0))
    assert unseen.tolist() == [True, False, True]
