"""Memory: resident size and handles of the server and its workers over many requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving.process import ServerOptions, ServerProcess, serving
from benchmarks.serving.report import console, slope, table
from focus_backend.serving.client import Client

MEGABYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """After so many requests: bytes and handles of the server, and of its workers together.

    Attributes:
        workers: their pids; a worker that was replaced starts anew.
        worker_handles: 0 where they run on another machine.
    """

    requests: int
    server_bytes: int
    server_handles: int
    worker_bytes: int
    worker_handles: int
    workers: tuple[int, ...]

    @classmethod
    def of(cls, server: ServerProcess, requests: int) -> Sample:
        """Now."""
        report = server.status()
        pids = tuple(sorted(worker.pid for worker in report.workers))
        memory = sum(worker.memory_bytes for worker in report.workers)
        return cls(requests, report.memory_bytes, report.handles, memory, sum(map(count_handles, pids)), pids)


def count_handles(pid: int) -> int:
    """Open files, sockets and pipes of a process; 0 where it cannot be seen."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return 0


def take_samples(server: ServerProcess, photo: bytes, requests: int, every: int, clients: int) -> Iterator[Sample]:
    """One before the first request, and one after each `every`; so many clients share the requests."""
    yield Sample.of(server, 0)
    with contextlib.ExitStack() as stack:
        connected = [stack.enter_context(Client.connect(server.target)) for _ in range(clients)]
        pool = stack.enter_context(ThreadPoolExecutor(clients))
        for done in range(every, requests + 1, every):
            shares = [every // clients + (index < every % clients) for index in range(clients)]
            list(pool.map(lambda client, share: _ask(client, photo, share), connected, shares))
            yield Sample.of(server, done)


def _ask(client: Client, photo: bytes, times: int) -> None:
    for _ in range(times):
        client.reconstruct(photo)


def run_memory(options: ServerOptions, photo: bytes, requests: int, every: int, folder: Path) -> None:
    """Print the samples and the slopes of their second half."""
    screen, samples = console(), []
    with serving(options, folder) as server:
        for sample in take_samples(server, photo, requests, every, 2 * options.workers):
            samples.append(sample)
            print(f"{sample.requests} of {requests} requests", end="\r", flush=True)
    screen.print(table(f"memory over {requests} requests, {options.workers} worker(s)", _COLUMNS, [_cells(sample) for sample in samples]))
    half = samples[len(samples) // 2 :]
    for line in slopes(half):
        screen.print(line)
    if len({sample.workers for sample in samples}) > 1:
        screen.print("workers were replaced meanwhile: their sizes are of different processes")


_COLUMNS = ("requests", "server MB", "server handles", "workers MB", "worker handles")


def _cells(sample: Sample) -> list[object]:
    sizes = f"{sample.server_bytes / MEGABYTE:.1f}", f"{sample.worker_bytes / MEGABYTE:.1f}"
    return [sample.requests, sizes[0], sample.server_handles, sizes[1], sample.worker_handles]


def slopes(samples: list[Sample]) -> list[str]:
    """Growth over the samples by a line fit, a line of text for each quantity."""
    done = [sample.requests for sample in samples]
    measured = {
        "server": ([sample.server_bytes for sample in samples], "kB", 1024),
        "workers": ([sample.worker_bytes for sample in samples], "kB", 1024),
        "server handles": ([sample.server_handles for sample in samples], "", 1),
        "worker handles": ([sample.worker_handles for sample in samples], "", 1),
    }
    return [
        f"{name}: {slope(done, values) * 1000 / unit:+.1f} {shown} in 1,000 requests, second half".replace("  ", " ")
        for name, (values, shown, unit) in measured.items()
    ]
