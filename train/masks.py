"""What stands for the mask M when R learns: S, the truth, skin colour, a difference, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend import losses
from focus_backend.errors import ConfigError
from train.autoencoder import Parts, Reconstructed, segment
from train.baselines import SkinColour, cutmix, cutout
from train.config import LossesConfig
from train.data.batch import FaceBatch, FaceSource
from train.seeds import mixed

MaskOf = Callable[[Reconstructed], Float[Tensor, "b h w"]]
Augmentation = Literal["none", "cutmix", "cutout"]

# Photos that skin colour is learnt from.
_SKIN_BATCHES, _SKIN_BATCH = 8, 32


def by_network(parts: Parts) -> MaskOf:
    """M of S."""
    return lambda seen: segment(parts, seen)


def everything(seen: Reconstructed) -> Float[Tensor, "b h w"]:
    """The whole region is face (`mofa`)."""
    return seen.region


def of_truth(seen: Reconstructed) -> Float[Tensor, "b h w"]:
    """The known mask inside the region (`supervised`)."""
    assert seen.batch.mask is not None
    return seen.batch.mask * seen.region


def by_difference(config: LossesConfig) -> MaskOf:
    """M_pre of eq 9 and 10."""

    def preliminary(seen: Reconstructed) -> Float[Tensor, "b h w"]:
        if config.preliminary == "threshold":
            return losses.preliminary_mask(seen.photo, seen.rendering, seen.region, config.threshold)
        return losses.preliminary_mask_likelihood(seen.photo, seen.rendering, seen.region, config.sigma, config.deviations)

    return preliminary


def by_skin_colour(source: FaceSource) -> MaskOf:
    """The probability of skin, its colours learnt from the first masks of a source (`skin`).

    Raises:
        ConfigError: the source has no masks.
    """
    batches = [source.batch(step, _SKIN_BATCH) for step in range(_SKIN_BATCHES)]
    masks = [batch.mask for batch in batches if batch.mask is not None]
    if len(masks) < len(batches):
        raise ConfigError('mask = "skin" learns skin colour from photos with masks', "prepare CelebAMask-HQ or AR, or use synthetic faces")
    images, inside = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("image", "inside"))
    colour = SkinColour.fit(images, torch.cat(masks), inside)
    return lambda seen: colour.probability(seen.batch.image) * seen.region


def augmented(batch: FaceBatch, kind: Augmentation, seed: int, step: int) -> FaceBatch:
    """The batch with patches over half of its faces, the same ones for the same seed and step (`cutmix`, `cutout`)."""
    if kind == "none":
        return batch
    generator = torch.Generator(batch.image.device).manual_seed(mixed(seed, step))
    return cutmix(batch, generator) if kind == "cutmix" else cutout(batch, generator)
