"""`focus-backend train`: from options to runs; `train` itself is imported when it is needed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import MissingDependencyError, OutputError


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
    as_json: bool = False


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
        with _stoppable():
            weights = train(config, options.out, stages or STAGES, _say_json if options.as_json else None)
    except StoppedError:
        return 130
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept, the same command goes on", file=sys.stderr)
        return 130
    if _is_first_process():
        _say_json({"weights": str(weights)}) if options.as_json else print(f"weights: {weights}")
    return 0


def train_recognition(config: list[str], out: Path, overrides: list[str], device: str, as_json: bool = False) -> int:
    """Train the recognition network on people that do not exist; the exit code: 130 when stopped.

    Raises:
        MissingDependencyError, FocusError: as for `train_stages`.
    """
    _check_packages()
    from train.config import load_config

    settings = load_config(config, overrides).recognition
    from focus_backend.reconstruction.method import choose_device
    from train.recognition import train_recognition as run

    def report(step: int, values: Mapping[str, float]) -> None:
        if as_json:
            _say_json({"stage": "recognition", "step": step, **values})
        else:
            listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"recognition {step}/{settings.steps}: {listed}", file=sys.stderr, flush=True)

    _check_place(out)
    try:
        with _stoppable():
            path = run(settings, choose_device(device), out, report)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    _say_json({"recognition": str(path)}) if as_json else print(f"recognition network: {path}")
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


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which clusters send, ends the command as Ctrl-C does: nothing is left half-written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    older = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, older)


def _say_json(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)


def _is_first_process() -> bool:
    """Whether this is the first one of a run of several; torchrun and Fabric name them differently."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _check_place(path: Path) -> None:
    """Fail before hours of work rather than after them.

    Raises:
        OutputError: a file cannot be written there.
    """
    beside = path.parent
    while not beside.exists():
        beside = beside.parent
    if path.is_dir() or not beside.is_dir() or not os.access(beside, os.W_OK):
        raise OutputError(f"{path} cannot be written", "give another file with --out")


def _limit_threads(threads: int) -> None:
    # Libraries that read these do so when they are first imported; torchrun sets the first one itself.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
