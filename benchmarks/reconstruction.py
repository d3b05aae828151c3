"""Reconstruction speed and memory: `python -m benchmarks.reconstruction PHOTO... [--repeat N] [--cold N] [--threads N]`.

* Cold start: a fresh process that imports the package, loads model and detector and reconstructs the first photo, files included. The very
  first start on a machine also compiles the renderer's kernels, which are kept; it is told apart.
* Batch: one loaded reconstructor over all photos, `--repeat` times, files included; what is compiled or loaded on first use is paid before.
* Peak memory: the largest resident size of such a process, and of one that has run the whole batch.

Seconds: median (fastest, slowest), beside the targets for two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COLD_TARGET = 8.0
BATCH_TARGET = 4.0
MEMORY_TARGET = 2.5e9
PACKAGES = ("torch", "numpy", "numba", "mediapipe", "opencv-contrib-python")


@dataclass
class Measurements:
    """What one process measured.

    Attributes:
        load: seconds to import and to load model and detector.
        photos: seconds of each photo, in the order they ran; the first pays for what is compiled or loaded on first use.
        faces: how many faces each photo had.
        stages: seconds of each stage, one number a face, without those of the first photo.
        peak: largest resident size, bytes; 0 where the system does not tell.
    """

    load: float = 0.0
    photos: list[float] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    peak: float = 0.0


def measure(photos: Sequence[Path], repeat: int, threads: int) -> Measurements:
    """Reconstruct the photos in this process, once to warm up (the first photo only) and then `repeat` times."""
    started = time.perf_counter()
    import torch

    if threads:
        torch.set_num_threads(threads)
    from focus_backend.reconstruction.reconstructor import Reconstructor

    reconstructor = Reconstructor.load(method="fit")
    found = Measurements(load=time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        for path in [photos[0], *list(photos) * repeat]:
            _measure_photo(reconstructor, path, Path(folder), found)
    found.peak = peak_memory()
    return found


def _measure_photo(reconstructor, path: Path, folder: Path, found: Measurements) -> None:  # type: ignore[no-untyped-def]
    """Time one photo, from its file to the files of its faces."""
    from focus_backend.export.bundle import write_reconstruction
    from focus_backend.photo import read_photo

    started = time.perf_counter()
    photo = read_photo(path)
    results = reconstructor.reconstruct(photo)
    fitted = time.perf_counter()
    for result in results:
        write_reconstruction(result, folder / f"{path.stem}-{result.face_index}")
    ended = time.perf_counter()
    if found.photos:
        for result in results:
            for stage, seconds in {**result.timings, "files": (ended - fitted) / len(results)}.items():
                found.stages.setdefault(stage, []).append(seconds)
    found.photos.append(ended - started)
    found.faces.append(len(results))


def peak_memory() -> float:
    """Largest resident size of this process so far, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def in_fresh_process(photos: Sequence[Path], repeat: int, threads: int, kernels: str | None = None) -> tuple[float, Measurements]:
    """Wall time of a new process that measures, and what it measured; `kernels` is where it keeps what it compiles."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": kernels} if kernels else None
    command = [sys.executable, "-m", "benchmarks.reconstruction", "--inside", "--repeat", str(repeat), "--threads", str(threads)]
    started = time.perf_counter()
    done = subprocess.run([*command, *map(str, photos)], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    wall = time.perf_counter() - started
    # The networks' runtimes print what they like before our line.
    return wall, Measurements(**json.loads(done.stdout.strip().splitlines()[-1]))


def describe() -> str:
    """Machine and versions, one line each."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    machine = f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores{load}"
    versions = [f"python {platform.python_version()}", f"focus-backend {_version('focus-backend')}"]
    return machine + "\n" + ", ".join(versions + [f"{name} {_version(name)}" for name in PACKAGES])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def spread(values: Sequence[float]) -> str:
    """Median (least, most)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}, {max(values):.2f})" if values else "-"


def row(name: str, values: Sequence[float], target: float | None, unit: str = "s") -> str:
    """One line of the table; the ratio is of the median to the target, below 1 is better than asked."""
    held = f"{target:6.2f} {unit:2}  {statistics.median(values) / target:5.2f}" if target and values else ""
    return f"{name:34}{spread(values):>26} {unit:2}  {held}".rstrip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--repeat", type=int, default=3, help="how often the batch runs over all photos")
    parser.add_argument("--cold", type=int, default=3, help="how many fresh processes")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0 to leave as it is")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(vars(measure(options.photos, options.repeat, options.threads))))
        return
    if min(options.repeat, options.cold) < 1:
        parser.error("--repeat and --cold have to be at least 1")
    print(describe())
    with tempfile.TemporaryDirectory() as kernels:
        first, _ = in_fresh_process(options.photos[:1], 0, options.threads, kernels)
    # One unmeasured run, for the sources may have changed since the kernels in the usual place were compiled.
    in_fresh_process(options.photos[:1], 0, options.threads)
    cold = [in_fresh_process(options.photos[:1], 0, options.threads) for _ in range(options.cold)]
    _, batch = in_fresh_process(options.photos, options.repeat, options.threads)
    print(f"{len(options.photos)} photos, {sum(batch.faces[1:])} faces fitted in {options.repeat} rounds\n")
    print(f"{'':34}{'median (least, most)':>26}     {'target':>8}    ratio")
    print(row("first start ever, compiling", [first], None))
    print(row("cold start, wall", [wall for wall, _ in cold], COLD_TARGET))
    print(row("  importing and loading", [found.load for _, found in cold], None))
    print(row("  first photo", [found.photos[0] for _, found in cold], None))
    print(row("photo in a batch", batch.photos[1:], BATCH_TARGET))
    for stage, seconds in batch.stages.items():
        print(row(f"  {stage.replace('_', ' ')}, a face", seconds, None))
    if batch.peak:
        print(row("peak memory, one photo", [found.peak / 1e9 for _, found in cold], MEMORY_TARGET / 1e9, "GB"))
        print(row("peak memory, batch", [batch.peak / 1e9], MEMORY_TARGET / 1e9, "GB"))


if __name__ == "__main__":
    main()
