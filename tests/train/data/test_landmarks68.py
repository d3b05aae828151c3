"""The 68 points from the points of a detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus_backend.errors import LandmarkError
from focus_backend.landmarks import create_detector
from focus_backend.landmarks.calibration import random_portraits
from focus_backend.landmarks.calibration_store import calibration_for
from focus_backend.landmarks.embedding import Embedding
from focus_backend.landmarks.landmarks68 import Landmarks68, affine_weights, mirrored68
from focus_backend.morphable.face_model import SurfacePoints
from focus_backend.morphable.store import load_model


@pytest.fixture(scope="module")
def anny():
    """The shipped face model."""
    return load_model("anny")


def embedding_of(model, triangles: torch.Tensor, indices: torch.Tensor) -> Embedding:
    """Points in the middle of triangles."""
    count = len(triangles)
    points = SurfacePoints(tuple(f"p{i}" for i in range(count)), triangles, torch.full((count, 3), 1 / 3))
    return Embedding("some", points, indices, torch.ones(count), ())


def places(model, points: SurfacePoints) -> np.ndarray:
    return points.on(model.mean_shape.double(), model.triangles).numpy()


def test_any_affine_view_carries_the_points_along(tiny_model):
    random = np.random.default_rng(0)
    indices = torch.arange(3, 63)
    embedding = embedding_of(tiny_model, torch.arange(0, 240, 4), indices)
    landmarks68 = Landmarks68.from_embedding(tiny_model, embedding, point_count=70)
    assert landmarks68.matrix.shape == (68, 70)
    np.testing.assert_allclose(landmarks68.matrix.sum(1), 1, atol=1e-9)
    matrix, shift = random.normal(size=(3, 2)), random.normal(size=2) * 100
    # Points without a place may be anywhere.
    points = random.normal(size=(70, 2)) * 1e3
    points[indices.numpy()] = places(tiny_model, embedding.points) @ matrix + shift
    expected = places(tiny_model, tiny_model.landmarks68) @ matrix + shift
    np.testing.assert_allclose(landmarks68(points), expected, atol=1e-5)


def test_weights_are_the_smallest_that_fit():
    random = torch.Generator().manual_seed(1)
    points, target = torch.randn(9, 3, generator=random).double(), torch.randn(3, generator=random).double()
    weights = affine_weights(target, points)
    system = torch.cat([torch.ones(1, 9).double(), points.T])
    torch.testing.assert_close(system @ weights, torch.cat([torch.ones(1).double(), target]))
    # The smallest solution has no part in the null space.
    torch.testing.assert_close(weights, torch.linalg.pinv(system) @ system @ weights)


def test_weights_of_flat_points_still_sum_to_one():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]).double()
    weights = affine_weights(torch.tensor([0.25, 0.5, 3.0]).double(), flat)
    assert weights.sum() == pytest.approx(1)
    torch.testing.assert_close(weights @ flat, torch.tensor([0.25, 0.5, 0.0]).double())


def test_too_few_points_are_said(tiny_model):
    with pytest.raises(LandmarkError, match="only 3 points of some"):
        Landmarks68.from_embedding(tiny_model, embedding_of(tiny_model, torch.arange(3), torch.arange(3)))
    landmarks68 = Landmarks68.from_embedding(tiny_model, embedding_of(tiny_model, torch.arange(20), torch.arange(20)))
    with pytest.raises(LandmarkError, match="19 points where the detector gives 20"):
        landmarks68(np.zeros((19, 2)))


def test_mirrored_points_are_those_across_the_face(anny):
    points = places(anny, anny.landmarks68)
    order = mirrored68()
    assert sorted(order) == list(range(68))
    assert (order[order] == np.arange(68)).all()
    across = points[order] * [-1, 1, 1]
    distance = np.linalg.norm(across[:, None] - points[None], axis=-1)
    assert np.linalg.norm(across - points, axis=1).max() < 2
    # And no other point is nearer.
    assert (distance.argmin(1) == np.arange(68)).all()


def test_on_renders_the_error_is_that_of_the_detector(anny):
    detector = create_detector("mediapipe")
    landmarks68 = Landmarks68.of(anny, calibration_for(anny, detector))
    errors = []
    for portrait in random_portraits(anny, 8, seed=77):
        found = detector.detect(portrait.pixels)
        if not found:
            continue
        surface = portrait.camera.to_camera_space(anny.landmarks68.on(portrait.vertices, anny.triangles))
        true = portrait.camera.to_screen(surface).numpy()
        millimetres = float(true[:, 2].mean() / portrait.camera.focal_length)
        errors.append(np.linalg.norm(landmarks68(found[0].points) - true[:, :2], axis=1) * millimetres)
    assert len(errors) >= 6
    # The detector's own points are 2.6 mm off on average, the outline of the jaw more; wrong by one index it would be 10.
    assert np.median(np.stack(errors)) < 3
    assert np.stack(errors)[:, 17:].mean() < 4.5
