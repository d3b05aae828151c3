"""Placing a detector's points on a model, and keeping the result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from focus_backend.errors import LandmarkError, ModelError
from focus_backend.landmarks.detector import Detection, bounding_box
from focus_backend.landmarks.embedding import embed
from focus_backend.landmarks.embedding_store import embedding_for, embedding_key, read_embedding, shipped_path, write_embedding
from focus_backend.rendering import Camera

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "cyan": (0, 1, 1), "magenta": (1, 0, 1)}
TEXTURE = 256
_LINEAR = (np.arange(256) / 255.0) ** 2.2


class SpotDetector:
    """Finds spots of pure colour: a detector whose truth is known, because the spots are painted on the model."""

    name = "spots"
    version = "1"
    point_names = (*COLOURS, "nowhere")

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, pixels: np.ndarray) -> list[Detection]:
        self.calls += 1
        # Every other pixel tells enough.
        light = _LINEAR[pixels[::2, ::2]]
        chroma = light / light.sum(-1, keepdims=True).clip(1e-6)
        points = [self._centre(light, chroma, np.array(colour) / sum(colour)) for colour in COLOURS.values()]
        # A point that is somewhere else in every picture has no place on the model.
        points.append(np.random.default_rng(self.calls).uniform(0, len(pixels), 2))
        found = np.array([point for point in points if point is not None])
        if len(found) < 3:
            return []
        points = np.array([(-9.0, -9.0) if point is None else point for point in points])
        return [Detection(self.name, self.point_names, points, points[:5], bounding_box(found))]

    @staticmethod
    def _centre(light, chroma, colour):
        rows, columns = np.nonzero((np.abs(chroma - colour).max(-1) < 0.12) & (light.max(-1) > 0.05))
        return 2 * np.array([columns.mean(), rows.mean()]) + 0.5 if len(rows) > 8 else None


@pytest.fixture(scope="module")
def spotted(tiny_model):
    """The tiny model with a spot at six of its NoW points, and where those are (mm)."""
    points = tiny_model.now_landmarks
    uv = (tiny_model.uv[tiny_model.triangle_uv[points.triangles]] * points.barycentric[:, :, None]).sum(1)[: len(COLOURS)]
    rows, columns = (index.flatten() for index in torch.meshgrid(torch.arange(TEXTURE), torch.arange(TEXTURE), indexing="ij"))
    texel_uv = torch.stack([(columns + 0.5) / TEXTURE, 1 - (rows + 0.5) / TEXTURE], -1)
    albedo = torch.full((TEXTURE**2, 3), 0.5)
    for place, colour in zip(uv, COLOURS.values(), strict=True):
        albedo[((texel_uv - place) * torch.tensor([2.0, 1.0])).norm(dim=1) < 0.02] = torch.tensor(colour, dtype=torch.float32)
    model = dataclasses.replace(
        tiny_model,
        texture_size=TEXTURE,
        texels=torch.arange(TEXTURE**2),
        albedo_mean=albedo,
        albedo_basis=torch.zeros(1, TEXTURE**2, 3),
    )
    return model, points.on(model.mean_shape, model.triangles)[: len(COLOURS)]


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


def test_is_made_once_and_kept(spotted, tmp_path):
    model, _ = spotted
    finder = SpotDetector()
    first = embedding_for(model, finder, tmp_path, people=0)
    calls = finder.calls
    second = embedding_for(model, finder, tmp_path, people=0)
    assert finder.calls == calls > 0
    assert second.points.names == first.points.names
    assert second.dropped == first.dropped
    for one, other in ((first.points.barycentric, second.points.barycentric), (first.noise, second.noise)):
        assert torch.equal(one, other)


def test_no_place_to_keep_it_is_no_failure(spotted, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(embedding_for(spotted[0], SpotDetector(), blocked, people=0).points.names) == len(COLOURS)


def test_key_follows_everything_it_depends_on(spotted, tiny_model):
    model, finder = spotted[0], SpotDetector()
    other = dataclasses.replace(model, mean_shape=model.mean_shape * 1.0001)
    newer = SpotDetector()
    newer.version = "2"
    assert (
        len({embedding_key(model, finder), embedding_key(other, finder), embedding_key(model, newer), embedding_key(tiny_model, finder)})
        == 4
    )


@pytest.fixture(scope="module")
def embedding(spotted):
    """An embedding of the spots."""
    return embed(spotted[0], SpotDetector(), people=0)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "another key"])
def test_damaged_or_foreign_files_are_not_read(embedding, tmp_path, damage):
    path = tmp_path / "kept.safetensors"
    write_embedding(embedding, path, "key")
    assert read_embedding(path, "key") is not None
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-7], "garbage": b"x" * 500, "empty": b"", "another key": data}[damage])
    assert read_embedding(path, "other" if damage == "another key" else "key") is None
    assert [file.name for file in tmp_path.iterdir()] == ["kept.safetensors"]


@pytest.fixture(scope="module")
def default_model():
    """The shipped face model."""
    store = pytest.importorskip("focus_backend.morphable.store", reason="there is no store of face models yet")
    try:
        return store.load_model("anny")
    except ModelError as error:
        pytest.skip(f"the default model is not here: {error}")


def test_shipped_embedding_belongs_to_the_shipped_model(default_model, detector):
    path = shipped_path(default_model, detector)
    if not path.exists():
        pytest.skip("no embedding is shipped with the default model")
    found = read_embedding(path, embedding_key(default_model, detector))
    assert found is not None, "the model has changed: run focus_backend.landmarks.embedding_store.ship"
    assert len(found.points.names) > 420


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
