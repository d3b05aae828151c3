"""Faults of processes and of the machine: killed workers, clients and servers, a clock that jumps, a full disk, a pipeline that raises."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving.faults import Fault, Scene, SkippedError, first_digest, wait_for_answers
from benchmarks.serving.process import ServerOptions, ServerProcess, restarted
from benchmarks.serving.quick import GOOD_PHOTO, QUICK
from benchmarks.serving.soak_clients import start_doomed
from benchmarks.serving.witness import Witness, are_fine, describe_sights
from focus_backend.errors import FocusError
from focus_backend.serving.client import Client, PendingResult
from focus_backend.serving.wire import Options, WorkerReport

# What the faulty side saw, what the others saw, and whether all was well.
Seen = tuple[str, str, bool]
_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_TINY_DISK = "400k"
# Longer than the witness's requests take, shorter than the slow ones.
_STEADY_SECONDS = 1.2


@dataclass
class _SlowRequest:
    """A request that takes long enough to be caught in the middle: with the real pipeline a fit."""

    client: Client
    scene: Scene
    stages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        is_quick = bool(self.scene.server.options.pipeline)
        photo = b"sleep 3" if is_quick else self.scene.samples[0].data
        method = "fit" if "fit" in self.client.hello().methods and not is_quick else None
        told: Callable[..., object] = lambda stage, *_: self.stages.append(stage)  # noqa: E731
        self.pending = self.client.submit(photo, options=Options(method=method), progress=told)

    def times_again(self) -> int:
        """How often it was begun anew, because its worker died."""
        with contextlib.suppress(TimeoutError, FocusError):
            self.pending.result(0.5)
        return self.stages.count("starting again")

    def kill_its_worker(self) -> int:
        """Kill the worker that has been busy with the same request for a while, for the others' requests are short; how many."""
        before = {worker.pid: worker.requests for worker in self._busy()}
        time.sleep(_STEADY_SECONDS)
        steady = [worker.pid for worker in self._busy() if before.get(worker.pid) == worker.requests][:1]
        for pid in steady:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(steady)

    def _busy(self) -> list[WorkerReport]:
        return [worker for worker in self.scene.server.status().workers if worker.state == "busy" and worker.pid]


def kill_worker_once(scene: Scene) -> str:
    """Its request is tried again by another."""
    with Client.connect(scene.server.target) as client:
        began, killed = time.monotonic(), 0
        request = _SlowRequest(client, scene)
        while not request.times_again() and not request.pending.done():
            killed += request.kill_its_worker()
        again = request.times_again()
        result = request.pending.result(180.0)
    scene.server.wait_until_warm()
    assert again == 1, f"its request was begun anew {again} times"
    return f"{killed} busy worker(s) killed; its request was begun anew: {len(result.message.faces)} face(s) after {_since(began)}"


def kill_worker_twice(scene: Scene) -> str:
    """Its request is given up."""
    with Client.connect(scene.server.target) as client:
        request, killed = _SlowRequest(client, scene), 0
        while not request.pending.done():
            killed += request.kill_its_worker()
            time.sleep(0.2)
        seen = _error_of(request.pending)
    scene.server.wait_until_warm()
    assert seen.startswith("worker-lost"), seen
    return f"{killed} busy workers killed; {seen}"


def kill_client(scene: Scene) -> str:
    """Its requests are dropped, those under way too."""
    photo = b"sleep 20" if scene.server.options.pipeline else scene.samples[0].data
    doomed = start_doomed(scene.server.target, photo)
    # It asks for two photos at a time, the witness for one.
    caught = _wait_for_requests(scene, lambda count: count >= 2, 30.0)
    time.sleep(0.3)
    doomed.kill()
    doomed.join()
    killed = time.monotonic()
    remaining = _wait_for_requests(scene, lambda count: count <= 1, 60.0)
    assert caught >= 2, "its requests were never under way"
    assert remaining <= 1, f"{remaining} requests are under way a minute later"
    return f"killed with {caught} requests under way; {_since(killed)} later no more than the witness's"


