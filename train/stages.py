"""The stages of FOCUS in their order: warm start (optional), R without labels, S, EM, misfit prior (FOCUS.md, "Schedule")."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from focus_backend.errors import ConfigError, TrainingError, WeightsError
from focus_backend.files import write_whole
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.checkpoint import load_network
from focus_backend.networks.encoder import Encoder, load_imagenet
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationNetwork
from focus_backend.networks.weights import WEIGHTS_FOLDER, load_weights, save_weights
from focus_backend.reconstruction.encoder_skill import MASK_SKILL
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits
from train.config import STAGES, TrainingConfig, to_toml
from train.data.batch import FaceSource
from train.logs import Report, write_picture
from train.misfit import draw_misfit, mean_misfit
from train.recipes import stage_of
from train.run import Progress, StageFolder, check_run, locked, open_run
from train.sources import VALIDATION_SEED, Sources
from train.spread import measure_errors, measure_mask
from train.trainer import Stage, Trainer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Faces on which S's skill is measured: it has thousands of pixels in each.
_MASK_FACES = 256


def train(config: TrainingConfig, run: Path, stages: tuple[str, ...] = STAGES, report: Report | None = None) -> Path:
    """Train the given stages, each from where the one before ended; stages with no steps are left out.

    Nothing is written before configuration, data and folder are known to be usable.

    Args:
        config: of the run.
        run: its folder.
        stages: some of `STAGES`, in their order.
        report: is told every line of the log.

    Returns:
        The weights folder of the last one.

    Raises:
        ConfigError: the configuration cannot be used here, or the run was begun with another one.
        TrainingError: a stage that has to come before is missing, or losses are not finite.
        OutputError: the folder cannot be used, or another process trains in it.
        StoppedError: asked to stop; the same call goes on.
    """
    wanted = [stage for stage in stages if config.stage(stage).steps]
    if not wanted:
        names = f"{', '.join(stages)} {'has' if len(stages) == 1 else 'have'}"
        raise ConfigError(f"nothing to train: {names} no steps in this configuration", f"set {stages[-1]}.steps")
    check_run(run)
    session = Session(config, run, report)
    session.check(wanted)
    with contextlib.ExitStack() as stack:
        if session.fabric.is_global_zero:
            stack.enter_context(locked(run))
            open_run(run, config)
        for stage in wanted:
            session.run_stage(stage)
    return StageFolder(run, wanted[-1]).weights


@dataclass
class Session:
    """One process's share of a run; parts are made when they are first wanted."""

    config: TrainingConfig
    run: Path
    report: Report | None = None
    # Networks of the stage that is next, opened when the run was checked.
    _starts: dict[str, tuple[Encoder, SegmentationNetwork, str | None]] = field(default_factory=dict)

    @cached_property
    def fabric(self) -> Fabric:
        """Devices and precision, from the configuration or from torchrun."""
        from lightning_fabric import Fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException

        compute = self.config.compute
        torch.set_num_threads(compute.threads)
        accelerator = _accelerator(compute.device)
        try:
            fabric = Fabric(accelerator=accelerator, devices=compute.devices, precision=compute.precision)
        except (MisconfigurationException, ValueError) as error:
            problem = f"{compute.devices} devices cannot be used here ({str(error).splitlines()[0]})"
            raise ConfigError(problem, "set compute.devices to what there is") from error
        fabric.launch()
        return fabric

    @cached_property
    def cpu_model(self) -> FaceModel:
        """The face model on the CPU, where networks are made and weights are written."""
        return load_model(self.config.model)

    @cached_property
    def model(self) -> FaceModel:
        """The face model on the training device."""
        return self.cpu_model if self.fabric.device.type == "cpu" else self.cpu_model.to(self.fabric.device)

    @cached_property
    def frame(self) -> CropFrame:
        """The crops' camera."""
        return CropFrame.of(self.model, self.config.image_size)

    @cached_property
    def recognition(self) -> RecognitionNetwork | None:
        """F, where a loss wants it.

        Raises:
            ConfigError: a loss wants it and it was configured away.
        """
        if not any(self.config.uses_recognition(stage) for stage in STAGES):
            return None
        if self.config.networks.recognition == "none":
            remedy = "set losses.encoder.perceptual, losses.segmentation.distance and losses.segmentation.preserve to 0, or name a network"
            raise ConfigError('networks.recognition is "none", but perceptual losses have weights', remedy)
        return _open_recognition(self.config.networks.recognition, self.fabric.device)

    @cached_property
    def sources(self) -> Sources:
        """Where faces come from."""
        return Sources(self.config, self.run, self.fabric, self.model, self.frame)

    @property
    def source(self) -> FaceSource:
        """Faces that EM learns from."""
        return self.sources.training("em")

    def check(self, wanted: Sequence[str]) -> None:
        """Whether these stages can be trained, before anything is written, and before an hour of the first one.

        Raises:
            ConfigError: data, device or network is not there; or a stage was begun otherwise.
            WeightsError: a network cannot be used.
            TrainingError: a stage that has to come before is missing.
        """
        if any(self.config.uses_recognition(name) for name in wanted):
            _ = self.recognition
        self.sources.check(wanted)
        trained: str | None = None
        for name in wanted:
            folder = StageFolder(self.run, name)
            begun = folder.begun()
            if trained is None:
                new = self._new(name)
                if begun is not None:
                    folder.check(begun, new)
                if self._done(folder, new) is None:
                    trained, self._starts[name] = name, self._start(name)
            elif begun is not None:
                raise ConfigError(
                    f"{folder.path} was begun from other weights than {trained} will have",
                    f"delete {folder.path} to train it again, or give another --out",
                )

    def run_stage(self, name: str) -> None:
        """Train one stage, unless that was done before."""
        folder, new = StageFolder(self.run, name), self._new(name)
        done = self._done(folder, new)
        if done is not None:
            if self.fabric.is_global_zero:
                print(f"{name}: done before, {done.step} steps", file=sys.stderr)
            return
        encoder, segmentation, before = self._starts.pop(name) if name in self._starts else self._start(name)
        parts = self.set_up(encoder, segmentation, self.config.uses_recognition(name))
        if self.fabric.is_global_zero:
            write_whole(folder.config, to_toml(self.config).encode())
        faces, shown = self.sources.training(name), self.sources.validation(name)
        config = self.config
        trainer = Trainer(self.fabric, parts, faces, shown, config.optimiser, config.logging, config.seed, self.report)
        progress = trainer.run(self.stage(name, parts), folder, new)
        if self.fabric.is_global_zero:
            self._finish(name, folder, encoder, segmentation, before, progress)
        self.fabric.barrier()

    def _new(self, name: str) -> Progress:
        """The start of a stage.

        Raises:
            TrainingError: the stage it starts from is not done.
        """
        before = self._before(name)
        if before is None:
            return Progress(0, self.config.fingerprint(name))
        steps, done = self.config.stage(before).steps, StageFolder(self.run, before).finished()
        if done is None or done.step < steps:
            state = f"has done {done.step} of {steps} steps" if done is not None else "is not done"
            remedy = f"run `focus-backend train {before}` first, or `train all`"
            raise TrainingError(f"{name} starts from {before}, which {state} in {self.run}", remedy)
        return Progress(0, self.config.fingerprint(name), done.weights)

    def _done(self, folder: StageFolder, new: Progress) -> Progress | None:
        """How a stage was done, None where it was not, or otherwise, or with fewer steps."""
        done = folder.finished()
        steps = self.config.stage(folder.stage).steps
        is_same = done is not None and (done.fingerprint, done.start) == (new.fingerprint, new.start)
        return done if done is not None and is_same and done.step >= steps else None

    def _before(self, name: str) -> str | None:
        """The stage that a stage starts from; None for the first one.

        Raises:
            TrainingError: there has to be one.
        """
        before = [stage for stage in STAGES[: STAGES.index(name)] if self.config.stage(stage).steps]
        if not before and name not in ("warmstart", "init"):
            raise TrainingError(f"{name} needs a trained encoder, but no stage before it has steps", "set init.steps or warmstart.steps")
        return before[-1] if before else None

    def stage(self, name: str, parts: Parts) -> Stage:
        """What the stage of a name computes."""
        return stage_of(name, self.config, parts, self.sources, self.fabric.global_rank)

    def _start(self, name: str) -> tuple[Encoder, SegmentationNetwork, str | None]:
        """The networks a stage starts with, on the CPU, and the stage they come from."""
        before = self._before(name)
        if before is None:
            return (*self.fresh(), None)
        folder = StageFolder(self.run, before)
        weights = load_weights(folder.weights, self.cpu_model)
        encoder = copy.deepcopy(weights.encoder)
        segmentation = self.fresh()[1] if weights.segmentation is None else copy.deepcopy(weights.segmentation)
        networks = self.config.networks
        made_for = (encoder.config, segmentation.config, weights.image_size)
        if made_for != (networks.encoder, networks.segmentation, self.config.image_size):
            raise ConfigError(f"{folder.weights} holds other networks, or for another image size, than configured", "give another --out")
        return encoder.requires_grad_(True), segmentation.requires_grad_(True), before

    def fresh(self) -> tuple[Encoder, SegmentationNetwork]:
        """New networks; the same ones for the same seed."""
        torch.manual_seed(self.config.seed)
        encoder = Encoder(self.config.networks.encoder, self.cpu_model, self.config.image_size)
        segmentation = SegmentationNetwork(self.config.networks.segmentation)
        if self.config.networks.imagenet is not None:
            load_imagenet(encoder.backbone, self.config.networks.imagenet)
        return encoder, segmentation

    def set_up(self, encoder: Encoder, segmentation: SegmentationNetwork, wants_recognition: bool = True) -> Parts:
        """The networks on their devices."""

        def called(network: nn.Module) -> nn.Module:
            channels_last = cast(Any, network).to(memory_format=torch.channels_last)
            compiled = torch.compile(channels_last) if self.config.compute.compile else channels_last
            return self.fabric.setup_module(cast(nn.Module, compiled))

        encode, segment = called(EncoderOutputs(encoder)), called(SegmentationLogits(segmentation))
        recognition = self.recognition if wants_recognition else None
        return Parts(self.model, self.frame, encoder, segmentation, encode, segment, recognition, self.fabric.autocast)

    def _finish(
        self, name: str, folder: StageFolder, encoder: Encoder, segmentation: SegmentationNetwork, before: str | None, progress: Progress
    ) -> None:
        """Leave the stage's weights, with what inference wants to know of them."""
        misfit = None
        if name == "misfit":
            assert before is not None
            misfit = mean_misfit(encoder, self.model, self.sources.rendered(VALIDATION_SEED), self.config.misfit.faces).cpu()
            write_picture(folder.pictures / "misfit.png", draw_misfit(self.model, self.frame, misfit))
            # R_syn served to find the misfit; photos are R's.
            encoder = load_weights(StageFolder(self.run, before).weights, self.cpu_model, self.fabric.device).encoder
        encoder, shown = encoder.eval(), self.sources.synthetic(VALIDATION_SEED)
        trained = segmentation.eval() if self.config.trains_segmentation(name) else None
        notes = {
            "config": self.config.name,
            "stage": name,
            "steps": progress.step,
            "data": self.config.data.kind,
            **measure_errors(encoder, shown, self.config.spread_faces),
        }
        if trained is not None:
            notes[MASK_SKILL] = measure_mask(encoder, trained, self.model, self.frame, shown, min(_MASK_FACES, self.config.spread_faces))
        sha256 = save_weights(
            folder.weights, encoder, trained, model=self.cpu_model, image_size=self.frame.size, misfit=misfit, training=notes
        )
        folder.finish(progress, sha256)


def _open_recognition(name: str, device: torch.device) -> RecognitionNetwork:
    """F from a file, or the one that comes with the package."""
    path = WEIGHTS_FOLDER / "recognition.safetensors" if name == "default" else Path(name)
    if not path.is_file():
        which = "the package has no recognition network" if name == "default" else f"there is no recognition network {path}"
        remedy = "make one with `focus-backend train recognition` or `weights convert`, and name it with --set networks.recognition=FILE"
        raise WeightsError(f"{which}, which the perceptual losses want", remedy)
    return cast(RecognitionNetwork, load_network(path, "recognition", device=device)).freeze()


def _accelerator(device: str) -> str:
    """Fabric's word for a device.

    Raises:
        ConfigError: it is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return "cuda"
    known = "use --device cpu, or leave it out" if device == "cuda" else "use auto, cpu or cuda"
    raise ConfigError(f"device {device} is not available here", known)
