"""Reconstruction speed and memory: `python -m benchmarks.reconstruction PHOTO... [--method network] [--repeat N] [--cold N]`.

* Cold start: the command `focus-backend reconstruct` on the first photo, from the start of its process to its end, files included. The very
  first one on a machine also compiles the renderer's kernels, which are kept; it is told apart.
* Warm: one loaded reconstructor over all photos, `--repeat` times; what is compiled or loaded on first use is paid before.
* Server: a fresh process that loads and warms up what a worker holds, to its end.
* Peak memory: the largest resident size of the command's process, and of one that has run all photos.

Median (least, most) beside the targets for two cores, and the processor time of all threads, which a busy machine changes less.
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
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "numba", "mediapipe", "opencv-contrib-python")
# The stage before which a face was found and understood, is drawn, and its mask is known.
TEXTURE_STAGE = "making the texture"


@dataclass(frozen=True)
class Targets:
    """What is asked of a method.

    Attributes:
        cold: seconds of the command for one photo.
        understood: seconds of a photo, warm, until its face is drawn and masked.
        photo: seconds of a photo, warm, files included.
        server: seconds until a worker is ready.
        memory: gigabytes.
    """

    cold: float
    understood: float | None
    photo: float
    server: float | None
    memory: float


NETWORK_TARGETS = Targets(cold=5.0, understood=0.25, photo=1.2, server=5.0, memory=1.5)
FIT_TARGETS = Targets(cold=8.0, understood=None, photo=4.0, server=5.0, memory=2.5)


@dataclass
class Spent:
    """Seconds that something took, once each time it ran.

    Attributes:
        wall: on the clock.
        processor: of all threads; empty where it was not measured.
    """

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, wall: float, processor: float) -> None:
        """One more time."""
        self.wall.append(wall)
        self.processor.append(processor)


@dataclass
class Warm:
    """What one process measured over all photos.

    Attributes:
        load: importing, and loading model, detector and networks.
        understood: of each photo, from its pixels until its first face is drawn and masked.
        reconstructed: of each photo, from its pixels to its faces, textures included.
        photos: of each photo, from its file to its faces' files.
        stages: wall time of each stage of a face.
        faces: how many there were.
        peak: largest resident size, bytes.
    """

    load: Spent = field(default_factory=Spent)
    understood: Spent = field(default_factory=Spent)
    reconstructed: Spent = field(default_factory=Spent)
    photos: Spent = field(default_factory=Spent)
    stages: dict[str, Spent] = field(default_factory=dict)
    faces: int = 0
    peak: float = 0.0


def measure(photos: Sequence[Path], options: argparse.Namespace) -> Warm:
    """Reconstruct the photos in this process: the first one to warm up, then all of them `options.repeat` times."""
    from focus_backend.reconstruction.loading import collection_paused, use_threads

    found, started = Warm(), _clocks()
    with collection_paused():
        use_threads(options.threads)
        from focus_backend.reconstruction.reconstructor import Reconstructor

        reconstructor = Reconstructor.load(method=options.method, weights=options.weights)
    found.load.add(*_since(started))
    with tempfile.TemporaryDirectory() as folder:
        _measure_photo(reconstructor, photos[0], Path(folder), Warm())
        for path in list(photos) * options.repeat:
            _measure_photo(reconstructor, path, Path(folder), found)
    found.peak = _peak_memory()
    return found


def _measure_photo(reconstructor, path: Path, folder: Path, found: Warm) -> None:  # type: ignore[no-untyped-def]
    """Time one photo, from its file to the files of its faces."""
    from focus_backend.export.bundle import write_reconstruction
    from focus_backend.photo import read_photo

    started = _clocks()
    photo = read_photo(path)
    read = _clocks()
    understood: list[tuple[float, float]] = []

    def watch(stage: str, fraction: float, preview: object = None) -> None:
        if stage == TEXTURE_STAGE and not understood:
            understood.append(_since(read))

    results = reconstructor.reconstruct(photo, progress=watch)
    reconstructed = _clocks()
    found.understood.add(*understood[0])
    found.reconstructed.add(*_since(read))
    for result in results:
        write_reconstruction(result, folder / f"{path.stem}-{result.face_index}")
    found.photos.add(*_since(started))
    found.faces += len(results)
    for result in results:
        for stage, seconds in {**result.timings, "files": _since(reconstructed)[0] / len(results)}.items():
            found.stages.setdefault(stage, Spent()).wall.append(seconds)


def load_worker(options: argparse.Namespace) -> None:
    """Load and warm up in this process what a server's worker holds, as the worker does."""
    from focus_backend.reconstruction.loading import collection_paused
    from focus_backend.serving import work, worker  # noqa: F401  (the worker's own imports are part of its start)
    from focus_backend.serving.config import PipelineConfig, ServerConfig
    from focus_backend.serving.server import DEFAULT_PIPELINE

    pipeline = PipelineConfig(method=options.method, weights=options.weights, threads=options.threads)
    with collection_paused():
        work.load(DEFAULT_PIPELINE, ServerConfig(pipeline=pipeline))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> tuple[float, float]:
    wall, processor = _clocks()
    return wall - started[0], processor - started[1]


