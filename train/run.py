"""The folder of a training run: configuration, checkpoints that a killed run goes on from, and the weights each stage ends with.

    RUN/config.toml                    the configuration in full
    RUN/<stage>/checkpoints/<step>/    encoder, segmentation, optimiser (safetensors), state.json
    RUN/<stage>/weights/               what the stage ended with, as `focus-backend reconstruct --weights` takes it
    RUN/<stage>/losses.jsonl           one line a log interval
    RUN/<stage>/pictures/, events.*    panels, and the same for TensorBoard

Nothing in it is pickled. A checkpoint is written beside its place and renamed: a kill leaves the one before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from focus_backend.errors import ConfigError, OutputError, WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import load_network, read_tensors, save_network, write_tensors, write_whole
from train.config import TrainingConfig, to_toml

_STATE = "state.json"
_DONE = "done.json"


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        step: steps that are done.
        fingerprint: of the configuration they were done with.
        sums: of the losses since the last line of the log, so that a resumed run's next line equals that of an uninterrupted one.
        seconds: spent so far.
    """

    step: int
    fingerprint: str
    sums: Mapping[str, float]
    seconds: float


class StageFolder:
    """One stage's part of a run folder."""

    def __init__(self, run: Path, stage: str) -> None:
        self.path = run / stage
        self.stage = stage
        self.weights = self.path / "weights"
        self.losses = self.path / "losses.jsonl"
        self.pictures = self.path / "pictures"
        self._checkpoints = self.path / "checkpoints"

    def save(
        self,
        progress: Progress,
        networks: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        model: FaceModel,
        keep: int,
    ) -> Path:
        """Write a checkpoint and drop the oldest beyond `keep`.

        Raises:
            OutputError: the folder cannot be written.
        """
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(dir=self._checkpoints, prefix=".writing."))
            for name, network in networks.items():
                save_network(beside / f"{name}.safetensors", network, model=model if name == "encoder" else None)
            for name, optimiser in optimisers.items():
                write_tensors(beside / f"optimiser_{name}.safetensors", "optimiser", _flattened(optimiser), {})
            write_whole(beside / _STATE, json.dumps(vars(progress) | {"stage": self.stage}).encode())
            place = self._checkpoints / f"{progress.step:08d}"
            shutil.rmtree(place, ignore_errors=True)
            beside.rename(place)
            for old in self._complete()[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
            for left in self._checkpoints.glob(".writing.*"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise OutputError(
                f"the checkpoint {self._checkpoints} cannot be written ({error.strerror or error})", "free some space"
            ) from error
        return place

    def restore(
        self, networks: Mapping[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer], model: FaceModel, fingerprint: str
    ) -> Progress | None:
        """Load the newest checkpoint into networks and optimisers; None where there is none.

        Raises:
            ConfigError: it was made with another configuration.
            WeightsError: it is damaged.
        """
        complete = self._complete()
        if not complete:
            return None
        place = complete[-1]
        progress = _read_progress(place / _STATE)
        if progress.fingerprint != fingerprint:
            raise ConfigError(
                f"{self.path} was begun with another configuration", "go on with that one (config.toml beside it), or give another --out"
            )
        for name, network in networks.items():
            saved = load_network(place / f"{name}.safetensors", name, model=model if name == "encoder" else None)
            network.load_state_dict(saved.state_dict())
        for name, optimiser in optimisers.items():
            tensors, _ = read_tensors(place / f"optimiser_{name}.safetensors", "optimiser")
            _fill(optimiser, tensors)
        return progress

    def finish(self, progress: Progress) -> None:
        """Note that the stage is done."""
        write_whole(self.path / _DONE, json.dumps(vars(progress)).encode())

    def finished(self) -> Progress | None:
        """How the stage was done; None where it was not."""
        path = self.path / _DONE
        return _read_progress(path) if path.is_file() else None

    def _complete(self) -> list[Path]:
        """Checkpoints from the oldest to the newest."""
        return sorted(path.parent for path in self._checkpoints.glob(f"*/{_STATE}") if not path.parent.name.startswith("."))


def open_run(path: Path, config: TrainingConfig) -> Path:
    """The folder of a run, made where it is missing, with the configuration in it.

    Raises:
        OutputError: it cannot be written, or something else lies there.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file", "give a folder with --out")
    if path.is_dir() and any(path.iterdir()) and not (path / "config.toml").is_file():
        raise OutputError(f"{path} holds other things than a training run", "give a new folder with --out")
    write_whole(path / "config.toml", to_toml(config).encode())
    return path


def _read_progress(path: Path) -> Progress:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        return Progress(int(values["step"]), str(values["fingerprint"]), dict(values["sums"]), float(values["seconds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged", "delete its folder and start again from the checkpoint before") from error


def _flattened(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors by `parameter.name`."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value.detach() for index, values in state.items() for name, value in values.items()}


def _fill(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The opposite of `_flattened`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
