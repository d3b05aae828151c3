"""Training speed: `python -m benchmarks.training [--config light] [--batch 4,8] [--device auto] [--repeat 10] [--set KEY=VALUE ...]`.

Times whole steps of R and of S as the EM stage does them, and the parts of a step: drawing the faces, encoder forward, decoder (face
model and renderer) forward, all else of the losses (masks, S, recognition), backward, optimiser. The parts are measured one after the
other, with the device awaited in between, so their sum exceeds an undisturbed step. "x floor" is the step's time over that of its
matrix products and convolutions at the speed of one large product measured here. Synthetic faces are drawn anew at every step.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from focus_backend.networks.checkpoint import save_network
from focus_backend.networks.decoder import decode
from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork
from focus_backend.rendering.rasterize_triton import is_triton_available
from train.autoencoder import Parts
from train.config import load_config
from train.logs import Sums
from train.stages import Session
from train.trainer import ENCODER, SEGMENTATION, Stage, Trainer

# Names of this benchmark for configurations, and the recognition network that goes with them.
CONFIGS = {"light": ("light", "small"), "paper": ("focus", "iresnet50")}
PARTS = ("faces", "encoder forward", "decoder forward", "losses", "backward", "optimiser")
# Side of the matrices whose product is taken for the device's peak.
PRODUCT_SIDE = {"cpu": 1024, "cuda": 8192}


@dataclass
class Clock:
    """Seconds between laps, by name; a CUDA device is awaited at each."""

    device: torch.device
    laps: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0

    def start(self) -> None:
        """Begin."""
        self._await()
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End of a part."""
        self._await()
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now

    def _await(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass
class Bench:
    """A training session at its EM stage, with networks that know nothing: speed does not depend on their values."""

    session: Session
    parts: Parts
    stage: Stage
    trainer: Trainer
    optimisers: dict[str, torch.optim.Optimizer]

    @classmethod
    def of(cls, session: Session) -> Bench:
        """Set up networks, stage and optimisers as a run would."""
        config = session.config
        parts = session.set_up(*session.fresh())
        source = session.source
        trainer = Trainer(session.fabric, parts, source, source, config.optimiser, config.logging, config.seed)
        stage = session.stage("em", parts)
        optimisers = {name: trainer.optimiser_of(parts.networks()[name], rate) for name, rate in stage.learning_rates.items()}
        return cls(session, parts, stage, trainer, optimisers)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.session.fabric.device

    def step_of(self, learner: str) -> int:
        """A step at which this network learns."""
        return 0 if learner == SEGMENTATION else self.session.config.em.segmentation_steps

    def whole_step(self, learner: str) -> None:
        """One step, just as in training."""
        self.trainer.step(self.stage, self.step_of(learner), learner, self.optimisers[learner], Sums())

    def gradients(self, learner: str) -> None:
        """Faces, losses and backward pass of one step, without the optimiser, which has counters of its own on the CPU."""
        step = self.step_of(learner)
        batch = self.session.source.batch(step, self.stage.config.batch_size)
        self.session.fabric.backward(self.stage.compute(step, batch).total)
        self.optimisers[learner].zero_grad(set_to_none=True)

    def parts_of_step(self, learner: str) -> dict[str, float]:
        """Seconds of each part of one step; encoder and decoder are run once more for it, on the same faces."""
        for name, network in self.parts.calls().items():
            network.train(name == learner).requires_grad_(name == learner)
        step, parts, clock = self.step_of(learner), self.parts, Clock(self.device)
        clock.start()
        batch = self.session.source.batch(step, self.stage.config.batch_size)
        clock.lap("faces")
        with torch.set_grad_enabled(learner == ENCODER):
            theta = parts.encoder.theta(parts.encode(batch.image))
            clock.lap("encoder forward")
            decoded = decode(parts.model, parts.frame, theta, background=batch.image.permute(0, 2, 3, 1))
            clock.lap("decoder forward")
        del theta, decoded
        clock.start()
        total = self.stage.compute(step, batch).total
        clock.lap("losses")
        self.session.fabric.backward(total)
        clock.lap("backward")
        self._descend(learner)
        clock.lap("optimiser")
        clock.laps["losses"] -= clock.laps["encoder forward"] + clock.laps["decoder forward"]
        return clock.laps

    def _descend(self, learner: str) -> None:
        optimiser, settings = self.optimisers[learner], self.session.config.optimiser
        if settings.clip_norm:
            network = self.parts.calls()[learner]
            self.session.fabric.clip_gradients(network, optimiser, max_norm=settings.clip_norm, error_if_nonfinite=False)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


class _Operators(TorchDispatchMode):
    """Counts the operators that are dispatched: about the number of kernels that CUDA would launch, and more for composed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def count_operators(run: Callable[[], object]) -> int:
    """Operators that a run dispatches."""
    with _Operators() as operators:
        run()
    return operators.count


def suspect_synchronisations(run: Callable[[], object]) -> Counter[str]:
    """Operators of a run on the CPU that would make the host wait on CUDA; `numpy` is the CPU's own compiled renderer."""
    from tests.synchronisation import count_synchronisations

    with count_synchronisations() as found:
        run()
    return found


def find_synchronisations(run: Callable[[], object]) -> Counter[str]:
    """Where a run makes the host wait for CUDA, as torch reports it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    return Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in waits)


def measure_peak(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product, in the precision of the networks; on CUDA TF32 for float32, as convolutions do."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    side = PRODUCT_SIDE[device.type]
    matrix = torch.rand(side, side, device=device, dtype=dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        seconds = time_runs(lambda: matrix @ matrix, 7, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * side**3 / statistics.median(seconds)


def time_runs(run: Callable[[], object], repeat: int, device: torch.device) -> list[float]:
    """Seconds of repeated runs, after two to warm up and compile."""
    clock, seconds = Clock(device), []
    for index in range(repeat + 2):
        clock.start()
        run()
        clock.lap("run")
        if index >= 2:
            seconds.append(clock.laps["run"])
    return seconds


def count_flops(run: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions of a run, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def describe(bench: Bench) -> str:
    """Machine, versions and configuration, one line each."""
    session, config, device = bench.session, bench.session.config, bench.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor() or platform.machine()} CPU"
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    triton = "with triton" if is_triton_available() else "without triton"
    networks = f"{config.networks.encoder.backbone}, segmentation width {config.networks.segmentation.width}"
    recognition = "none" if session.recognition is None else session.recognition.config.architecture
    return "\n".join(
        [
            f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads{load}",
            f"python {platform.python_version()}, torch {torch.__version__} {triton}",
            f"configuration {config.name}: {networks}, recognition {recognition}; {config.image_size} px, "
            f"{config.compute.precision}{', compiled' if config.compute.compile else ''}; face model {session.model.name}",
        ]
    )


def report(bench: Bench, learner: str, repeat: int, peak: float) -> dict[str, str]:
    """One column of the table."""
    device, size = bench.device, bench.stage.config.batch_size
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = time_runs(lambda: bench.whole_step(learner), repeat, device)
    whole = statistics.median(seconds)
    column = {
        "images/s: median (slowest, fastest)": f"{size / whole:.1f} ({size / max(seconds):.1f}, {size / min(seconds):.1f})",
        "step, ms": f"{1e3 * whole:.1f}",
    }
    laps = [bench.parts_of_step(learner) for _ in range(repeat + 1)][1:]
    medians = {part: statistics.median(lap[part] for lap in laps) for part in PARTS}
    for part, value in medians.items():
        column[f"  {part}"] = f"{1e3 * value:.1f} ms  {value / sum(medians.values()):4.0%}"
    flops = count_flops(lambda: bench.whole_step(learner))
    column["GFLOP a step"] = f"{flops / 1e9:.1f}"
    column["x floor"] = f"{whole / (flops / peak):.1f}"
    column["operators dispatched"] = str(count_operators(lambda: bench.whole_step(learner)))
    if device.type == "cuda":
        column["synchronisations"] = _listed(find_synchronisations(lambda: bench.whole_step(learner)))
        column["peak memory, GiB"] = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f}"
    else:
        column["would wait on CUDA (numpy: not there)"] = _listed(suspect_synchronisations(lambda: bench.gradients(learner)))
    return column


def _listed(found: Counter[str]) -> str:
    """Sum, and the most frequent."""
    return f"{sum(found.values())}" + "".join(f"\n{name} {count}" for name, count in found.most_common(4))


def make_session(options: argparse.Namespace, batch: int, folder: Path) -> Session:
    """A run of the configuration at a batch size, with a recognition network of random values."""
    name, architecture = CONFIGS.get(options.config, (options.config, "small"))
    file = folder / "recognition.safetensors"
    if not file.exists():
        save_network(file, RecognitionNetwork(RecognitionConfig(architecture=architecture)), training={"note": "random, for speed alone"})
    wanted = [f'networks.recognition="{file}"', f"em.batch_size={batch}", "data.pool=0", f'compute.device="{options.device}"']
    wanted += [f"compute.threads={options.threads}"] if options.threads else []
    return Session(load_config(name, [*wanted, *options.set]), folder)


def main() -> None:
    """Print a table of R's step and one of S's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="light", help=f"{', '.join(CONFIGS)}, or any configuration")
    parser.add_argument("--batch", default="4,8", help="batch sizes, with commas between")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repeat", type=int, default=10, help="measured steps")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0 for the configuration's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the configuration")
    options = parser.parse_args()
    # A pipe has no width of its own; the table needs this much.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    columns: dict[str, dict[int, dict[str, str]]] = {ENCODER: {}, SEGMENTATION: {}}
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for batch in (int(size) for size in options.batch.split(",")):
            bench = Bench.of(make_session(options, batch, Path(folder)))
            if not peak:
                peak = measure_peak(bench.device, bench.session.config.compute.precision)
                console.print(describe(bench), f"\npeak: {peak / 1e12:.3f} TFLOP/s, measured")
            for learner, column in columns.items():
                column[batch] = report(bench, learner, options.repeat, peak)
    for learner, found in columns.items():
        table = Table(f"{'R' if learner == ENCODER else 'S'}'s step", *(f"batch {batch}" for batch in found))
        for row in next(iter(found.values())):
            table.add_row(row, *(column[row] for column in found.values()))
        console.print(table)


if __name__ == "__main__":
    main()
