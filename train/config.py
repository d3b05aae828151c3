"""The configuration of a training run: typed, from TOML files that inherit, with the paper's values as defaults (FOCUS.md)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from focus_backend.errors import ConfigError
from focus_backend.losses import EncoderWeights, SegmentationWeights
from focus_backend.networks.encoder import EncoderConfig
from focus_backend.networks.segmentation import MULTIPLE, SegmentationConfig
from train.data.augment import AugmentConfig
from train.data.synthetic_config import SyntheticConfig
from train.recognition import RecognitionTraining

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STAGES = ("warmstart", "init", "segmentation", "em", "misfit")
_SUFFIX = ".toml"
_DEEPEST_INHERITANCE = 8


class Section(BaseModel):
    """A part of the configuration; an unknown key is an error, and so is a number that is infinite or none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworksConfig(Section):
    """Which networks are trained, and which one judges likeness."""

    encoder: EncoderConfig = EncoderConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    # ImageNet weights of the encoder's backbone, a .safetensors or .pth file in torchvision's layout.
    imagenet: Path | None = None
    # F: a file, "default" for the one that comes with the package, or "none".
    recognition: str = "default"


class DataConfig(Section):
    """Where the faces come from."""

    kind: Literal["synthetic", "prepared"] = "synthetic"
    # Folder that `focus-backend train prepare` wrote.
    path: Path | None = None
    split: str = "train"
    validation_split: str = "val"
    augment: AugmentConfig = AugmentConfig()
    # Synthetic faces that are drawn once and used again and again; 0 draws new ones at every step.
    pool: NonNegativeInt = 0
    # Mirrors half of the pool's faces, others every time.
    mirror: bool = False
    # Processes that draw the pool, on a CPU.
    workers: PositiveInt = 1

    @model_validator(mode="after")
    def _has_path(self) -> DataConfig:
        if self.kind == "prepared" and self.path is None:
            raise ValueError('data.kind "prepared" needs data.path, a folder that `focus-backend train prepare` wrote')
        return self


class LossesConfig(Section):
    """Weights and forms of the losses."""

    encoder: EncoderWeights = EncoderWeights()
    segmentation: SegmentationWeights = SegmentationWeights()
    # Pixels a side of the window of eq 1.
    neighbour_window: PositiveInt = 3
    # M_pre of eq 9, 10: a threshold on the squared difference, or a Gaussian against a uniform outlier model.
    preliminary: Literal["threshold", "likelihood"] = "threshold"
    threshold: PositiveFloat = 0.17
    sigma: PositiveFloat = 0.043
    deviations: PositiveFloat = 3.0
    # Differences in eq 1, 5 and the binary loss count squared over the rendered pixels, or as the released code has them: by their length,
    # in eq 5 over the mask's pixels.
    differences: Literal["squares", "lengths"] = "squares"


class OptimiserConfig(Section):
    """How the losses are descended."""

    name: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: PositiveFloat = 0.1
    # Of S, as a share of R's.
    segmentation_share: PositiveFloat = 0.06
    schedule: Literal["step", "cosine"] = "step"
    decay: PositiveFloat = 0.99
    segmentation_decay: PositiveFloat = 0.99
    decay_every: PositiveInt = 5000
    weight_decay: NonNegativeFloat = 0.0
    # Longest gradient, 0 for any.
    clip_norm: NonNegativeFloat = 0.0


class StageConfig(Section):
    """One stage."""

    steps: NonNegativeInt
    batch_size: PositiveInt = 12
    # Instead of the optimiser's; of S, without its share.
    learning_rate: PositiveFloat | None = None


class InitConfig(StageConfig):
    """Step 1."""

    steps: NonNegativeInt = 300_000


class SegmentationStartConfig(StageConfig):
    """Step 2: S learns M_pre of R as it is, or, which the paper does without, the known masks of synthetic faces."""

    target: Literal["difference", "truth"] = "difference"

    steps: NonNegativeInt = 30_000
    learning_rate: PositiveFloat | None = 0.03


class WarmStartConfig(StageConfig):
    """Stage 0, which is not the paper's: theta learnt from synthetic faces where it is known."""

    steps: NonNegativeInt = 0


class EmConfig(StageConfig):
    """Step 3: in every `cycle` steps S learns for the first `segmentation_steps` and R for the rest."""

    steps: NonNegativeInt = 200_000
    cycle: PositiveInt = 30_000
    segmentation_steps: NonNegativeInt = 5_000

    @model_validator(mode="after")
    def _fits(self) -> EmConfig:
        if self.segmentation_steps > self.cycle:
            raise ValueError("em.segmentation_steps is longer than em.cycle")
        return self


class MisfitConfig(StageConfig):
    """Eq 11: R learns its own renders again, and what it gets wrong on average is kept. No steps, no misfit prior."""

    steps: NonNegativeInt = 0
    # Random theta whose errors are averaged.
    faces: PositiveInt = 2_000


class LoggingConfig(Section):
    """What a run writes, in steps."""

    log_every: PositiveInt = 100
    picture_every: PositiveInt = 1_000
    checkpoint_every: PositiveInt = 5_000
    # Checkpoints kept of a stage.
    keep: PositiveInt = 2
    pictures: PositiveInt = 8


class ComputeConfig(Section):
    """On what a run computes."""

    device: str = "auto"
    devices: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    # torch.compile of the trained networks.
    compile: bool = False
    # Processor threads of one process.
    threads: PositiveInt = 2


