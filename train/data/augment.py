"""The paper's augmentations: shift, scale, rotation and mirroring of stored crops, in one resampling on the training device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from focus_backend.landmarks.landmarks68 import mirrored68

# Crop size that pixels of the configuration are given for.
_REFERENCE_SIZE = 224
# Compression works in blocks of so many pixels.
_BLOCK = 16


class AugmentConfig(BaseModel):
    """How far crops are moved at random; FOCUS.md, "Schedule"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Largest shift along each axis, pixels of a crop of 224; scaled with the crop.
    shift: float = Field(default=10.0, ge=0, le=50)
    # Largest change of the face's size, a share.
    scale: float = Field(default=0.1, ge=0, le=0.5)
    # Largest turn, degrees.
    rotation: float = Field(default=10.0, ge=0, le=45)
    # Share of crops that are mirrored.
    flip: float = Field(default=0.5, ge=0, le=1)


def stored_size(size: int, config: AugmentConfig | None = None) -> int:
    """Pixels a side that a stored crop needs so that no augmented crop of `size` pixels shows anything beyond it."""
    config = config or AugmentConfig()
    turn = math.radians(config.rotation)
    shift = config.shift * size / _REFERENCE_SIZE
    reach = (size / 2 + shift) * (math.cos(turn) + math.sin(turn)) / (1 - config.scale)
    # A pixel more on each side for the interpolation.
    return _BLOCK * math.ceil(2 * (reach + 1) / _BLOCK)


@dataclass(frozen=True)
class Views:
    """Where augmented crops lie in their stored crops.

    Attributes:
        to_stored: affine map of crop pixels to pixels of the stored crop.
        is_mirrored: crops seen in a mirror.
    """

    to_stored: Float[Tensor, "b 2 3"]
    is_mirrored: Bool[Tensor, "b"]

    @classmethod
    def plain(cls, count: int, size: int, stored: int) -> Views:
        """The middle of each stored crop, pixel for pixel."""
        turn = torch.eye(2, dtype=torch.float64).expand(count, 2, 2)
        offset = torch.full((count, 2, 1), (stored - size) / 2, dtype=torch.float64)
        return cls(torch.cat([turn, offset], -1), torch.zeros(count, dtype=torch.bool))

    @classmethod
    def random(cls, draws: Float[np.ndarray, "b 5"], config: AugmentConfig, size: int, stored: int) -> Views:
        """The views that five numbers in [0, 1) choose for each crop: shift along x and y, scale, rotation, mirroring."""
        uniform = 2 * torch.from_numpy(draws).double() - 1
        shift = uniform[:, :2] * config.shift * size / _REFERENCE_SIZE
        turn = uniform[:, 3] * math.radians(config.rotation)
        # The face grows by this; the piece of the stored crop that is shown shrinks.
        step = 1 / (1 + uniform[:, 2] * config.scale)
        is_mirrored = torch.from_numpy(draws[:, 4] < config.flip)
        cosine, sine = step * turn.cos(), step * turn.sin()
        linear = torch.stack([cosine, -sine, sine, cosine], -1).unflatten(-1, (2, 2))
        linear = linear * torch.stack([1 - 2 * is_mirrored.double(), torch.ones(len(draws))], -1)[:, None, :]
        offset = stored / 2 - linear @ (torch.full((2, 1), size / 2, dtype=torch.float64) + shift[:, :, None])
        return cls(torch.cat([linear, offset], -1), is_mirrored)

    def landmarks(self, stored: Float[Tensor, "b 68 2"]) -> Float[Tensor, "b 68 2"]:
        """Landmarks of the stored crops as landmarks of the views; mirrored ones trade places."""
        moved = (stored.double() - self.to_stored[:, None, :, 2]) @ torch.linalg.inv(self.to_stored[:, :, :2]).mT
        mirrored = moved[:, torch.from_numpy(mirrored68())]
        return torch.where(self.is_mirrored[:, None, None], mirrored, moved).float()

    def to_photo(self, stored_to_photo: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b 2 3"]:
        """Affine map of crop pixels to photo pixels."""
        linear = stored_to_photo[:, :, :2] @ self.to_stored[:, :, :2]
        offset = stored_to_photo[:, :, :2] @ self.to_stored[:, :, 2:] + stored_to_photo[:, :, 2:]
        return torch.cat([linear, offset], -1)


def resample(pixels: Float[Tensor, "b c n n"], to_stored: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b c size size"]:
    """The views of stored crops, bilinear. Free of host synchronisation."""
    places = pixel_places(to_stored, size)
    return F.grid_sample(pixels, 2 * places / pixels.shape[-1] - 1, mode="bilinear", padding_mode="border", align_corners=False)


def inside_photo(to_photo: Float[Tensor, "b 2 3"], photo_size: Float[Tensor, "b 2"], size: int) -> Bool[Tensor, "b size size"]:
    """Crop pixels whose centre lies in the photo (`photo_size`: width and height)."""
    places = pixel_places(to_photo, size)
    return ((places >= 0) & (places < photo_size[:, None, None])).all(-1)


def pixel_places(matrix: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b size size 2"]:
    """Where an affine map puts the centres of the pixels of a crop."""
    steps = torch.arange(size, device=matrix.device, dtype=matrix.dtype) + 0.5
    columns, rows = steps[None, None, :, None], steps[None, :, None, None]
    across, down, offset = (matrix[:, None, None, :, index] for index in range(3))
    return columns * across + rows * down + offset