def _wait_for_requests(scene: Scene, is_enough: Callable[[int], bool], seconds: float) -> int:
    """How many wait or run, when it is enough or the time is over."""
    until = time.monotonic() + seconds
    while True:
        status = scene.server.status()
        count = status.queued + status.running
        if is_enough(count) or time.monotonic() >= until:
            return count
        time.sleep(0.1)


def kill_the_server(scene: Scene) -> Seen:
    """Clients get a clear error at once, and reconnect to one that is started in its place."""
    with Witness(scene.server.target, _good(scene)) as witness, Client.connect(scene.server.target) as client:
        digest = first_digest(witness)
        family = [process for process in scene.server.processes() if process.pid != scene.server.pid]
        pending = [_SlowRequest(client, scene).pending for _ in range(3)]
        time.sleep(1.0)
        killed = time.monotonic()
        scene.server.kill()
        errors = [_error_of(waiting) for waiting in pending]
        told = _since(killed)
        _, orphans = psutil.wait_procs(family, timeout=10)
        try:
            client.ping()
            meanwhile = "answered by nobody knows whom"
        except FocusError as error:
            meanwhile = str(error)
        scene.server = restarted(scene.server)
        scene.server.wait_until_warm()
        again = len(client.reconstruct(scene.samples[0].data).message.faces)
        warm = time.monotonic()
        later = wait_for_answers(witness, warm)
        lost = [sight for sight in witness.since(0.0) if killed <= sight.began + sight.seconds and sight.began < warm]
    is_clear = all(error.startswith("connection") for error in errors)
    is_well = is_clear and not orphans and again > 0 and are_fine(later, digest)
    saw = f"3 requests: {errors[0]} ({told}); a call before the restart: {meanwhile}; after it the same client: {again} face(s)"
    saw += f"; {len(orphans)} orphans"
    return saw, f"until it was back: {describe_sights(lost)}; then: {describe_sights(later, digest)}", is_well


def _error_of(pending: PendingResult) -> str:
    try:
        pending.result(60.0)
    except FocusError as error:
        return f"{error.code}: {error.problem}"
    except TimeoutError:
        return "nothing for 60 s"
    return "a result"


@contextlib.contextmanager
def _server_of_its_own(scene: Scene, options: ServerOptions, folder: Path) -> Iterator[tuple[ServerProcess, Witness, str]]:
    """A warm server, a witness, and the digest of what the witness gets. Ended without a word about what it leaves: the fault may."""
    server = ServerProcess(replace(options, bind=()), folder)
    try:
        server.start()
        server.wait_until_warm()
        with Witness(server.target, _good(scene) if not options.pipeline else GOOD_PHOTO) as witness:
            digest = first_digest(witness)
            yield server, witness, digest
    finally:
        server.stop()


def _judged(fault: Callable[[Scene], Seen]) -> Callable[[Scene], Seen]:
    """Failures and skips as rows."""

    def run(scene: Scene) -> Seen:
        try:
            return fault(scene)
        except SkippedError as reason:
            return f"not run: {reason}", "-", True
        except (Exception, SystemExit) as error:
            return f"FAILED {type(error).__name__}: {error}", "-", False

    return run


