"""The loop of every stage: batches in, steps of an optimiser, logs and checkpoints out; exact when resumed, on one device or many."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from focus_backend.networks.encoder import Encoder
from focus_backend.networks.segmentation import SegmentationNetwork
from train.autoencoder import Parts
from train.config import LoggingConfig, OptimiserConfig, StageConfig
from train.data.batch import FaceBatch, FaceSource
from train.logs import Report, StageLog, Sums
from train.masks import MaskOf
from train.run import Progress, StageFolder
from train.seeds import mixed
from train.steps import StepOutcome
from train.validation import validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENCODER, SEGMENTATION = Encoder.kind, SegmentationNetwork.kind


class StoppedError(Exception):
    """The run was asked to stop and has left a checkpoint; not a failure."""


@dataclass(frozen=True)
class Stage:
    """What makes one stage different from another.

    Attributes:
        name: of its folder.
        config: its section of the configuration.
        learner: which network learns at a step, "encoder" or "segmentation".
        compute: the losses of a step's batch.
        learning_rates: at the start, by network that learns in this stage.
        uses_segmentation: masks are those of S, which is watched for collapse.
        shown_mask: of the faces that are looked at; None for that of S.
    """

    name: str
    config: StageConfig
    learner: Callable[[int], str]
    compute: Callable[[int, FaceBatch], StepOutcome]
    learning_rates: Mapping[str, float]
    uses_segmentation: bool = False
    shown_mask: MaskOf | None = None


@dataclass
class Trainer:
    """Runs stages.

    Attributes:
        fabric: devices and precision.
        parts: networks and face model; as `fabric` set them up.
        source: faces to learn from.
        validation: faces to look at.
        optimiser: how to descend.
        logging: what to write and when.
        seed: of everything random; together with the step it decides all that a step draws.
        report: is told every line of the log.
    """

    fabric: Fabric
    parts: Parts
    source: FaceSource
    validation: FaceSource
    optimiser: OptimiserConfig
    logging: LoggingConfig
    seed: int
    report: Report | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, stage: Stage, folder: StageFolder, new: Progress) -> Progress:
        """Train a stage from its newest checkpoint, or where there is none from `new`, to its end.

        Raises:
            StoppedError: asked to by SIGTERM or Ctrl-C; a checkpoint was written.
            TrainingError: a loss is not finite.
            ConfigError: the folder's checkpoint is of another configuration.
        """
        networks = self.parts.networks()
        optimisers = {name: self.optimiser_of(networks[name], rate) for name, rate in stage.learning_rates.items()}
        progress = folder.restore(networks, optimisers, self.parts.model, new)
        steps, is_quiet = stage.config.steps, not self.fabric.is_global_zero
        # A shorter run has ended within an interval of the log; the longer one writes that interval whole.
        first = progress.step - bool(progress.sums and progress.step < steps)
        with StageLog(folder, progress.step, steps, is_quiet, self.report, first) as log, self._stoppable():
            if 0 < progress.step < stage.config.steps:
                log.say(f"{stage.name}: going on from step {progress.step}")
            return self._loop(stage, folder, log, optimisers, networks, progress)

    def _loop(
        self,
        stage: Stage,
        folder: StageFolder,
        log: StageLog,
        optimisers: Mapping[str, torch.optim.Optimizer],
        networks: Mapping[str, nn.Module],
        progress: Progress,
    ) -> Progress:
        sums, started, steps = Sums(progress.sums), time.perf_counter(), stage.config.steps
        begun = progress
        for step in range(begun.step, steps):
            learner = stage.learner(step)
            rate = self.step(stage, step, learner, optimisers[learner], sums)
            done, is_last = step + 1, step + 1 == steps
            if done % self.logging.log_every == 0 or is_last:
                log.losses(done, Sums.means(sums.take()), rate, stage.config.batch_size * self.fabric.world_size)
            if done % self.logging.log_every == 0:
                sums = Sums()
            if self.fabric.is_global_zero and (done % self.logging.picture_every == 0 or is_last):
                log.validation(done, *validate(self.parts, self.validation, self.logging.pictures, stage.shown_mask))
            must_stop = self._must_stop(done, is_last)
            if done % self.logging.checkpoint_every == 0 or is_last or must_stop:
                seconds = begun.seconds + time.perf_counter() - started
                progress = replace(begun, step=done, sums=sums.take(), seconds=seconds)
                if self.fabric.is_global_zero:
                    folder.save(progress, networks, optimisers, self.parts.model, self.logging.keep)
                self.fabric.barrier()
            if must_stop:
                log.say(f"{stage.name}: stopped at step {done}; the same command goes on from there")
                raise StoppedError
        return progress

    def step(self, stage: Stage, step: int, learner: str, optimiser: torch.optim.Optimizer, sums: Sums) -> float:
        """One step of one network; the learning rate it was done with."""
        for name, network in self.parts.networks().items():
            _let_learn(network, self.parts.calls()[name], name == learner)
        # Dropout and all else that is random hangs on the step alone, so that a resumed run draws the same.
        torch.manual_seed(mixed(self.seed, step, self.fabric.global_rank))
        batch = self.source.batch(step, stage.config.batch_size)
        outcome = stage.compute(step, batch)
        self.fabric.backward(outcome.total)
        if self.optimiser.clip_norm:
            self.fabric.clip_gradients(self.parts.calls()[learner], optimiser, max_norm=self.optimiser.clip_norm, error_if_nonfinite=False)
        rate = self._rate(stage, step, learner)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        sums.add(outcome.terms | ({"mask_share": _share(outcome)} if stage.uses_segmentation else {}))
        return rate

    def _rate(self, stage: Stage, step: int, learner: str) -> float:
        """The learning rate of a step, which hangs on nothing before it."""
        start = stage.learning_rates[learner]
        if self.optimiser.schedule == "cosine":
            # A short warm-up: Adam's first steps are the largest.
            warm = min(1.0, (step + 1) / max(1.0, 0.05 * stage.config.steps))
            return start * warm * 0.5 * (1 + math.cos(math.pi * step / max(1, stage.config.steps)))
        decay = self.optimiser.decay if learner == ENCODER else self.optimiser.segmentation_decay
        return start * decay ** (step // self.optimiser.decay_every)

    def optimiser_of(self, network: nn.Module, rate: float) -> torch.optim.Optimizer:
        parameters = list(network.parameters())
        if self.optimiser.name == "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=self.optimiser.weight_decay)
        return torch.optim.Adadelta(parameters, lr=rate, weight_decay=self.optimiser.weight_decay)

    def _must_stop(self, done: int, is_last: bool) -> bool:
        """Whether any process was asked to stop, so that all of them stop at the same step; asking waits, so several ask seldom."""
        if self.fabric.world_size == 1:
            return self._stop.is_set()
        if done % self.logging.log_every and not is_last:
            return False
        flag = torch.tensor(float(self._stop.is_set()), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op="max"))

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the step in work."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop.set()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        older = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in older.items():
                signal.signal(number, handler)


def _share(outcome: StepOutcome) -> Float[Tensor, ""]:
    """Share of the region that the mask calls face."""
    assert outcome.seen is not None
    assert outcome.mask is not None
    return outcome.mask.sum() / outcome.seen.region.sum().clamp(min=1)


def _let_learn(network: nn.Module, call: nn.Module, learns: bool) -> None:
    """Training mode and gradients for a network and what wraps it, or neither; walking over all parts takes time: only after a change."""
    if network.training != learns or next(network.parameters()).requires_grad != learns:
        call.train(learns)
        call.requires_grad_(learns)
