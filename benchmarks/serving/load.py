"""Load: so many clients, each sending its next request as soon as the last is answered; beside it the library without a server."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.connection import count_final_answers
from benchmarks.serving.library import photos_per_second
from benchmarks.serving.process import ServerOptions, ServerProcess, serving
from benchmarks.serving.report import console, percentile, table
from focus_backend.errors import BusyError, FocusError
from focus_backend.serving.asyncio_client import AsyncClient

# More would take the processors from the server that is measured.
MOST_PROCESSES = 2
# After the end every request under way is still answered; 64 of them on one slow worker take their time.
DRAIN_SECONDS = 600.0
BUSY_WAIT_SECONDS = 0.5


@dataclass
class LoadCounts:
    """What clients met.

    Attributes:
        latencies: (when it was answered, seconds from its first sending to its answer) of each request with a result.
        sent: requests, each counted once however often the server was busy.
        busy: answers "busy", after each of which the client waited and tried again.
        errors: other answers, by code.
        finals: final answers the clients' sockets saw, by id.
    """

    latencies: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0
    busy: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    finals: Counter[str] = field(default_factory=Counter)

    def add(self, other: LoadCounts) -> None:
        """Those of other clients, too."""
        self.latencies += other.latencies
        self.sent += other.sent
        self.busy += other.busy
        self.errors += other.errors
        self.finals += other.finals

    @property
    def lost(self) -> int:
        """Requests that got neither a result nor an error."""
        return self.sent - len(self.latencies) - self.errors.total()

    @property
    def answered_twice(self) -> int:
        """Ids with more than one final answer."""
        return sum(count > 1 for count in self.finals.values())


@dataclass(frozen=True)
class LoadOptions:
    """What the clients send.

    Attributes:
        target: as `AsyncClient.connect` takes it.
        photo: bytes of the file.
        parts: wanted.
        until: by the monotonic clock; no request is begun later.
    """

    target: str
    photo: bytes
    parts: tuple[str, ...]
    until: float


async def _keep_asking(options: LoadOptions, counts: LoadCounts) -> None:
    """One client until the end."""
    async with await AsyncClient.connect(options.target) as client:
        while time.monotonic() < options.until:
            counts.sent += 1
            started = time.monotonic()
            try:
                await asyncio.wait_for(_ask_until_taken(client, options, counts), DRAIN_SECONDS)
            except asyncio.TimeoutError:
                return
            except FocusError as error:
                counts.errors[error.code] += 1
            else:
                now = time.monotonic()
                counts.latencies.append((now, now - started))


async def _ask_until_taken(client: AsyncClient, options: LoadOptions, counts: LoadCounts) -> None:
    while not await _was_taken(client, options):
        counts.busy += 1
        await asyncio.sleep(BUSY_WAIT_SECONDS)


async def _was_taken(client: AsyncClient, options: LoadOptions) -> bool:
    try:
        await client.reconstruct(options.photo, parts=options.parts)
    except BusyError:
        return False
    return True


def _clients_process(options: LoadOptions, clients: int, found: Any) -> None:
    counts = LoadCounts()
    count_final_answers(counts.finals)

    async def all_clients() -> None:
        await asyncio.gather(*(_keep_asking(options, counts) for _ in range(clients)))

    asyncio.run(all_clients())
    found.put(counts)


def ask_with_clients(options: LoadOptions, clients: int) -> LoadCounts:
    """What so many clients met, in at most two processes of their own.

    Raises:
        SystemExit: a process of them failed.
    """
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    shares = [clients // MOST_PROCESSES + (index < clients % MOST_PROCESSES) for index in range(MOST_PROCESSES)]
    running = [context.Process(target=_clients_process, args=(options, share, found), daemon=True) for share in shares if share]
    for process in running:
        process.start()
    counts = LoadCounts()
    try:
        for _ in running:
            counts.add(found.get(timeout=options.until - time.monotonic() + DRAIN_SECONDS + 60))
    except queue.Empty:
        raise SystemExit("the clients could not be run; a process of them failed") from None
    finally:
        for process in running:
            process.terminate()
            process.join()
    return counts


@dataclass(frozen=True)
class LoadRow:
    """One number of clients.

    Attributes:
        clients: how many.
        rate: requests answered a second within the time.
        counts: all that was met, the requests answered after the time included.
        answered: requests that the server says it answered meanwhile.
    """

    clients: int
    rate: float
    counts: LoadCounts
    answered: int


def measure_load(server: ServerProcess, photo: bytes, parts: tuple[str, ...], clients: int, seconds: float) -> LoadRow:
    """One row of the table."""
    before = server.status().answered
    # Clients need a while to start; the time begins when all of them could.
    started = time.monotonic() + 3.0
    counts = ask_with_clients(LoadOptions(server.target, photo, parts, started + seconds), clients)
    within = [latency for ended, latency in counts.latencies if started <= ended <= started + seconds]
    return LoadRow(clients, len(within) / seconds, counts, server.status().answered - before)


def run_load(
    options: ServerOptions, photo: bytes, clients: list[int], seconds: float, parts: tuple[str, ...], folder: Path, *, with_baseline: bool
) -> bool:
    """Print the table; whether no request was lost, answered twice or answered with an error."""
    screen = console()
    baselines: dict[int, float] = {}
    if with_baseline:
        for processes in sorted({1, options.workers}):
            baselines[processes] = photos_per_second(options, photo, min(seconds, 30.0), processes)
            screen.print(f"library without a server, {processes} process(es) at once: {baselines[processes]:.2f} photos/s")
    with serving(options, folder) as server:
        measure_load(server, photo, parts, 1, min(2.0, seconds))
        rows = [measure_load(server, photo, parts, count, seconds) for count in clients]
        restarts = server.status().worker_restarts
    screen.print(
        table(f"load, {seconds:.0f} s each, {options.workers} workers", _COLUMNS, [_cells(row, baselines, options) for row in rows])
    )
    screen.print(f"workers restarted: {restarts}")
    for row in rows:
        if row.counts.errors:
            screen.print(f"{row.clients} clients, errors: {dict(row.counts.errors)}")
    return not any(row.counts.lost or row.counts.answered_twice or row.counts.errors for row in rows)


_COLUMNS = (
    *("clients", "requests/s", "p50 s", "p95 s", "p99 s", "sent", "answered", "server says", "busy", "errors", "lost", "twice"),
    *("x workers x library", "x library at once"),
)


def _cells(row: LoadRow, baselines: dict[int, float], options: ServerOptions) -> list[object]:
    seconds = [latency for _, latency in row.counts.latencies]
    percentiles = [f"{percentile(seconds, percent):.3f}" for percent in (50, 95, 99)]
    counts = row.counts
    ratios = ["-", "-"]
    if baselines:
        ratios = [f"{row.rate / (options.workers * baselines[1]):.2f}", f"{row.rate / baselines[options.workers]:.2f}"]
    numbers = [counts.sent, len(counts.latencies), row.answered, counts.busy, counts.errors.total(), counts.lost, counts.answered_twice]
    return [row.clients, f"{row.rate:.2f}", *percentiles, *numbers, *ratios]
