"""Theta, a batch of faces as the encoder gives them (FOCUS.md, "Parameters theta")."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel

LIGHTING_SIZE = 27
POSE_SIZE = 6
# Band 0 of the ambient light that zero outputs stand for.
START_BAND0 = 0.7 * 2 * math.pi


@dataclass(frozen=True)
class Theta:
    """A batch of faces.

    Attributes:
        shape, expression, albedo: coefficients in standard deviations.
        lighting: spherical-harmonics coefficients x RGB, camera space.
        rotation: model space to camera space, axis times angle in radians.
        translation: model origin in camera space, mm.
    """

    shape: Float[Tensor, "b shape"]
    expression: Float[Tensor, "b expression"]
    albedo: Float[Tensor, "b albedo"]
    lighting: Float[Tensor, "b 9 3"]
    rotation: Float[Tensor, "b 3"]
    translation: Float[Tensor, "b 3"]

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | Tensor) -> Theta:
        """Some of the faces."""
        return self._map(lambda value: value[index])

    def to(self, device: torch.device | str) -> Theta:
        """The same faces on a device; copies from pinned memory do not wait."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def detach(self) -> Theta:
        """The same faces without gradients."""
        return self._map(Tensor.detach)

    @staticmethod
    def cat(parts: list[Theta]) -> Theta:
        """The faces of several batches."""
        names = [field.name for field in dataclasses.fields(Theta)]
        return Theta(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def _map(self, change) -> Theta:  # type: ignore[no-untyped-def]
        return Theta(**{field.name: change(getattr(self, field.name)) for field in dataclasses.fields(self)})


class OutputScales(BaseModel):
    """What the encoder's outputs are multiplied by, so that one learning rate serves all (FOCUS.md, "Parameters theta")."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    albedo: float = 3.0
    rotation: float = 0.3
    # Millimetres an output unit, across the picture and along the view. The crop fixes the scale, so depth is nearly held.
    position: float = 1.0
    depth: float = 0.005


class ThetaSizes(NamedTuple):
    """How many coefficients of each kind a face model has."""

    shape: int
    expression: int
    albedo: int

    @classmethod
    def of(cls, model: FaceModel) -> ThetaSizes:
        """The sizes of a face model."""
        return cls(model.shape_size, model.expression_size, model.albedo_size)

    @property
    def total(self) -> int:
        """Length of theta as one vector."""
        return sum(self) + LIGHTING_SIZE + POSE_SIZE


def theta_from_outputs(
    outputs: Float[Tensor, "b n"], sizes: ThetaSizes, start_translation: Float[Tensor, "3"], scales: OutputScales
) -> Theta:
    """Theta of an encoder's outputs, in the order shape, expression, albedo, lighting, rotation, translation.

    Zero outputs are the mean face under ambient light, facing the camera at `start_translation` (mm, camera space).
    """
    shape, expression, albedo, lighting, rotation, translation = outputs.float().split([*sizes, LIGHTING_SIZE, 3, 3], dim=1)
    across, depth = translation.split([2, 1], dim=1)
    lighting = lighting.unflatten(1, (9, 3))
    return Theta(
        shape=shape,
        expression=expression,
        albedo=albedo * scales.albedo,
        # Band 0 has the ambient start; the other bands start dark.
        lighting=torch.cat([lighting[:, :1] + START_BAND0, lighting[:, 1:]], dim=1),
        rotation=rotation * scales.rotation,
        translation=torch.cat([across * scales.position, depth * scales.depth], dim=1) + start_translation,
    )
