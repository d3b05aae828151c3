"""Placing a detector's points on a model, and keeping the result."""

from __future__ import annotations

import pytest
import torch

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.embedding import embed
from focus_backend.morphable.store import load_model
from focus_backend.rendering import Camera
from spots import COLOURS, SpotDetector


def test_points_are_placed_where_they_were_painted(spotted):
    model, truth = spotted
    embedding = embed(model, SpotDetector(), people=6)
    assert embedding.points.names == tuple(COLOURS)
    assert embedding.indices.tolist() == list(range(len(COLOURS)))
    assert embedding.dropped == ("nowhere",)
    places = embedding.points.on(model.mean_shape, model.triangles)
    # The mesh is coarse (a triangle spans 25 mm) and a spot has a radius of 6: its centre of colour shifts a little with the view.
    assert (places - truth).norm(dim=1).max() < 2.5
    assert embedding.noise.max() < 2.5


def test_embedding_is_the_same_every_time(spotted):
    first, second = (embed(spotted[0], SpotDetector(), people=0) for _ in range(2))
    assert torch.equal(first.points.triangles, second.points.triangles)
    assert torch.equal(first.points.barycentric, second.points.barycentric)
    assert torch.equal(first.noise, second.noise)


def test_a_model_without_a_face_is_said(tiny_model, detector):
    with pytest.raises(LandmarkError, match="sees no face"):
        embed(tiny_model, detector, people=0)


@pytest.fixture(scope="module")
def default_model():
    """The shipped face model."""
    return load_model("anny")


@pytest.mark.slow
def test_mediapipe_on_the_default_model(default_model, detector):
    model = default_model
    embedding = embed(model, detector, people=12)
    assert len(embedding.points.names) > 420
    assert embedding.noise.median() < 3
    places = dict(zip(embedding.points.names, embedding.points.on(model.mean_shape, model.triangles), strict=True))
    seven = model.now_landmarks.on(model.mean_shape, model.triangles)
    # Corners of the eyes and of the mouth by MediaPipe's numbers against the model's own points.
    pairs = {"mesh_033": 0, "mesh_133": 1, "mesh_362": 2, "mesh_263": 3, "mesh_061": 5, "mesh_291": 6}
    assert all((places[name] - seven[index]).norm() < 6 for name, index in pairs.items() if name in places)
    # Seen from the front, a camera projects the points of a frontal picture in the order a face has.
    camera = Camera(torch.eye(3), torch.tensor([0.0, 0.0, -600.0]), torch.tensor(500.0), torch.tensor([128.0, 128.0]), 256, 256)
    x = {name: float(camera.project(place[None])[0, 0]) for name, place in places.items()}
    assert x["mesh_033"] < x["mesh_133"] < x["mesh_001"] < x["mesh_362"] < x["mesh_263"]
