"""Soak: random clients, photos, cancels and faults for a long time; every request has to end, once, and nothing may pile up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.serving.connection import count_final_answers
from benchmarks.serving.ledger import Ledger
from benchmarks.serving.memory import MEGABYTE
from benchmarks.serving.memory import Sample as MemorySample
from benchmarks.serving.photos import Sample, quick_samples, real_samples
from benchmarks.serving.process import ServerOptions, ServerProcess
from benchmarks.serving.report import console, percentile, table
from benchmarks.serving.soak_clients import PATIENCE_SECONDS, USUAL_DEADLINE, Clients, start_doomed
from benchmarks.serving.witness import Witness
from focus_backend.errors import FocusError
from focus_backend.serving.client import Client

# Rounds of all good photos before memory is measured for the first time: what is loaded on first use is not a leak.
WARMING_ROUNDS = 3


@dataclass(frozen=True)
class SoakOptions:
    """How long and how much.

    Attributes:
        seconds: of random work.
        quiet: seconds of rest before memory is measured at the end.
        synchronous, asynchronous: clients at a time.
        seed: of all chance.
        fault_seconds: on average between two faults.
    """

    seconds: float
    quiet: float = 60.0
    synchronous: int = 4
    asynchronous: int = 6
    seed: int = 0
    fault_seconds: float = 10.0


class Faults:
    """Does harm at random, in a thread.

    Args:
        server: to whom.
        ledger: where it is written down.
        photo: what doomed clients ask for.
        chance: of its own.
    """

    def __init__(self, server: ServerProcess, ledger: Ledger, photo: Any, chance: random.Random) -> None:
        self._server, self._ledger, self._photo, self._chance = server, ledger, photo, chance
        self._address = server.address
        self._half_open: list[tuple[float, socket.socket]] = []

    def keep_harming(self, pause: float, end: threading.Event) -> None:
        """Until the end."""
        harms = [self._kill_a_worker, self._kill_a_client, self._kill_a_client, self._talk_garbage, self._talk_garbage, self._open_by_half]
        while not end.wait(self._chance.expovariate(1 / pause)):
            with contextlib.suppress(FocusError, OSError):
                self._chance.choice(harms)()
            self._close_half_open(time.monotonic())
        self._close_half_open(float("inf"))

    def _kill_a_worker(self) -> None:
        pids = self._server.worker_pids()
        if pids and self._server.pid:
            os.kill(self._chance.choice(pids), signal.SIGKILL)
            self._ledger.note("workers killed")

    def _kill_a_client(self) -> None:
        doomed = start_doomed(self._server.target, self._photo)
        time.sleep(self._chance.uniform(1.0, 6.0))
        doomed.kill()
        doomed.join()
        self._ledger.note("clients killed")

    def _talk_garbage(self) -> None:
        with socket.create_connection(self._address, timeout=5) as connection:
            connection.sendall(self._chance.randbytes(self._chance.randint(1, 100_000)))
        self._ledger.note("garbage connections")

    def _open_by_half(self) -> None:
        for _ in range(self._chance.randint(1, 20)):
            connection = socket.create_connection(self._address, timeout=5)
            # The first bytes of a greeting, and then nothing.
            connection.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f"[: self._chance.randint(0, 10)])
            self._half_open.append((time.monotonic() + self._chance.uniform(0, 30), connection))
            self._ledger.note("half-open connections")

    def _close_half_open(self, now: float) -> None:
        for entry in [entry for entry in self._half_open if entry[0] <= now]:
            self._half_open.remove(entry)
            entry[1].close()


def run_soak(options: ServerOptions, soak: SoakOptions, photo: Path, folder: Path) -> bool:
    """Print progress, a table and a summary in JSON; whether nothing was wrong."""
    samples = quick_samples() if options.pipeline else real_samples(photo, soak.seed)
    places = {name: str(folder / name.lower()) for name in ("TMPDIR", "XDG_RUNTIME_DIR")}
    for place in places.values():
        Path(place).mkdir(mode=0o700, parents=True)
    server = ServerProcess(replace(options, environment={**options.environment, **places}), folder / "server")
    ledger = Ledger()
    count_final_answers(ledger.finals)
    try:
        server.start()
        server.wait_until_warm()
        summary = _soak(server, soak, samples, ledger)
    finally:
        left = server.stop()
        left += [f"file {path.relative_to(folder)}" for place in places.values() for path in Path(place).rglob("*") if path.is_file()]
    _report(summary | {"left behind": left}, ledger)
    return not (ledger.wrong or ledger.lost() or ledger.answered_twice() or left)


def _soak(server: ServerProcess, soak: SoakOptions, samples: list[Sample], ledger: Ledger) -> dict[str, Any]:
    _warm(server, samples)
    before = MemorySample.of(server, ledger.total())
    began = time.monotonic()
    with Witness(server.target) as witness:
        _work(server, soak, samples, ledger)
        sights = [sight for sight in witness.since(began) if sight.kind == "ping"]
    time.sleep(soak.quiet)
    after = MemorySample.of(server, ledger.total())
    status = server.status()
    pings = [1e3 * sight.seconds for sight in sights if sight.outcome == "ok"]
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "requests": ledger.total(),
        "outcomes": ledger.by_outcome(),
        "lost": ledger.lost(),
        "answered twice": ledger.answered_twice(),
        "wrong ends": len(ledger.wrong),
        "events": dict(ledger.events),
        "seconds to result": {f"p{percent}": round(percentile(ledger.seconds, percent), 3) for percent in (50, 95, 99)},
        "ping ms": {"count": len(pings), **{f"p{p}": round(percentile(pings, p), 1) for p in (50, 99)}, "max": round(max(pings), 1)},
        "ping errors": dict(Counter(sight.outcome for sight in sights if sight.outcome != "ok")),
        "server says": {"answered": status.answered, "failed": status.failed, "worker restarts": status.worker_restarts},
        "still queued or running": status.queued + status.running,
        "memory before": asdict(before),
        "memory after": asdict(after),
    }


def _warm(server: ServerProcess, samples: list[Sample]) -> None:
    """All good photos with all parts, several at once, so that every worker gets some."""
    good = [sample.data for sample in samples if sample.expected == {"result"}]
    with Client.connect(server.target) as client:
        parts = client.hello().parts
        for _ in range(WARMING_ROUNDS * max(1, server.options.workers)):
            for pending in [client.submit(photo, parts=parts, preview_side=32, progress=lambda *_: None) for photo in good]:
                pending.result()


def _work(server: ServerProcess, soak: SoakOptions, samples: list[Sample], ledger: Ledger) -> None:
    """All clients and faults, for the time; then until the last request has ended."""
    end = threading.Event()
    clients = Clients(server.target, samples, ledger, end)
    faults = Faults(server, ledger, samples[0].data, random.Random(f"{soak.seed} faults"))
    threads = [threading.Thread(target=clients.keep_coming, args=(soak.seed * 1000 + number,)) for number in range(soak.synchronous)]
    threads.append(threading.Thread(target=clients.keep_coming_asynchronously, args=(soak.seed, soak.asynchronous)))
    threads.append(threading.Thread(target=faults.keep_harming, args=(soak.fault_seconds, end)))
    for thread in threads:
        # A client that hangs for ever is reported as lost requests, and must not keep the benchmark from its end.
        thread.daemon = True
        thread.start()
    _watch(server, soak.seconds, ledger)
    end.set()
    until = time.monotonic() + USUAL_DEADLINE + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _watch(server: ServerProcess, seconds: float, ledger: Ledger) -> None:
    """Wait; a line each minute."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(min(60.0, seconds - passed))
        try:
            status = server.status()
            now = f"{status.queued} queued, {status.running} running, {status.memory_bytes / MEGABYTE:.0f} MB, {status.handles} handles"
        except FocusError as error:
            now = f"NO STATUS: {error}"
        minutes = (time.monotonic() - began) / 60
        problems = f"{ledger.of_outcome('lost')} lost, {ledger.answered_twice()} twice, {len(ledger.wrong)} wrong"
        print(f"{minutes:5.1f} min  {ledger.total()} requests {ledger.by_outcome()}; {problems}; server: {now}", flush=True)


def _report(summary: dict[str, Any], ledger: Ledger) -> None:
    screen = console()
    outcomes = sorted({outcome for _, outcome in ledger.outcomes})
    kinds = sorted({kind for kind, _ in ledger.outcomes})
    rows = [[kind, *(ledger.outcomes.get((kind, outcome), "") for outcome in outcomes)] for kind in kinds]
    screen.print(table("requests by photo and outcome", ["photo", *outcomes], rows))
    before, after = summary["memory before"], summary["memory after"]
    sizes = [
        [name, f"{before[name] / unit:.1f}", f"{after[name] / unit:.1f}"]
        for name, unit in (("server_bytes", MEGABYTE), ("server_handles", 1), ("worker_bytes", MEGABYTE), ("worker_handles", 1))
    ]
    screen.print(table("before and after a quiet time (bytes in MB)", ["", "before", "after"], sizes))
    for line in ledger.wrong[:20]:
        screen.print(f"WRONG {line}", markup=False)
    print(json.dumps(summary, indent=1))
