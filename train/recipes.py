"""What each stage computes: which network learns at a step, by which losses, with which mask (FOCUS.md, "Schedule" and "Variants")."""

from __future__ import annotations

from collections.abc import Callable

from train import masks, steps
from train.autoencoder import Parts
from train.config import TrainingConfig
from train.data.batch import FaceBatch
from train.seeds import mixed
from train.sources import Sources
from train.trainer import ENCODER, SEGMENTATION, Stage

Compute = Callable[[int, FaceBatch], steps.StepOutcome]


def stage_of(name: str, config: TrainingConfig, parts: Parts, sources: Sources, rank: int) -> Stage:
    """The stage of a name.

    Args:
        name: one of `STAGES`.
        config: of the run.
        parts: the networks.
        sources: of faces, from which skin colour is learnt where it is wanted.
        rank: of this process, whose patches are its own.
    """
    section, rates = config.stage(name), learning_rates(name, config)
    seed = mixed(config.seed, rank)
    if name == "em":
        return _em(config, parts, sources, seed)
    if name == "segmentation":
        return Stage(name, section, lambda step: SEGMENTATION, _segmentation_start(config, parts, seed), rates, uses_segmentation=True)
    if name == "warmstart":
        return Stage(name, section, lambda step: ENCODER, _warm_start(parts), rates, shown_mask=masks.everything)
    mask_of = masks.by_difference(config.losses) if name == "init" and config.mask != "none" else masks.everything
    return Stage(name, section, lambda step: ENCODER, _encoder(config, parts, mask_of), rates, shown_mask=mask_of)


def learning_rates(name: str, config: TrainingConfig) -> dict[str, float]:
    """The rate that each network which learns in a stage starts with."""
    optimiser, own = config.optimiser, config.stage(name).learning_rate
    rate = own or optimiser.learning_rate
    if name == "segmentation":
        return {SEGMENTATION: own or optimiser.learning_rate * optimiser.segmentation_share}
    if name == "em" and config.mask == "network":
        return {ENCODER: rate, SEGMENTATION: rate * optimiser.segmentation_share}
    return {ENCODER: rate}


def _warm_start(parts: Parts) -> Compute:
    """Stage 0."""
    forms = steps.error_forms(parts.model)
    return lambda step, batch: steps.warm_start_step(parts, batch, forms)


def _encoder(config: TrainingConfig, parts: Parts, mask_of: masks.MaskOf) -> Compute:
    """R's losses with one kind of mask."""
    return lambda step, batch: steps.encoder_step(parts, config.losses, batch, mask_of)


def _em(config: TrainingConfig, parts: Parts, sources: Sources, seed: int) -> Stage:
    """Step 3. With masks that are given, S has nothing to learn here, and R learns all the time."""
    em, mask_of = config.em, _mask_of(config, parts, sources)
    alternates = config.mask == "network"

    def learner(step: int) -> str:
        return SEGMENTATION if alternates and step % em.cycle < em.segmentation_steps else ENCODER

    def compute(step: int, batch: FaceBatch) -> steps.StepOutcome:
        if learner(step) == SEGMENTATION:
            return steps.segmentation_step(parts, config.losses, batch)
        patched = masks.augmented(batch, config.mask_augmentation, seed, step)
        return steps.encoder_step(parts, config.losses, patched, mask_of, uses_segmentation=alternates)

    shown = None if config.trains_segmentation("em") else mask_of
    return Stage("em", em, learner, compute, learning_rates("em", config), alternates, shown)


def _segmentation_start(config: TrainingConfig, parts: Parts, seed: int) -> Compute:
    """Step 2: M_pre of the trained R, or the truth."""
    is_supervised = "truth" in (config.mask, config.segmentation.target)
    target = masks.of_truth if is_supervised else masks.by_difference(config.losses)
    kind = config.mask_augmentation if is_supervised else "none"
    return lambda step, batch: steps.segmentation_start_step(parts, masks.augmented(batch, kind, seed, step), target)


def _mask_of(config: TrainingConfig, parts: Parts, sources: Sources) -> masks.MaskOf:
    """What stands for M when R learns."""
    if config.mask == "network":
        return masks.by_network(parts)
    if config.mask == "none":
        return masks.everything
    if config.mask == "skin":
        return masks.by_skin_colour(sources.masked())
    return masks.of_truth
