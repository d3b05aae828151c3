"""What the paper compares S with: a mask from skin colour, as in Deep3D, and patches pasted over faces for supervised training.

Nothing but `SkinColour.fit`, `save` and `load` waits for the device.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator
from torch import Tensor

from focus_backend.errors import ConfigError, WeightsError
from focus_backend.files import write_whole
from train.data.batch import FaceBatch

# Added to every variance: two sRGB steps, below which colours of a photo mean nothing.
VARIANCE_FLOOR = (2 / 255) ** 2
# Sides of a pasted patch as shares of the image's.
SMALLEST_PATCH, LARGEST_PATCH = 0.15, 0.5


@dataclass(frozen=True)
class ColourGaussian:
    """A normal distribution of sRGB colours.

    With a full covariance it is the same model in RGB, YCbCr and any other linear colour space.

    Attributes:
        mean: sRGB in [0, 1].
        whitening: lower triangular, takes differences from the mean to unit variance.
    """

    mean: Float[Tensor, "3"]
    whitening: Float[Tensor, "3 3"]

    @classmethod
    def fit(cls, colours: Float[Tensor, "n 3"], weights: Float[Tensor, "n"]) -> ColourGaussian:
        """Moments of weighted colours."""
        shares = (weights / weights.sum()).double()[:, None]
        mean = (shares * colours).sum(0)
        difference = colours - mean
        covariance = (shares * difference).T @ difference + VARIANCE_FLOOR * torch.eye(3, dtype=mean.dtype, device=mean.device)
        # The inverse of the Cholesky factor, so that evaluating needs no factorisation, which would wait for the device.
        whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
        return cls(mean.to(colours.dtype), whitening.to(colours.dtype))

    def log_density(self, colours: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
        """Natural logarithm of the density per unit volume of colour."""
        # Half precision is too coarse for a quotient of densities.
        with torch.autocast(colours.device.type, enabled=False):
            whitened = (colours.to(self.mean.dtype) - self.mean) @ self.whitening.T
        return -0.5 * whitened.square().sum(-1) + self.whitening.diagonal().log().sum() - 1.5 * math.log(2 * math.pi)

    def to(self, device: torch.device | str) -> ColourGaussian:
        """The same distribution on a device."""
        return ColourGaussian(self.mean.to(device), self.whitening.to(device))


@dataclass(frozen=True)
class SkinColour:
    """Skin against everything else by colour alone: one Gaussian each, and how common skin is.

    Attributes:
        skin: colours of skin.
        other: colours of all that is no skin.
        log_odds: of skin before its colour is seen.
    """

    skin: ColourGaussian
    other: ColourGaussian
    log_odds: Float[Tensor, ""]

    @classmethod
    def fit(
        cls,
        images: Float[Tensor, "b 3 h w"],
        masks: Float[Tensor, "b h w"],
        inside: Bool[Tensor, "b h w"] | None = None,
        prior: float | None = None,
    ) -> SkinColour:
        """Both Gaussians from pictures with known masks.

        Args:
            images: sRGB in [0, 1].
            masks: 1 for skin, 0 for anything else; values between count for both.
            inside: pixels to learn from, all of them by default.
            prior: probability of skin, in (0, 1); the share of skin in those pixels by default.

        Raises:
            ConfigError: no pixel is skin, all are, or the prior is no probability.
        """
        colours = images.movedim(1, -1).reshape(-1, 3)
        used = torch.ones_like(masks) if inside is None else inside.to(masks.dtype)
        skin, other = (masks * used).flatten(), ((1 - masks) * used).flatten()
        if not (float(skin.sum()) >= 1 and float(other.sum()) >= 1):
            raise ConfigError(
                "skin colour cannot be learnt from masks without skin or with nothing else", "use masked photos with background"
            )
        share = float(skin.double().sum() / used.double().sum()) if prior is None else prior
        if not 0 < share < 1:
            raise ConfigError(f"the prior probability of skin is {share}", "give one between 0 and 1")
        log_odds = images.new_tensor(math.log(share / (1 - share)))
        return cls(ColourGaussian.fit(colours, skin), ColourGaussian.fit(colours, other), log_odds)

    def probability(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """Probability that each pixel is skin (Bayes' rule), in the place of the mask of S."""
        colours = image.movedim(1, -1)
        return torch.sigmoid(self.log_odds + self.skin.log_density(colours) - self.other.log_density(colours))

    def to(self, device: torch.device | str) -> SkinColour:
        """The same on a device."""
        return SkinColour(self.skin.to(device), self.other.to(device), self.log_odds.to(device))

    def save(self, path: Path) -> None:
        """Writes JSON; all of it or nothing.

        Raises:
            OutputError: the file cannot be written.
        """
        content = _SkinColourFile(skin=_described(self.skin), other=_described(self.other), log_odds=float(self.log_odds))
        write_whole(path, (content.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> SkinColour:
        """What `save` wrote.

        Raises:
            WeightsError: the file is missing, damaged or something else.
        """
        try:
            content = _SkinColourFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror})", "fit the skin colour first") from error
        except (ValidationError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} holds no skin colour", "fit the skin colour anew") from error
        return cls(_gaussian(content.skin), _gaussian(content.other), torch.tensor(content.log_odds))


_Triple = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]


