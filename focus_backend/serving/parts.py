"""A reconstruction as the arrays of a result, by the parts that were asked for (docs/protocol.md). Arrays are views where they can be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from focus_backend.errors import ConfigError
from focus_backend.export.bundle import expression_targets, reconstruction_files
from focus_backend.morphable.face_model import FaceModel
from focus_backend.progress import Beat
from focus_backend.reconstruction.result import Reconstruction
from focus_backend.serving.wire import Array

IDENTITY_COMPONENTS = 10
Named = Iterator[tuple[str, Array]]


class ModelParts:
    """The parts that are the face model's and no photo's, made when first asked for and then kept."""

    def __init__(self, model: FaceModel) -> None:
        self._model = model

    @cached_property
    def model(self) -> dict[str, Array]:
        """Topology, and the expressions at full activation."""
        model = self._model
        targets = expression_targets(model, model.expression_scale.new_zeros(model.expression_size))
        return {
            "model/quads": _array(model.quads.int()),
            "model/quad_uv": _array(model.quad_uv.int()),
            "model/uv": _array(model.uv),
            "model/quad_in_face": _array(model.quad_in_face.byte()),
            "model/expressions": _array(targets.offsets),
        }

    @cached_property
    def identity(self) -> dict[str, Array]:
        """Offsets of one standard deviation of the first components of identity."""
        return {"model/identity": _array(self._model.shape_basis[:IDENTITY_COMPONENTS])}


def _geometry(face: Reconstruction, beat: Beat) -> Named:
    yield "neutral", _array(face.neutral_vertices)
    yield "expression", _array(torch.tensordot(face.expression, face.model.expression_basis, dims=1))


def _albedo(face: Reconstruction, beat: Beat) -> Named:
    yield "albedo", _array(face.albedo_texture)


def _texture(face: Reconstruction, beat: Beat) -> Named:
    yield "texture", _array(face.texture)


def _masks(face: Reconstruction, beat: Beat) -> Named:
    yield "face_mask", _array(face.face_mask.astype(np.uint8) * np.uint8(255))
    yield "outlier_mask", _array(face.outlier_mask.astype(np.uint8) * np.uint8(255))


def _rendering(face: Reconstruction, beat: Beat) -> Named:
    yield "rendering", _array(face.rendering)


def _files(face: Reconstruction, beat: Beat) -> Named:
    for name, content in reconstruction_files(face, beat).items():
        yield f"files/{name}", Array("uint8", (len(content),), content)


_FACE_PARTS: dict[str, Callable[[Reconstruction, Beat], Named]] = {
    "geometry": _geometry,
    "albedo": _albedo,
    "texture": _texture,
    "masks": _masks,
    "rendering": _rendering,
    "files": _files,
}
PARTS = ("geometry", "texture", "masks", "albedo", "rendering", "photo", "model", "identity", "files")


def check_parts(wanted: Sequence[str]) -> None:
    """Checks names of parts.

    Raises:
        ConfigError: there is no part of a name.
    """
    for name in wanted:
        if name not in PARTS:
            raise ConfigError(f"there is no part {name!r}", f"parts are {', '.join(PARTS)}")


def arrays_of(faces: Sequence[Reconstruction], wanted: Collection[str], model_parts: ModelParts, beat: Beat) -> dict[str, Array]:
    """The arrays of the wanted parts of a photo's faces.

    Args:
        faces: at least one, of one photo.
        wanted: names in `PARTS`.
        model_parts: of their face model.
        beat: called before every step.

    Raises:
        FitError: a result is not finite.
    """
    arrays: dict[str, Array] = {}
    for index, face in enumerate(faces):
        for part, make in _FACE_PARTS.items():
            if part in wanted:
                beat()
                arrays.update((f"face{index}/{name}", array) for name, array in make(face, beat))
    if "photo" in wanted:
        arrays["photo"] = _array(faces[0].photo)
    for part in ("model", "identity"):
        if part in wanted:
            beat()
            arrays.update(getattr(model_parts, part))
    return arrays


def _array(values: Tensor | np.ndarray) -> Array:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return Array.of(np.ascontiguousarray(array))
