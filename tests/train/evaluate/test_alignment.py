"""Similarities and scan-to-mesh distances on meshes small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from focus_backend.errors import FocusError
from train.evaluate.alignment import Similarity, Surface, closest_point_rounds, fit_similarity, refine
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import Mesh
from train.evaluate.shape_error import crop_scan, crop_sphere, scan_to_mesh

# Subject's right eye outer and inner, left eye inner and outer, nose bottom, mouth corners; mm.
SEVEN = np.array([[-45.0, 0, 0], [-15, 0, 5], [15, 0, 5], [45, 0, 0], [0, -40, 20], [-25, -65, 8], [25, -65, 8]])


def bumpy_face(size: int = 41) -> Mesh:
    """A curved sheet of 200 mm with bumps, so that no turn or shift leaves it as it is."""
    x, y = np.meshgrid(np.linspace(-100, 100, size), np.linspace(-120, 80, size))
    z = 40 - (x**2 + y**2) / 300 + 8 * np.sin(x / 17) * np.cos(y / 23) + 4 * np.sin(y / 11)
    corner = np.arange(size * size).reshape(size, size)
    a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def similarity(scale: float, turn: list[float], move: list[float]) -> Similarity:
    return Similarity(scale, Rotation.from_rotvec(turn).as_matrix(), np.array(move))


def test_a_known_similarity_is_found_again():
    known = similarity(3.5, [0.4, -1.1, 0.7], [10.0, -200.0, 33.0])
    found = fit_similarity(SEVEN, known.apply(SEVEN))
    assert found.scale == pytest.approx(3.5)
    np.testing.assert_allclose(found.rotation, known.rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, known.translation, atol=1e-9)
    np.testing.assert_allclose(known.undo(known.apply(SEVEN)), SEVEN, atol=1e-10)


def test_a_mirror_image_is_not_aligned_by_mirroring():
    found = fit_similarity(SEVEN, SEVEN * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_points_that_are_all_one_cannot_be_aligned():
    with pytest.raises(EvaluationError, match="all the same"):
        fit_similarity(np.ones((7, 3)), SEVEN)


def test_distance_to_two_triangles_by_hand():
    square = Mesh(np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))
    distance, triangle, nearest = Surface(square).closest(np.array([[7.0, 2, 3], [2, 7, -4], [13, 14, 0]]))
    np.testing.assert_allclose(distance, [3, 4, 5])
    assert triangle[:2].tolist() == [0, 1]
    np.testing.assert_allclose(nearest, [[7, 2, 0], [2, 7, 0], [10, 10, 0]], atol=1e-12)


def test_a_mesh_of_points_alone_has_no_surface():
    with pytest.raises(EvaluationError, match="no faces"):
        Surface(Mesh(SEVEN, np.zeros((0, 3), dtype=np.int64)))


def test_refinement_finds_a_disturbed_mesh_again():
    face = bumpy_face()
    scan = face.vertices[np.linalg.norm(face.vertices[:, :2], axis=1) < 70]
    away = similarity(1.04, [0.03, -0.05, 0.04], [2.0, -3.0, 1.5])
    found = refine(Surface(face), scan, away)
    assert np.abs(found.undo(scan) - scan).max() < 1e-3


def test_refinement_gains_on_rounds_of_closest_points():
    face = bumpy_face()
    scan = face.vertices[np.linalg.norm(face.vertices[:, :2], axis=1) < 70] + 0.5 * np.random.default_rng(0).normal(size=3)
    surface, start = Surface(face), similarity(1.04, [0.03, -0.05, 0.04], [2.0, -3.0, 1.5])

    def cost(found: Similarity) -> float:
        return float(((surface.closest(found.undo(scan))[0] * found.scale) ** 2).mean())

    rounds = [cost(closest_point_rounds(surface, scan, start, count)) for count in (0, 1, 4, 12)]
    assert rounds == sorted(rounds, reverse=True)
    assert cost(refine(surface, scan, start)) < rounds[-1]


def test_crop_sphere_by_hand():
    centre, radius = crop_sphere(SEVEN)
    # Nose bridge (0, 0, 5), bottom (0, -40, 20): length sqrt(1600 + 225); outer eye corners are 90 apart.
    np.testing.assert_allclose(centre, [0, -28, 15.5])
    assert radius == pytest.approx(1.4 * (90 + np.sqrt(1825)) / 2)


def test_crop_refuses_landmarks_that_are_elsewhere():
    with pytest.raises(EvaluationError, match="scan of nobody"):
        crop_scan(bumpy_face().vertices + 1000.0, SEVEN, "scan of nobody")


@pytest.mark.parametrize("refinement", ["converged", "rounds"])
def test_the_scan_itself_has_no_error_in_any_unit_and_place(refinement):
    face = bumpy_face()
    scan = crop_scan(face.vertices, SEVEN)
    for change in (similarity(1.0, [0.0] * 3, [0.0] * 3), similarity(0.001, [0.2, 2.0, -0.5], [5.0, 6.0, 7.0])):
        moved = Mesh(change.apply(face.vertices), face.triangles)
        assert scan_to_mesh(scan, moved, change.apply(SEVEN), refinement).max() < 1e-6


@pytest.mark.parametrize("refinement", ["converged", "rounds"])
def test_scale_of_the_prediction_does_not_matter(refinement):
    face, scan = bumpy_face(), crop_scan(bumpy_face(53).vertices, SEVEN)
    bent = face.vertices + np.stack([np.zeros(len(face.vertices)), np.zeros(len(face.vertices)), 3 * np.sin(face.vertices[:, 0] / 30)], 1)
    once = scan_to_mesh(scan, Mesh(bent, face.triangles), SEVEN, refinement)
    thousandth = scan_to_mesh(scan, Mesh(bent / 1000, face.triangles), SEVEN / 1000, refinement)
    assert once.mean() > 0.1
    np.testing.assert_allclose(once, thousandth, atol=1e-6)


def test_a_step_in_a_plane_scan_is_measured():
    """A plane fitted to points half a millimetre above and below it keeps that distance from each."""
    plane = Mesh(np.array([[-500.0, -500, 0], [500, -500, 0], [500, 500, 0], [-500, 500, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))
    x, y = np.meshgrid(np.arange(-40.0, 41, 2), np.arange(-70.0, 11, 2))
    height = np.where((np.arange(x.size) % 2 == 0).reshape(x.shape), 0.5, -0.5)
    flat = SEVEN * [1, 1, 0]
    scan = crop_scan(np.stack([x, y, height], -1).reshape(-1, 3), flat)
    distances = scan_to_mesh(scan, plane, flat)
    assert distances.mean() == pytest.approx(0.5, abs=0.01)


def test_errors_are_of_the_focus_tree_and_cross_processes():
    import pickle

    error = pickle.loads(pickle.dumps(EvaluationError("a scan is damaged", "get it again")))
    assert isinstance(error, FocusError)
    assert (error.problem, error.remedy) == ("a scan is damaged", "get it again")