def _peak_memory() -> float:
    """Largest resident size of this process so far, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _bytes(resident: int) -> float:
    """Linux counts kilobytes, macOS bytes."""
    return resident * (1.0 if sys.platform == "darwin" else 1024.0)


@dataclass
class Runs:
    """Fresh processes that did the same.

    Attributes:
        spent: seconds of each, from its start to its end.
        peaks: largest resident size of each, bytes; empty where the system does not tell.
        output: what the last one printed.
    """

    spent: Spent = field(default_factory=Spent)
    peaks: list[float] = field(default_factory=list)
    output: str = ""


def run_fresh(command: Sequence[str], times: int, environment: dict[str, str] | None = None) -> Runs:
    """Run a Python command, so many times."""
    runs = Runs()
    for _ in range(times):
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
        assert child.stdout is not None
        runs.output = child.stdout.read()
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            runs.spent.processor.append(usage.ru_utime + usage.ru_stime)
            runs.peaks.append(_bytes(usage.ru_maxrss))
        runs.spent.wall.append(time.perf_counter() - started)
        if child.wait() != 0:
            raise SystemExit(f"{' '.join(command)} failed")
    return runs


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


def row(name: str, values: Sequence[float], unit: str, target: float | None = None, processor: Sequence[float] = ()) -> str:
    """One line of the table; the ratio is of the median to the target, below 1 is better than asked. Seconds are shown as `unit` says."""
    scale = 1000.0 if unit == "ms" else 1.0
    digits = 0 if unit == "ms" else 2

    def shown(value: float) -> str:
        return f"{scale * value:.{digits}f}"

    middle = statistics.median(values)
    times = f"{shown(middle)} ({shown(min(values))}, {shown(max(values))})"
    used = shown(statistics.median(processor)) if processor else ""
    held = f"{shown(target):>8}{middle / target:8.2f}" if target else ""
    return f"{name:36}{times:>22} {unit:2}{used:>11}{held}".rstrip()


def print_table(options: argparse.Namespace) -> None:
    """Run everything and print a line each."""
    targets = NETWORK_TARGETS if options.method == "network" else FIT_TARGETS
    ours = ["--method", options.method, "--threads", str(options.threads)]
    ours += ["--weights", options.weights] if options.weights else []
    photos = [str(path) for path in options.photos]
    inside = ["-m", "benchmarks.reconstruction", *ours, "--repeat", str(options.repeat)]
    with tempfile.TemporaryDirectory() as scratch:
        command = ["-m", "focus_backend", "reconstruct", photos[0], "-o", str(Path(scratch) / "out"), *ours]
        first = run_fresh(command, 1, {"NUMBA_CACHE_DIR": str(Path(scratch) / "kernels")})
        # One unmeasured run, for the sources may have changed since the kernels in the usual place were compiled.
        run_fresh(command, 1)
        cold = run_fresh(command, options.cold)
    server = run_fresh([*inside, "--inside", "server", photos[0]], options.cold)
    # The networks' runtimes print what they like before our line.
    done = json.loads(run_fresh([*inside, "--inside", "warm", *photos], 1).output.strip().splitlines()[-1])
    warm = {name: Spent(**done[name]) for name in ("load", "understood", "reconstructed", "photos")}
    print(f"{len(photos)} photos, {done['faces']} faces in {options.repeat} rounds, method {options.method}\n")
    print(f"{'':36}{'median (least, most)':>22}    {'processor':>10}{'target':>8}{'ratio':>8}")
    print(row("first start ever, compiling", first.spent.wall, "s", None, first.spent.processor))
    print(row("cold start to the end", cold.spent.wall, "s", targets.cold, cold.spent.processor))
    print(row("server's worker, start to ready", server.spent.wall, "s", targets.server, server.spent.processor))
    print(row("importing and loading", warm["load"].wall, "s", None, warm["load"].processor))
    print(row("warm photo, drawn and masked", warm["understood"].wall, "ms", targets.understood, warm["understood"].processor))
    print(row("warm photo, with textures", warm["reconstructed"].wall, "ms", None, warm["reconstructed"].processor))
    print(row("warm photo, with files", warm["photos"].wall, "ms", targets.photo, warm["photos"].processor))
    for stage, spent in done["stages"].items():
        print(row(f"  {stage.replace('_', ' ')}, a face", spent["wall"], "ms"))
    if cold.peaks:
        print(row("peak memory, one photo", [peak / 1e9 for peak in cold.peaks], "GB", targets.memory))
        print(row("peak memory, all photos", [done["peak"] / 1e9], "GB", targets.memory))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--method", choices=("fit", "network", "refine"), default="fit")
    parser.add_argument("--weights", help="folder of the networks; those that come with the package by default")
    parser.add_argument("--repeat", type=int, default=3, help="how often the warm process runs over all photos")
    parser.add_argument("--cold", type=int, default=3, help="how many fresh processes")
    parser.add_argument("--threads", type=int, default=1, help="as of the command")
    parser.add_argument("--inside", choices=("warm", "server"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.repeat, options.cold, options.threads) < 1:
        parser.error("--repeat, --cold and --threads have to be at least 1")
    if options.inside == "server":
        load_worker(options)
    elif options.inside == "warm":
        print(json.dumps(asdict(measure(options.photos, options))))
    else:
        print(describe())
        print_table(options)


if __name__ == "__main__":
    main()
