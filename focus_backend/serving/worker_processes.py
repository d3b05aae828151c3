"""The processes of the workers: started, watched, killed, and none left behind."""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from focus_backend.serving.config import ServerConfig

# The worker sees the modules its server sees, and none that lie in the folder it happens to run in.
_START = "import sys; sys.path[:] = sys.argv[1:]; from focus_backend.serving.worker import main; main()"
_LONGEST_LINE = 2000
# On Linux, on Linux under Windows, and on Windows.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "C:\\Windows\\System32\\nvcuda.dll")
# A worker without work ends in far less; one that does not is killed.
_SECONDS_TO_END = 1.0
_SECONDS_TO_DIE = 5.0
# What a dead worker had sent may still be on its way through the kernel.
_SECONDS_FOR_LAST_WORDS = 0.05


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    token: bytes = field(repr=False)
    identity: bytes
    # Set when the server killed it.
    reason: str = ""
    died_at: float | None = None
    output: threading.Thread | None = field(default=None, repr=False)


class WorkerProcesses:
    """All worker processes of a server, by number; a process that ended makes room for another with its number.

    Args:
        config: of the server; the workers get it.
        pipeline: "module:function" that loads what they run.
        log: takes an event and its fields.
    """

    def __init__(self, config: ServerConfig, *, pipeline: str, log: Callable[..., None]) -> None:
        self._config = config
        self._pipeline = pipeline
        self._log = log
        self._workers: dict[int, _Worker] = {}
        self._serial = itertools.count(1)

    def tokens(self) -> Mapping[int, bytes]:
        """What the workers prove themselves with."""
        return {number: worker.token for number, worker in self._workers.items()}

    def identity(self, number: int) -> bytes | None:
        """What the process calls itself that works as this number now; None for no process."""
        worker = self._workers.get(number)
        return None if worker is None else worker.identity

    def number(self, identity: bytes) -> int | None:
        """Which worker calls itself so; None for one that is no more."""
        return next((number for number, worker in self._workers.items() if worker.identity == identity), None)

    def start(self, number: int, address: str) -> int:
        """Starts a worker that will connect to `address`, and gives its process id.

        Raises:
            OSError: no process can be started.
        """
        token = secrets.token_hex(32).encode("ascii")
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
        )
        # Two processes with one number must not be taken for each other.
        identity = f"{number}-{next(self._serial)}"
        worker = self._workers[number] = _Worker(process, token, identity.encode("ascii"))
        assert process.stdin is not None
        assert process.stdout is not None
        # A pipe that nobody reads would stop the worker once it is full.
        worker.output = threading.Thread(target=self._log_output, args=(number, process.stdout), name=f"worker-{number}", daemon=True)
        try:
            worker.output.start()
        except RuntimeError as error:
            process.kill()
            process.wait()
            worker.output = None
            _close(self._workers.pop(number))
            raise OSError(errno.EAGAIN, "no thread can be started") from error
        order: dict[str, Any] = {"address": address, "token": token.decode("ascii"), "number": number, "identity": identity}
        order |= {"pipeline": self._pipeline, "config": self._config.model_dump(mode="json")}
        try:
            process.stdin.write(json.dumps(order).encode("ascii") + b"\n")
            process.stdin.flush()
        except OSError:
            self._log("worker-not-told", level="warning", worker=number)
        return process.pid

    def kill(self, number: int, reason: str) -> None:
        """Ends a worker at once; `lost` reports it with this reason."""
        worker = self._workers.get(number)
        if worker is not None and worker.process.poll() is None:
            worker.reason = reason
            worker.process.kill()

    def lost(self) -> list[tuple[int, str]]:
        """Number and reason of each worker that has ended since, reported once, when all it had sent can be read."""
        ended = []
        for number, worker in list(self._workers.items()):
            if worker.died_at is None and worker.process.poll() is not None:
                worker.died_at = time.monotonic()
            if worker.died_at is not None and time.monotonic() - worker.died_at >= _SECONDS_FOR_LAST_WORDS:
                ended.append((number, worker.reason or _words(worker.process.returncode)))
                _close(self._workers.pop(number))
        return ended

    def end_all(self, seconds: float = _SECONDS_TO_END) -> None:
        """Waits so long for all to end, then kills those that have not."""
        latest = time.monotonic() + seconds
        while time.monotonic() < latest and any(worker.process.poll() is None for worker in self._workers.values()):
            time.sleep(0.01)
        for worker in self._workers.values():
            if worker.process.poll() is None:
                worker.process.kill()
        for number, worker in self._workers.items():
            try:
                worker.process.wait(_SECONDS_TO_DIE)
            except subprocess.TimeoutExpired:
                # Held by a driver, which lets go of it or not.
                self._log("worker-not-ended", level="error", worker=number, pid=worker.process.pid)
            _close(worker)
        self._workers.clear()

    def _environment(self) -> dict[str, str]:
        threads = str(self._config.pipeline.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        return os.environ | dict.fromkeys(names, threads)

    def _log_output(self, number: int, output: IO[bytes]) -> None:
        while line := output.readline(_LONGEST_LINE):
            if text := line.decode("utf-8", "replace").strip():
                self._log("worker-output", worker=number, line=text)


def _close(worker: _Worker) -> None:
    """Closes the pipes of an ended worker."""
    process = worker.process
    if process.stdin is not None:
        try:
            process.stdin.close()
        except OSError:
            # What it was not told any more lies in the buffer.
            process.stdin = None
    if worker.output is not None:
        worker.output.join(0.05)
    if process.stdout is not None and worker.output is not None and not worker.output.is_alive():
        process.stdout.close()


def _words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by signal {-code}"
    return f"ended with exit code {code}"


def count_of_workers(config: ServerConfig) -> int:
    """How many workers a server has: as configured, else one on a GPU and one for every two cores, at most four."""
    if config.workers:
        return config.workers
    if _may_use_gpu(config.pipeline.device):
        return 1
    return max(1, min(4, _cores() // 2))


def largest_batch(config: ServerConfig) -> int:
    """How many requests go through the networks at once: as configured, else eight on a GPU and one on processors."""
    return config.batch or (8 if _may_use_gpu(config.pipeline.device) else 1)


def _may_use_gpu(device: str) -> bool:
    """Whether workers would share a GPU. Found out without torch, which would take the server's front seconds to load."""
    if device != "auto":
        return not device.startswith("cpu")
    return any(map(os.path.exists, _GPU_DRIVERS)) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
