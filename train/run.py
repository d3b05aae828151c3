"""The folder of a training run: configuration, checkpoints that a killed run goes on from, and the weights each stage ends with.

    RUN/config.toml                    the configuration in full
    RUN/<stage>/checkpoints/<step>/    encoder, segmentation, optimiser (safetensors), state.json
    RUN/<stage>/weights/               what the stage ended with, as `focus-backend reconstruct --weights` takes it
    RUN/<stage>/losses.jsonl           one line a log interval
    RUN/<stage>/pictures/, events.*    panels, and the same for TensorBoard

Nothing in it is pickled. A checkpoint is written beside its place and renamed: a kill leaves the one before. A stage remembers the
weights it began from, and does not go on, nor count as done, when they have changed. One process at a time writes to a run.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from focus_backend.errors import ConfigError, OutputError, WeightsError
from focus_backend.files import write_whole
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import load_network, read_tensors, save_network, write_tensors
from train.config import TrainingConfig, to_toml

_CONFIG = "config.toml"
_LOCK = ".lock"
_STATE = "state.json"
_DONE = "done.json"
_WRITING = ".writing."


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        step: steps that are done.
        fingerprint: of the configuration they were done with.
        start: sha256 of the weights that the stage began from, "" where it began from none.
        sums: of the losses since the last line of the log, so that a resumed run's next line equals that of an uninterrupted one.
        seconds: spent so far.
        weights: sha256 of the weights that the stage ended with, "" before that.
    """

    step: int
    fingerprint: str
    start: str = ""
    sums: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    weights: str = ""


class StageFolder:
    """One stage's part of a run folder."""

    def __init__(self, run: Path, stage: str) -> None:
        self.path = run / stage
        self.stage = stage
        self.weights = self.path / "weights"
        self.losses = self.path / "losses.jsonl"
        self.pictures = self.path / "pictures"
        self.config = self.path / _CONFIG
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
        place, beside = self._checkpoints / f"{progress.step:08d}", None
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(dir=self._checkpoints, prefix=_WRITING))
            for name, network in networks.items():
                save_network(beside / f"{name}.safetensors", network, model=model if name == "encoder" else None)
            for name, optimiser in optimisers.items():
                write_tensors(beside / f"optimiser_{name}.safetensors", "optimiser", _flattened(optimiser), {})
            write_whole(beside / _STATE, json.dumps(vars(progress) | {"stage": self.stage}).encode())
            shutil.rmtree(place, ignore_errors=True)
            beside.rename(place)
        except (OSError, OutputError) as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            remedy = "free some space; the same command goes on from the checkpoint before, if any"
            raise OutputError(f"the checkpoint {place} cannot be written ({reason})", remedy) from error
        finally:
            if beside is not None:
                shutil.rmtree(beside, ignore_errors=True)
        # What a killed process left half-written goes with the oldest.
        for old in [*self._complete()[:-keep], *self._checkpoints.glob(f"{_WRITING}*")]:
            shutil.rmtree(old, ignore_errors=True)
        return place

    def restore(
        self, networks: Mapping[str, nn.Module], optimisers: Mapping[str, torch.optim.Optimizer], model: FaceModel, new: Progress
    ) -> Progress:
        """Load the newest checkpoint into networks and optimisers; `new` where there is none.

        Raises:
            ConfigError: it was made with another configuration, or from other weights, than `new` says.
            WeightsError: it is damaged.
        """
        complete = self._complete()
        if not complete:
            return new
        place = complete[-1]
        progress = _read_progress(place / _STATE)
        self.check(progress, new)
        try:
            for name, network in networks.items():
                saved = load_network(place / f"{name}.safetensors", name, model=model if name == "encoder" else None)
                network.load_state_dict(saved.state_dict())
            for name, optimiser in optimisers.items():
                tensors, _ = read_tensors(place / f"optimiser_{name}.safetensors", "optimiser")
                _fill(optimiser, tensors)
        except WeightsError as error:
            raise WeightsError(error.problem, f"delete {place}; the same command goes on from the checkpoint before, if any") from error
        return progress

    def begun(self) -> Progress | None:
        """How far the stage is by its newest checkpoint, or was when it was done; None where it was never begun."""
        complete = self._complete()
        return _read_progress(complete[-1] / _STATE) if complete else self.finished()

    def check(self, begun: Progress, new: Progress) -> None:
        """Whether what was begun may be gone on with.

        Raises:
            ConfigError: it was begun with another configuration, or from other weights.
        """
        if begun.fingerprint != new.fingerprint:
            remedy = f"go on with that one ({self.config}), delete {self.path} to start it again, or give another --out"
            raise ConfigError(f"{self.path} was begun with another configuration", remedy)
        if begun.start != new.start:
            raise ConfigError(
                f"{self.path} was begun from other weights than the stage before it has now",
                f"delete {self.path} to train it again, or give another --out",
            )

    def finish(self, progress: Progress, weights: str) -> None:
        """Note that the stage is done, and the sha256 of what it ended with."""
        write_whole(self.path / _DONE, json.dumps(vars(replace(progress, weights=weights))).encode())

    def finished(self) -> Progress | None:
        """How the stage was done; None where it was not."""
        path = self.path / _DONE
        return _read_progress(path) if path.is_file() else None

    def _complete(self) -> list[Path]:
        """Checkpoints from the oldest to the newest."""
        return sorted(path.parent for path in self._checkpoints.glob(f"*/{_STATE}") if not path.parent.name.startswith("."))


def check_run(path: Path) -> None:
    """Whether a folder is that of a run, or can become one; nothing is written.

    Raises:
        OutputError: something else lies there, or it cannot be read.
    """
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file", "give a folder with --out")
        others = path.is_dir() and not (path / _CONFIG).is_file() and any(not entry.name.startswith(".") for entry in path.iterdir())
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror or error})", "give another folder with --out") from error
    if others:
        raise OutputError(f"{path} holds other things than a training run", "give a new folder with --out")


def open_run(path: Path, config: TrainingConfig) -> Path:
    """The folder of a run, made where it is missing, with the configuration of the newest command in it.

    Raises:
        OutputError: it cannot be written, or something else lies there.
    """
    check_run(path)
    write_whole(path / _CONFIG, to_toml(config).encode())
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from training in the folder of a run, which is made where it is missing. The system lets go of the lock
    when the process ends, however it ends.

    Raises:
        OutputError: another process trains in it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((path / _LOCK).open("w"))
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror or error})", "give another folder with --out") from error
        try:
            _lock(file)
        except OSError as error:
            raise OutputError(f"another process trains in {path}", "wait for it or stop it, or give another --out") from error
        yield


def _lock(file: IO[str]) -> None:
    """Lock an open file, or raise; where the disk knows no locks, nothing happens."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise


def _read_progress(path: Path) -> Progress:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        start, weights = str(values.get("start", "")), str(values.get("weights", ""))
        return Progress(int(values["step"]), str(values["fingerprint"]), start, dict(values["sums"]), float(values["seconds"]), weights)
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
    # Files are contiguous; kernels that work on many parameters at once want state and parameter laid out alike.
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