class TrainingConfig(Section):
    """Everything that decides a training run."""

    name: str = "focus"
    seed: int = 0
    model: str = "anny"
    image_size: PositiveInt = 224
    # What stands for M when R is trained: S, nothing, the truth, or a model of skin colour.
    mask: Literal["network", "none", "truth", "skin"] = "network"
    # Of photos whose mask is known.
    mask_augmentation: Literal["none", "cutmix", "cutout"] = "none"
    # Synthetic faces by which a stage's weights learn how far off they are; a fit that starts from them asks.
    spread_faces: PositiveInt = 512
    networks: NetworksConfig = NetworksConfig()
    data: DataConfig = DataConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    losses: LossesConfig = LossesConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    warmstart: WarmStartConfig = WarmStartConfig()
    init: InitConfig = InitConfig()
    segmentation: SegmentationStartConfig = SegmentationStartConfig()
    em: EmConfig = EmConfig()
    misfit: MisfitConfig = MisfitConfig()
    # How F is trained where ArcFace is not at hand; a command of its own.
    recognition: RecognitionTraining = RecognitionTraining()
    logging: LoggingConfig = Field(default=LoggingConfig())
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _is_possible(self) -> TrainingConfig:
        multiple = MULTIPLE * self.networks.segmentation.shrink
        if self.image_size % multiple:
            raise ValueError(f"image_size must be a multiple of {multiple}, which the segmentation network shrinks and halves four times")
        return self

    def stage(self, name: str) -> StageConfig:
        """The section of a stage."""
        return getattr(self, name)

    def uses_recognition(self, stage: str) -> bool:
        """Whether a stage has perceptual losses."""
        if stage in ("warmstart", "segmentation"):
            return False
        of_segmentation = self.losses.segmentation.distance or self.losses.segmentation.preserve
        return bool(self.losses.encoder.perceptual or (stage == "em" and self.mask == "network" and of_segmentation))

    def trains_segmentation(self, stage: str) -> bool:
        """Whether S has learnt anything by the end of a stage."""
        so_far = STAGES[: STAGES.index(stage) + 1]
        in_em = self.mask == "network" and bool(self.em.steps and self.em.segmentation_steps)
        return ("segmentation" in so_far and self.segmentation.steps > 0) or ("em" in so_far and in_em)

    def fingerprint(self, stage: str) -> str:
        """Hash of all that changes what a stage computes; logging and the number of steps of other stages do not."""
        document = self.model_dump(
            mode="json", exclude={"name", "spread_faces", "recognition", "logging", "compute", *(set(STAGES) - {stage})}
        )
        # A longer run goes on from a shorter one, unless its learning rate hangs on the length.
        if self.optimiser.schedule == "step":
            document[stage].pop("steps")
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def load_config(sources: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> TrainingConfig:
    """The configuration of a file, or of one that comes with the package by name.

    Args:
        sources: one, or several of which the later lie over the earlier.
        overrides: `section.key=value`, over all of them.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a value that cannot be used; the line names it.
    """
    names = [str(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    values = _layered(names, ())
    for override in overrides:
        _override(values, override)
    try:
        return TrainingConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the configuration"
        reason = first["msg"].removeprefix("Value error, ")
        problem = f"{place} in {' + '.join(names)}: {reason[0].lower()}{reason[1:]}"
        raise ConfigError(problem, "correct it, or leave it out for the default") from None


def config_names() -> list[str]:
    """Names of the configurations that come with the package."""
    folder = resources.files("train") / "configs"
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))


def to_toml(config: TrainingConfig) -> str:
    """The configuration in full, as a file that `load_config` reads."""
    return "\n".join(_toml_lines(config.model_dump(mode="json"), ())) + "\n"


def _layered(names: list[str], seen: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in names:
        values = _merged(values, _read(name, seen))
    return values


def _read(source: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The values of a file laid over those of the ones it extends."""
    if source in seen or len(seen) > _DEEPEST_INHERITANCE:
        raise ConfigError(f"configuration {source} extends itself", "break the circle of `extends`")
    try:
        values = tomllib.loads(_text_of(source))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is no TOML: {str(error).splitlines()[0]}", "correct the file") from None
    parents = values.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"extends in {source} is not a name or a file, or a list of them", 'write extends = "focus"')
    return _merged(_layered([_beside(source, parent) for parent in parents], (*seen, source)), values)


def _beside(source: str, parent: str) -> str:
    """Files name their parents relative to themselves."""
    path = Path(source).parent / parent
    return str(path) if parent.endswith(_SUFFIX) and source.endswith(_SUFFIX) and path.exists() else parent


def _text_of(source: str) -> str:
    if source in config_names():
        return (resources.files("train") / "configs" / f"{source}{_SUFFIX}").read_text(encoding="utf-8")
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        names = ", ".join(config_names())
        raise ConfigError(f"there is no readable configuration {source}", f"give a TOML file, or one of {names}") from None


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    """Sets one `section.key=value`; the value is TOML, or a bare word."""
    path, sign, text = override.partition("=")
    names = path.strip().split(".")
    if not sign or not all(names):
        raise ConfigError(f"--set {override} is not section.key=value", "write for instance --set em.steps=1000")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for name in names[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {name} is not a section", "write for instance --set em.steps=1000")
    values[names[-1]] = value


def _toml_lines(section: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Plain values first, for a table's keys end where the next table begins. TOML has no null: what is None is left out."""
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in section.items()
        if value is not None and not isinstance(value, dict)
    ]
    for key, value in section.items():
        if isinstance(value, dict):
            lines += ["", f"[{'.'.join((*path, key))}]", *_toml_lines(value, (*path, key))]
    return lines
