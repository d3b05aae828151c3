"""Answers as a server gives them: of a small model at once, and of the demo photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_reconstruction
from focus_backend.photo import read_photo
from focus_backend.reconstruction.reconstructor import Reconstructor
from focus_backend.serving import wire
from focus_backend.serving.parts import ModelParts, arrays_of

ASTRONAUT = Path(__file__).parents[3] / "docs" / "demo" / "astronaut.jpg"
PARTS = ("geometry", "texture", "masks", "albedo", "model", "identity")


@dataclass
class Answer:
    """A result with its arrays."""

    result: wire.Result
    arrays: dict[str, wire.Array]

    def numpy(self, name: str) -> np.ndarray:
        array = self.arrays[name]
        return np.frombuffer(array.data, array.dtype).reshape(array.shape)

    def changed(self, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Mapping[str, wire.Array]:
        """The arrays, one of them as `change` makes it."""
        return {**self.arrays, name: wire.Array.of(np.ascontiguousarray(change(self.numpy(name).copy())))}


def answer_to(faces, parts=PARTS) -> Answer:
    """What a server would send for reconstructions."""
    model = faces[0].model
    arrays = arrays_of(faces, parts, ModelParts(model), lambda: None)
    documents = [wire.Face(place, list(face.warnings), face.to_document()) for place, face in enumerate(faces)]
    info = wire.ModelInfo(model.name, "0" * 64, len(model.mean_shape), list(model.expression_names))
    return Answer(wire.Result(documents, info, list(parts), 1.5), arrays)


def turned_reconstruction(model, **others):
    """One whose camera looks at the head from an odd place."""
    face = make_reconstruction(model, **others)
    angle = 0.3
    turn = torch.tensor([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], dtype=torch.float32)
    camera = dataclasses.replace(face.camera, rotation=turn, translation=torch.tensor([12.0, -9.0, -580.0]))
    return dataclasses.replace(face, camera=camera)


@pytest.fixture(scope="session")
def answer(tiny_model) -> Answer:
    """Of one face."""
    return answer_to([turned_reconstruction(tiny_model)])


@pytest.fixture(scope="session")
def answer_of_three(tiny_model) -> Answer:
    """Of three faces of a photo, which comes along."""
    faces = [dataclasses.replace(turned_reconstruction(tiny_model, seed=seed), face_index=seed) for seed in range(3)]
    return answer_to(faces, (*PARTS, "photo"))


@pytest.fixture(scope="session")
def astronaut() -> Answer:
    """Of the demo photo, by the real fit and the real model."""
    return answer_to(Reconstructor.load().reconstruct(read_photo(ASTRONAUT)))
