"""What a sweep does with the trainer and the reconstructor: stages that eta does not reach are trained once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.evaluate.errors import EvaluationError
from train.evaluate.sweep import WEIGHTS, share_stages

if TYPE_CHECKING:
    from train.config import TrainingConfig

# S learns by its losses, and so by eta, from here on.
FIRST_STAGE = "em"


@dataclass(frozen=True)
class StagedTraining:
    """Trains a configuration with overrides; the stages before `em` come from one run that all cases share.

    Attributes:
        source: configuration, a name or a file.
        settings: overrides that hold for every case, `section.key=value`.
        shared: the run folder of the stages before `em`, trained when they are first needed.
    """

    source: str
    settings: tuple[str, ...]
    shared: Path

    def __call__(self, overrides: Mapping[str, float], out: Path) -> Path:
        """Train in the folder `out`, going on where it was left; the weights folder.

        Raises:
            ConfigError, TrainingError, OutputError: as `train.stages.train`.
        """
        from train.config import STAGES
        from train.run import open_run
        from train.stages import train

        config = self.config(overrides)
        before, after = STAGES[: STAGES.index(FIRST_STAGE)], STAGES[STAGES.index(FIRST_STAGE) :]
        if any(config.stage(stage).steps for stage in before):
            train(self.config({}), self.shared, before)
        share_stages(self.shared, open_run(out, config), before)
        return train(config, out, after)

    def config(self, overrides: Mapping[str, float]) -> TrainingConfig:
        """The configuration of a case."""
        from train.config import load_config

        return load_config(self.source, [*self.settings, *(f"{key}={value!r}" for key, value in overrides.items())])

    def base(self) -> dict[str, float]:
        """The configured value of every weight."""
        losses = self.config({}).losses.segmentation
        return {name: float(getattr(losses, field)) for name, field in WEIGHTS.items()}

    def fingerprint(self) -> str:
        """Of all that decides the training."""
        document = self.config({}).model_dump(mode="json", exclude={"name", "logging", "compute"})
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class NetworkReconstruction:
    """Reconstructs photos by the networks alone (`--method network`).

    Attributes:
        model: face model of the weights.
        device: "auto", or a torch device.
    """

    model: str = "anny"
    device: str = "auto"

    def __call__(self, weights: Path, photos: Sequence[Path], out: Path) -> None:
        """Write a result a photo into `out`; photos that fail have none, and the evaluation counts them.

        Raises:
            FocusError: the weights cannot be used, or `out` cannot be written.
            EvaluationError: no photo could be reconstructed.
        """
        from focus_backend.commands.batch import BatchOptions, run_batch
        from focus_backend.commands.inputs import PhotoInput
        from focus_backend.reconstruction.reconstructor import Reconstructor

        def load() -> Reconstructor:
            return Reconstructor.load(self.model, device=self.device, method="network", weights=weights)

        options = BatchOptions(out, max_faces=1, skip_existing=True)
        outcomes = list(run_batch([PhotoInput(photo) for photo in photos], load, options))
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors and len(errors) == len(outcomes):
            raise EvaluationError(f"no photo could be reconstructed, the first for this: {errors[0]}", "look at the weights and the photos")