@_judged
def clock_jump(scene: Scene) -> Seen:
    """The clock of the day goes a day on and two back, while deadlines run."""
    found = sorted(Path("/").glob(_FAKETIME.lstrip("/")))
    if not found:
        raise SkippedError("libfaketime is not installed")
    folder = scene.folder / "clock"
    folder.mkdir()
    clock = folder / "offset"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    options = replace(scene.server.options, environment=environment)
    with _server_of_its_own(scene, options, folder) as (server, witness, digest), Client.connect(server.target) as client:
        began, uptime = time.monotonic(), server.status().uptime_seconds
        for offset in ("+86400", "-86400", "+0"):
            # Orders of the quick pipeline must not sleep: libfaketime breaks Python's time.sleep.
            pending = client.submit(_good(scene), deadline=60.0)
            time.sleep(0.05)
            clock.write_text(offset)
            pending.result(90.0)
            time.sleep(1.0)
        sights, passed = wait_for_answers(witness, began), time.monotonic() - began
        counted = server.status().uptime_seconds - uptime
        status = server.status()
    is_well = are_fine(sights, digest) and abs(counted - passed) < 5 and not status.worker_restarts
    saw = f"3 requests across jumps of +1 day, -2 days, +1 day: 3 results; it counted {counted:.0f} s of {passed:.0f} s"
    return f"{saw}; {status.worker_restarts} workers replaced", describe_sights(sights, digest), is_well


@_judged
def disk_full(scene: Scene) -> Seen:
    """Log, ready file and temporary files lie on a disk that fills up."""
    folder = scene.folder / "tiny-disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_TINY_DISK}", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        raise SkippedError("a small disk cannot be mounted without root")
    try:
        folder.chmod(0o700)
        options = replace(scene.server.options, bind=(), environment={"TMPDIR": str(folder)})
        with _server_of_its_own(scene, options, folder) as (server, witness, digest):
            began = time.monotonic()
            size = _fill(folder / "ballast")
            with Client.connect(server.target) as client:
                for _ in range(3):
                    client.reconstruct(_good(scene))
            refused = _start_on_full_disk(options, folder)
            sights = wait_for_answers(witness, began)
        # The command, which reports a FocusError in a line, is not there around the quick pipeline.
        is_well = are_fine(sights, digest) and refused.startswith(f"exit status {1 if options.pipeline else 2}")
        saw = f"{size // 1024} kB filled the disk; 3 results all the same; a second server there: {refused}"
        return saw, describe_sights(sights, digest), is_well
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(path: Path) -> int:
    """Write until the disk is full; bytes."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    return path.stat().st_size


def _start_on_full_disk(options: ServerOptions, folder: Path) -> str:
    """How a server ends that cannot write its ready file."""
    command = ServerProcess(options, folder).command(ready_file=folder / "second.json")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=ServerProcess(options, folder).environment()
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"exit status {done.returncode}, {lines[-1] if lines else 'without a word'}"


@_judged
def pipeline_raises(scene: Scene) -> Seen:
    """Photos that make the pipeline raise, run out of memory, leave, or die in native code."""
    options = replace(scene.server.options, pipeline=QUICK, method="", weights="", workers=2)
    seen, began = [], time.monotonic()
    with _server_of_its_own(scene, options, scene.folder / "raises") as (server, witness, digest):
        with Client.connect(server.target) as client:
            for order in (b"raise", b"memory", b"exit", b"cuda", b"crash"):
                error = _error_of(client.submit(order))
                assert not error.startswith(("nothing", "a result")), f"{order.decode()}: {error}"
                seen.append(f"{order.decode()}: {error}")
            # Where the file came from is nobody else's to know.
            assert "holiday" not in " ".join(seen), "an error names a file of the server"
        sights = wait_for_answers(witness, began)
        log = server.log.read_text(errors="replace")
    assert "holiday" not in log, "the log names a file"
    return f"(quick pipeline) {'; '.join(seen)}", describe_sights(sights, digest), are_fine(sights, digest)


def _good(scene: Scene) -> Any:
    return scene.samples[0].data


def _since(moment: float) -> str:
    return f"{time.monotonic() - moment:.1f} s"


PROCESS_FAULTS: dict[str, Fault] = {
    "kill -9 of a worker": kill_worker_once,
    "kill -9 of a worker, twice": kill_worker_twice,
    "kill -9 of a client": kill_client,
}
# On servers of their own, which the fault surrounds from the start.
LONELY_FAULTS: dict[str, Callable[[Scene], Seen]] = {
    "a photo that makes the pipeline raise": pipeline_raises,
    "clock jump": clock_jump,
    "disk full": disk_full,
}
