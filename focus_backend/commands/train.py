"""`focus-backend train`: from options to runs; `train` itself is imported when it is needed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import MissingDependencyError


@dataclass(frozen=True)
class TrainOptions:
    """What every stage takes; `None` leaves a choice to the configuration."""

    config: list[str]
    out: Path
    overrides: list[str]
    device: str | None = None
    devices: int | None = None
    precision: str | None = None
    threads: int | None = None


def train_stages(options: TrainOptions, stages: tuple[str, ...] | None) -> int:
    """Train stages, all of them for `None`; the exit code: 130 when stopped.

    Raises:
        MissingDependencyError: the packages for training are not installed.
        FocusError: as `train.stages.train` says.
    """
    _check_packages()
    given = {"device": options.device, "devices": options.devices, "precision": options.precision, "threads": options.threads}
    overrides = [*options.overrides, *(f"compute.{name}={json.dumps(value)}" for name, value in given.items() if value is not None)]
    from train.config import STAGES, load_config

    config = load_config(options.config, overrides)
    _limit_threads(config.compute.threads)
    from train.stages import train
    from train.trainer import StoppedError

    try:
        weights = train(config, options.out, stages or STAGES)
    except StoppedError:
        return 130
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"weights: {weights}")
    return 0


def train_recognition(config: list[str], out: Path, overrides: list[str], device: str) -> int:
    """Train the recognition network on people that do not exist; the exit code."""
    _check_packages()
    from train.config import load_config

    settings = load_config(config, overrides).recognition
    from focus_backend.commands.reconstruct import choose_device
    from train.recognition import train_recognition as run

    def report(step: int, values: object) -> None:
        print(json.dumps({"step": step, **dict(values)}), flush=True)  # type: ignore[call-overload]

    print(f"recognition network: {run(settings, choose_device(device), out, report)}")
    return 0


def list_configs(as_json: bool) -> None:
    """Names of the configurations that come with the package."""
    from train.config import config_names

    names = config_names()
    print(json.dumps(names) if as_json else "\n".join(names))


def show_config(config: list[str], overrides: list[str]) -> None:
    """A configuration in full, as a file."""
    from train.config import load_config, to_toml

    print(to_toml(load_config(config, overrides)), end="")


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("lightning_fabric", "tensorboard") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"training needs {', '.join(missing)}", 'install them with pip install "focus-backend[train]"')


def _limit_threads(threads: int) -> None:
    # Libraries that read these do so when they are first imported; torchrun sets the first one itself.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
