"""Cancel: a request is given up at a random moment of its work; how soon its caller has the answer, and its worker is free again."""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmarks.serving.process import ServerOptions, serving
from benchmarks.serving.report import console, percentile, table
from focus_backend.errors import CancelledError
from focus_backend.serving.client import Client
from focus_backend.serving.wire import Options

TARGET_MILLISECONDS = 200.0
_LOOK_SECONDS = 0.002


def run_cancel(options: ServerOptions, photo: bytes, times: int, seed: int, folder: Path) -> bool:
    """Print one table row a method; whether every worker was free within the target."""
    screen, rows, is_well = console(), [], True
    with serving(options, folder) as server, Client.connect(server.target) as client:
        for method in client.hello().methods:
            answered, freed = _measure(client, photo, method, times, random.Random(seed))
            is_well &= max(freed) <= TARGET_MILLISECONDS
            rows.append([method, *_cells(answered), *_cells(freed)])
    columns = ("method", "answer p50", "p95", "most", "worker free p50", "p95", "most")
    screen.print(table(f"{times} requests given up at random moments, milliseconds", columns, rows))
    screen.print(f"target: the worker is free within {TARGET_MILLISECONDS:.0f} ms")
    return is_well


def _measure(client: Client, photo: bytes, method: str, times: int, chance: random.Random) -> tuple[list[float], list[float]]:
    """Milliseconds until the answer, and until no worker is busy."""
    options = Options(method=method)
    work = client.reconstruct(photo, options=options).message.seconds
    answered, freed = [], []
    for _ in range(times):
        pending = client.submit(photo, options=options)
        time.sleep(chance.uniform(0.0, 0.9 * work))
        started = time.perf_counter()
        pending.cancel()
        try:
            pending.result()
        except CancelledError:
            answered.append(1e3 * (time.perf_counter() - started))
        while any(worker.state != "idle" for worker in client.status().workers):
            time.sleep(_LOOK_SECONDS)
        freed.append(1e3 * (time.perf_counter() - started))
    return answered, freed


def _cells(milliseconds: list[float]) -> list[str]:
    return [f"{percentile(milliseconds, percent):.0f}" for percent in (50, 95, 100)]
