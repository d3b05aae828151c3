"""Speed of synthetic faces: `python -m benchmarks.synthetic [--model NAME] [--device cuda] [--threads N] [--batch N] [--sizes 112 224]`.

Faces a second with everything on and of its parts, on one thread unless said otherwise: median (slowest, fastest) of whole batches by the
clock, and by the time of the process, which other programs on the machine do not slow. A CUDA device is synchronised around each batch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rendering import describe
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from train.data.synthetic import SyntheticConfig, SyntheticFaces

# Faces a second on one core that a trainer on a CPU needs, by pixels.
TARGETS = {112: 40, 224: 15}
_BATCHES = 5
CONFIGS = {
    "everything": SyntheticConfig(),
    "hard": SyntheticConfig.hard(),
    "portraits": SyntheticConfig.portraits(),
    "bare heads": SyntheticConfig.clean(),
}


def time_batches(source: SyntheticFaces, count: int) -> tuple[list[float], list[float]]:
    """Faces a second of some batches, by the clock and by the time of the process, after one to warm up."""
    by_clock, by_process = [], []
    for step in range(_BATCHES + 1):
        clock, process = time.perf_counter(), time.process_time()
        source.batch(step, count)
        if source.device.type == "cuda":
            torch.cuda.synchronize()
        by_clock.append(count / (time.perf_counter() - clock))
        by_process.append(count / (time.process_time() - process))
    return by_clock[1:], by_process[1:]


def rate(values: list[float]) -> str:
    """Median (slowest, fastest)."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}, {max(values):.1f})"


def measure(model: FaceModel, sizes: list[int], count: int, device: str) -> Table:
    """The table of all sizes and configurations."""
    table = Table("pixels", "configuration", "faces a second", "a second of the process", "target")
    for size in sizes:
        for name, config in CONFIGS.items():
            source = SyntheticFaces(model, CropFrame.of(model, size), config, seed=0, device=device)
            by_clock, by_process = time_batches(source, count)
            target = str(TARGETS.get(size, "-")) if device == "cpu" and name == "everything" else "-"
            table.add_row(str(size), name, rate(by_clock), rate(by_process), target)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="anny", help="name or file of a face model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(TARGETS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model).to(options.device)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(describe(model).rsplit(", ", 1)[0])
    console.print(f"batch {options.batch}")
    console.print(measure(model, options.sizes, options.batch, options.device))


if __name__ == "__main__":
    main()
