"""The stages of FOCUS in their order: warm start (optional), R without labels, S, EM, misfit prior (FOCUS.md, "Schedule")."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import torch
from jaxtyping import Float
from torch import Tensor, nn

from focus_backend.errors import ConfigError, TrainingError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.checkpoint import load_network
from focus_backend.networks.encoder import Encoder, load_imagenet
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationNetwork
from focus_backend.networks.weights import WEIGHTS_FOLDER, load_weights, save_weights
from train import masks, steps
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits
from train.config import STAGES, TrainingConfig
from train.data.batch import FaceBatch, FaceSource
from train.data.pool import PooledFaces
from train.data.synthetic import SyntheticFaces
from train.misfit import RenderedFaces, draw_misfit, mean_misfit
from train.run import Progress, StageFolder, open_run
from train.spread import coefficient_spread
from train.trainer import ENCODER, SEGMENTATION, Stage, Trainer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Seeds of what is looked at, apart from what is learnt from.
_VALIDATION_SEED = 7_777_777
_MISFIT_SEED = 3_333_333


def train(config: TrainingConfig, run: Path, stages: tuple[str, ...] = STAGES) -> Path:
    """Train the given stages, each from where the one before ended; stages with no steps are left out.

    Returns:
        The weights folder of the last one.

    Raises:
        ConfigError: the configuration cannot be used here, or the run was begun with another one.
        TrainingError: a stage that has to come before is missing, or losses are not finite.
        StoppedError: asked to stop; the same call goes on.
    """
    session = Session(config, open_run(run, config))
    wanted = [stage for stage in stages if config.stage(stage).steps]
    if not wanted:
        raise ConfigError(f"nothing to train: {', '.join(stages)} has no steps", "set its steps")
    for stage in wanted:
        session.run_stage(stage)
    return StageFolder(run, wanted[-1]).weights


@dataclass
class Session:
    """One process's share of a run; parts are made when they are first wanted."""

    config: TrainingConfig
    run: Path

    @cached_property
    def fabric(self) -> Fabric:
        """Devices and precision, from the configuration or from torchrun."""
        from lightning_fabric import Fabric

        compute = self.config.compute
        torch.set_num_threads(compute.threads)
        fabric = Fabric(accelerator=_accelerator(compute.device), devices=compute.devices, precision=compute.precision)
        fabric.launch()
        return fabric

    @cached_property
    def model(self) -> FaceModel:
        """The face model on the training device."""
        return load_model(self.config.model).to(self.fabric.device)

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
        losses = self.config.losses
        is_wanted = bool(losses.encoder.perceptual or losses.segmentation.distance or losses.segmentation.preserve)
        if not is_wanted:
            return None
        if self.config.networks.recognition == "none":
            remedy = "set losses.encoder.perceptual, losses.segmentation.distance and losses.segmentation.preserve to 0, or name a network"
            raise ConfigError('networks.recognition is "none", but perceptual losses have weights', remedy)
        return _open_recognition(self.config.networks.recognition, self.fabric.device)

    @cached_property
    def source(self) -> FaceSource:
        """Faces to learn from."""
        config, data = self.config, self.config.data
        if data.kind == "prepared":
            return self._prepared(data.split, config.seed, is_augmented=True)
        faces = self._synthetic(config.seed)
        if not data.pool:
            return faces
        if self.fabric.device.type != "cpu":
            raise ConfigError("data.pool keeps faces in the processor's memory", "leave it out on a GPU, which draws faster than it learns")
        key = f"{config.seed} {config.image_size} {config.model} {config.synthetic.model_dump_json()} {data.pool} {self.fabric.world_size}"
        file = self.run / f"faces-{self.fabric.global_rank}.safetensors"
        return PooledFaces(faces, data.pool, seed=config.seed, rank=self.fabric.global_rank, file=file, key=key)

    @cached_property
    def validation(self) -> FaceSource:
        """Faces to look at, the same ones every time."""
        data = self.config.data
        if data.kind == "prepared":
            return self._prepared(data.validation_split, _VALIDATION_SEED, is_augmented=False)
        return self._synthetic(_VALIDATION_SEED)

    def run_stage(self, name: str) -> None:
        """Train one stage, unless that was done before."""
        folder, steps_wanted = StageFolder(self.run, name), self.config.stage(name).steps
        fingerprint = self.config.fingerprint(name)
        done = folder.finished()
        if done is not None and done.fingerprint == fingerprint and done.step >= steps_wanted:
            self.fabric.print(f"{name}: done before, {done.step} steps")
            return
        encoder, segmentation, before = self._start(name)
        parts = self._set_up(encoder, segmentation)
        faces = self._misfit_faces(_MISFIT_SEED) if name == "misfit" else self.source
        shown = self._misfit_faces(_VALIDATION_SEED) if name == "misfit" else self.validation
        trainer = Trainer(self.fabric, parts, faces, shown, self.config.optimiser, self.config.logging, self.config.seed)
        progress = trainer.run(self._stage(name, parts), folder, fingerprint)
        if self.fabric.is_global_zero:
            self._finish(name, folder, encoder, segmentation, before, progress)
        self.fabric.barrier()

    def _stage(self, name: str, parts: Parts) -> Stage:
        """What the stage of a name computes."""
        config, losses = self.config, self.config.losses
        rates = self._rates(name)
        section = config.stage(name)
        if name == "em":
            return self._em(parts, rates)
        if name == "segmentation":
            return Stage(name, section, lambda step: SEGMENTATION, self._segmentation_start(parts), rates, uses_segmentation=True)
        if name == "warmstart":
            shares = coefficient_shares(self.model)
            return Stage(name, section, lambda step: ENCODER, lambda step, batch: steps.warm_start_step(parts, batch, shares), rates)
        is_masked = name == "init" and config.mask != "none"
        mask_of = masks.by_difference(losses) if is_masked else masks.everything
        return Stage(name, section, lambda step: ENCODER, lambda step, batch: steps.encoder_step(parts, losses, batch, mask_of), rates)

    def _em(self, parts: Parts, rates: Mapping[str, float]) -> Stage:
        """Step 3. With masks that are given, S has nothing to learn here, and R learns all the time."""
        em, losses, seed, mask_of = self.config.em, self.config.losses, self.config.seed, self._mask_of(parts)
        alternates = self.config.mask == "network"

        def learner(step: int) -> str:
            return SEGMENTATION if alternates and step % em.cycle < em.segmentation_steps else ENCODER

        def compute(step: int, batch: FaceBatch) -> steps.StepOutcome:
            if learner(step) == SEGMENTATION:
                return steps.segmentation_step(parts, losses, batch)
            return steps.encoder_step(parts, losses, masks.augmented(batch, self.config.mask_augmentation, seed, step), mask_of)

        return Stage("em", em, learner, compute, rates if alternates else {ENCODER: rates[ENCODER]}, alternates)

    def _segmentation_start(self, parts: Parts) -> Any:
        """Step 2: M_pre of the trained R, or for the supervised variants the truth."""
        config = self.config
        is_supervised = config.mask == "truth"
        target = masks.of_truth if is_supervised else masks.by_difference(config.losses)
        kind = config.mask_augmentation if is_supervised else "none"
        return lambda step, batch: steps.segmentation_start_step(parts, masks.augmented(batch, kind, config.seed, step), target)

    def _mask_of(self, parts: Parts) -> masks.MaskOf:
        """What stands for M when R learns."""
        kind = self.config.mask
        if kind == "network":
            return masks.by_network(parts)
        if kind == "none":
            return masks.everything
        if kind == "skin":
            return masks.by_skin_colour(self.source)
        if self.source.batch(0, 1).mask is None:
            raise ConfigError('mask = "truth" needs photos with masks', "prepare CelebAMask-HQ or AR, or use synthetic faces")
        return masks.of_truth

    def _rates(self, name: str) -> dict[str, float]:
        optimiser, section = self.config.optimiser, self.config.stage(name)
        rate = section.learning_rate or optimiser.learning_rate
        if name == "segmentation":
            return {SEGMENTATION: section.learning_rate or optimiser.learning_rate * optimiser.segmentation_share}
        return {ENCODER: rate, SEGMENTATION: rate * optimiser.segmentation_share} if name == "em" else {ENCODER: rate}

    def _start(self, name: str) -> tuple[Encoder, SegmentationNetwork, str | None]:
        """The networks a stage starts with, on the CPU, and the stage they come from."""
        before = [stage for stage in STAGES[: STAGES.index(name)] if self.config.stage(stage).steps]
        if not before:
            if name not in ("warmstart", "init"):
                raise TrainingError(
                    f"{name} needs a trained encoder, but no stage before it has steps", "set init.steps or warmstart.steps"
                )
            return (*self._fresh(), None)
        folder = StageFolder(self.run, before[-1])
        if folder.finished() is None:
            raise TrainingError(
                f"{name} starts from {before[-1]}, which is not done in {self.run}",
                f"run `focus-backend train {before[-1]}` first, or `train all`",
            )
        weights = load_weights(folder.weights, self.model.to("cpu"))
        encoder = copy.deepcopy(weights.encoder)
        segmentation = self._fresh()[1] if weights.segmentation is None else copy.deepcopy(weights.segmentation)
        if encoder.config != self.config.networks.encoder or segmentation.config != self.config.networks.segmentation:
            raise ConfigError(f"{folder.weights} holds other networks than the configuration names", "give another --out")
        return encoder.requires_grad_(True), segmentation.requires_grad_(True), before[-1]

    def _fresh(self) -> tuple[Encoder, SegmentationNetwork]:
        """New networks; the same ones for the same seed."""
        torch.manual_seed(self.config.seed)
        encoder = Encoder(self.config.networks.encoder, self.model.to("cpu"), self.config.image_size)
        segmentation = SegmentationNetwork(self.config.networks.segmentation)
        if self.config.networks.imagenet is not None:
            load_imagenet(encoder.backbone, self.config.networks.imagenet)
        return encoder, segmentation

    def _set_up(self, encoder: Encoder, segmentation: SegmentationNetwork) -> Parts:
        """The networks on their devices."""

        def called(network: nn.Module) -> nn.Module:
            channels_last = cast(Any, network).to(memory_format=torch.channels_last)
            compiled = torch.compile(channels_last) if self.config.compute.compile else channels_last
            return self.fabric.setup_module(cast(nn.Module, compiled))

        encode, segment = called(EncoderOutputs(encoder)), called(SegmentationLogits(segmentation))
        return Parts(self.model, self.frame, encoder, segmentation, encode, segment, self.recognition, self.fabric.autocast)

    def _finish(
        self, name: str, folder: StageFolder, encoder: Encoder, segmentation: SegmentationNetwork, before: str | None, progress: Progress
    ) -> None:
        """Leave the stage's weights, with what inference wants to know of them."""
        misfit = None
        device = self.fabric.device
        if name == "misfit":
            assert before is not None
            misfit = mean_misfit(encoder, self.model, self._misfit_faces(_VALIDATION_SEED), self.config.misfit.faces)
            folder.pictures.mkdir(parents=True, exist_ok=True)
            picture = draw_misfit(self.model, self.frame, misfit)
            cv2.imwrite(str(folder.pictures / "misfit.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            # R_syn served to find the misfit; photos are R's.
            encoder = load_weights(StageFolder(self.run, before).weights, self.model.to("cpu")).encoder.to(device)
        notes = {
            "config": self.config.name,
            "stage": name,
            "steps": progress.step,
            "data": self.config.data.kind,
            **coefficient_spread(encoder.eval(), self._synthetic(_VALIDATION_SEED), self.config.spread_faces),
        }
        model = self.model.to("cpu")
        misfit = None if misfit is None else misfit.cpu()
        trained = segmentation if self._has_segmentation(name) else None
        save_weights(folder.weights, encoder, trained, model=model, image_size=self.frame.size, misfit=misfit, training=notes)
        folder.finish(progress)

    def _has_segmentation(self, name: str) -> bool:
        """Whether S has learnt anything by the end of a stage."""
        config, behind = self.config, STAGES[: STAGES.index(name) + 1]
        learns_in_em = config.mask == "network" and bool(config.em.steps and config.em.segmentation_steps)
        return ("segmentation" in behind and config.segmentation.steps > 0) or ("em" in behind and learns_in_em)

    def _synthetic(self, seed: int) -> SyntheticFaces:
        fabric = self.fabric
        rank, world = fabric.global_rank, fabric.world_size
        return SyntheticFaces(self.model, self.frame, self.config.synthetic, seed=seed, rank=rank, world=world, device=fabric.device)

    def _misfit_faces(self, seed: int) -> RenderedFaces:
        return RenderedFaces(self._synthetic(seed))

    def _prepared(self, split: str, seed: int, is_augmented: bool) -> FaceSource:
        from train.data.prepared import PreparedFaces

        data = self.config.data
        assert data.path is not None
        return PreparedFaces(
            data.path,
            self.frame,
            split=split,
            seed=seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            augment=data.augment if is_augmented else None,
            device=self.fabric.device,
        )


def coefficient_shares(model: FaceModel) -> dict[str, Float[Tensor, "n"]]:
    """Share of each shape and expression coefficient in how far random coefficients move the vertices of the face."""
    vertices = model.triangles[model.triangle_in_face].unique()
    shares = {}
    for name, basis in (("shape", model.shape_basis), ("expression", model.expression_basis)):
        energy = basis[:, vertices].square().sum((1, 2))
        shares[name] = energy / energy.sum().clamp(min=1e-12)
    return shares


def _open_recognition(name: str, device: torch.device) -> RecognitionNetwork:
    """F from a file, or the one that comes with the package."""
    path = WEIGHTS_FOLDER / "recognition.safetensors" if name == "default" else Path(name)
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
    raise ConfigError(f"device {device} is not available here", "use --device cpu, or leave it out")