class _GaussianFile(BaseModel):
    """A `ColourGaussian` in JSON."""

    model_config = ConfigDict(extra="forbid")

    mean: _Triple
    whitening: Annotated[list[_Triple], Field(min_length=3, max_length=3)]

    @field_validator("whitening")
    @classmethod
    def _is_a_whitening(cls, rows: list[list[float]]) -> list[list[float]]:
        is_triangular = rows[0][1] == rows[0][2] == rows[1][2] == 0
        if not (is_triangular and all(rows[i][i] > 0 for i in range(3))):
            raise ValueError("not lower triangular with a positive diagonal")
        return rows


class _SkinColourFile(BaseModel):
    """A `SkinColour` in JSON."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["skin-colour"] = "skin-colour"
    version: Literal[1] = 1
    skin: _GaussianFile
    other: _GaussianFile
    log_odds: FiniteFloat


def _described(gaussian: ColourGaussian) -> _GaussianFile:
    """Plain numbers of a distribution."""
    return _GaussianFile(mean=gaussian.mean.tolist(), whitening=gaussian.whitening.tolist())


def _gaussian(content: _GaussianFile) -> ColourGaussian:
    """The distribution of plain numbers."""
    return ColourGaussian(torch.tensor(content.mean), torch.tensor(content.whitening))


def cutmix(batch: FaceBatch, generator: torch.Generator, probability: float = 0.5) -> FaceBatch:
    """Pastes a rectangle of another image of the batch over a part of the face, which is then no face.

    The rectangle comes from any place of the other image, so that aligned noses do not land on noses; in a batch of one it comes from the
    image itself. Landmarks and theta stay: they are true below the patch.

    Args:
        generator: on the device of the batch; the same state gives the same patches.
        probability: that an image gets a patch.

    Raises:
        ConfigError: the batch has no masks.
    """
    count, _, height, width = batch.image.shape
    patch = face_patches(_mask_of(batch), generator, probability)
    another, down, right = torch.rand(3, count, generator=generator, device=batch.image.device)
    first = torch.arange(count, device=batch.image.device)
    partner = (first + 1 + (another * (count - 1)).long()) % count
    rows = _shifted(height, down)[:, :, None]
    columns = _shifted(width, right)[:, None, :]
    pasted = batch.image.movedim(1, -1)[partner[:, None, None], rows, columns].movedim(-1, 1)
    return _covered(batch, patch, pasted)


def cutout(batch: FaceBatch, generator: torch.Generator, probability: float = 0.5) -> FaceBatch:
    """Covers a part of the face with a rectangle of one grey or of noise, as often the one as the other; it is then no face.

    Args:
        generator: on the device of the batch; the same state gives the same patches.
        probability: that an image gets a patch.

    Raises:
        ConfigError: the batch has no masks.
    """
    patch = face_patches(_mask_of(batch), generator, probability)
    noise = torch.rand(batch.image.shape, generator=generator, device=batch.image.device, dtype=batch.image.dtype)
    kind, grey = torch.rand(2, len(batch), 1, 1, 1, generator=generator, device=batch.image.device, dtype=batch.image.dtype)
    return _covered(batch, patch, torch.where(kind < 0.5, grey, noise))


def face_patches(mask: Float[Tensor, "b h w"], generator: torch.Generator, probability: float = 1.0) -> Bool[Tensor, "b h w"]:
    """A rectangle an image whose centre is on the face, cut at the image's edge; sides are 0.15 to 0.5 of the image's.

    Args:
        probability: that an image has one at all.
    """
    count, height, width = mask.shape
    # The largest of random numbers on the face is a face pixel chosen evenly; sampling by weights would wait for the device.
    lots = torch.rand(mask.shape, generator=generator, device=mask.device) + (mask > 0.5)
    centre = lots.flatten(1).argmax(1)
    chosen, tall, wide = torch.rand(3, count, generator=generator, device=mask.device)
    in_rows = _span(height, centre // width, tall)
    in_columns = _span(width, centre % width, wide)
    return in_rows[:, :, None] & in_columns[:, None, :] & (chosen < probability)[:, None, None]


def _span(length: int, centre: Int[Tensor, "b"], lot: Float[Tensor, "b"]) -> Bool[Tensor, "b length"]:
    """Pixels of one axis that a patch covers; its side is drawn by a lot in [0, 1)."""
    side = length * (SMALLEST_PATCH + (LARGEST_PATCH - SMALLEST_PATCH) * lot)
    places = torch.arange(length, device=lot.device)
    return (places - centre[:, None]).abs() <= side[:, None] / 2


def _shifted(length: int, lot: Float[Tensor, "b"]) -> Int[Tensor, "b length"]:
    """Indices of one axis, begun at a place drawn by a lot in [0, 1) and closed to a ring."""
    return (torch.arange(length, device=lot.device) + (lot * length).long()[:, None]) % length


def _mask_of(batch: FaceBatch) -> Float[Tensor, "b h w"]:
    if batch.mask is None:
        raise ConfigError("patches over faces need masks that the data does not have", "use data with ground-truth masks")
    return batch.mask


def _covered(batch: FaceBatch, patch: Bool[Tensor, "b h w"], pasted: Float[Tensor, "b 3 h w"]) -> FaceBatch:
    """The batch with pixels of the patch replaced, and no face there."""
    image = torch.where(patch[:, None], pasted, batch.image)
    return dataclasses.replace(batch, image=image, mask=_mask_of(batch).masked_fill(patch, 0.0))
