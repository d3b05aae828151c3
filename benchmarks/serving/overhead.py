"""Overhead: the same photo through the library in this process and through a server with one worker, alternating."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.library import Library
from benchmarks.serving.process import ServerOptions, serving
from benchmarks.serving.report import console, spread, table
from focus_backend.serving.client import Client
from focus_backend.serving.wire import Reconstruct

FILES = "files"
TARGET_MILLISECONDS = 10.0
TARGET_RATIO = 0.05


@dataclass
class Pairs:
    """Milliseconds of the same work done both ways, one number a round."""

    library: list[float] = field(default_factory=list)
    pipeline: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    # What the server's worker says it took: the rest of `server` is the way there and back, measured with the least noise.
    work: list[float] = field(default_factory=list)

    def differences(self, base: list[float]) -> list[float]:
        """Of the server over `base`, pair by pair."""
        return [ours - theirs for ours, theirs in zip(self.server, base, strict=True)]


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def measure_pairs(library: Library, client: Client, photo: bytes, parts: list[str], pairs: int) -> Pairs:
    """As many rounds, after two unmeasured; each round in another order, for what runs first finds colder caches."""
    found = Pairs()

    def ask_server() -> None:
        found.work.append(1e3 * client.reconstruct(photo, parts=tuple(parts)).message.seconds)

    ways: list[tuple[list[float], Callable[[], object]]] = [
        (found.library, lambda: library.reconstruct(photo, with_files=FILES in parts)),
        (found.pipeline, lambda: library.run(photo, parts)),
        (found.server, ask_server),
    ]
    for round_number in range(pairs + 2):
        turn = round_number % len(ways)
        for measured, run in ways[turn:] + ways[:turn]:
            measured.append(_milliseconds(run))
    for measured in (found.library, found.pipeline, found.server, found.work):
        del measured[:2]
    return found


def run_overhead(options: ServerOptions, photo: bytes, pairs: int, folder: Path) -> None:
    """Print one table row for the default parts, one for all raw arrays and one for the files."""
    screen = console()
    with serving(options, folder) as server, Client.connect(server.target) as client:
        library = Library.load(options)
        offered = client.hello().parts
        wanted = {"default": Reconstruct().parts, "all raw": [part for part in offered if part != FILES], FILES: [FILES]}
        rows = []
        # The quick pipeline makes no files.
        for name, parts in ((name, parts) for name, parts in wanted.items() if set(parts) <= set(offered)):
            size = library.run(photo, parts)
            rows.append(_cells(name, size, measure_pairs(library, client, photo, parts, pairs)))
    screen.print(f"{pairs} rounds; milliseconds, median (least, most); differences are medians (quartiles) of pairs")
    screen.print(table("overhead of the server over the library, one worker", _COLUMNS, rows))
    screen.print(f"target: at most {TARGET_RATIO:.0%} and at most {TARGET_MILLISECONDS:.0f} ms over the library")


_COLUMNS = (
    *("parts", "answer MB", "library", "pipeline", "server", "around the work"),
    *("over library", "over pipeline", "within target"),
)


def _cells(name: str, size: int, found: Pairs) -> list[object]:
    compared = [_over(found.differences(base), base) for base in (found.library, found.pipeline)]
    kept = [extra <= TARGET_MILLISECONDS and extra <= TARGET_RATIO * base for extra, base in compared]
    quartiles = [statistics.quantiles(found.differences(base), n=4) for base in (found.library, found.pipeline)]
    shown = [f"{m:+.1f} ms {m / base:+.1%} ({q[0]:+.0f}, {q[2]:+.0f})" for (m, base), q in zip(compared, quartiles, strict=True)]
    times = [spread(values, 0) for values in (found.library, found.pipeline, found.server)]
    around = spread(found.differences(found.work))
    return [name, f"{size / 1e6:.1f}", *times, around, *shown, f"library: {_yes(kept[0])}, pipeline: {_yes(kept[1])}"]


def _over(differences: list[float], base: list[float]) -> tuple[float, float]:
    """Median difference, and the median it is a part of."""
    return statistics.median(differences), statistics.median(base)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
