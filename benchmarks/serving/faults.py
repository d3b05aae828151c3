"""Faults, one after another, against a server with a well-behaved client that works all the while."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.serving.photos import Sample, quick_samples, real_samples
from benchmarks.serving.process import ServerOptions, ServerProcess
from benchmarks.serving.report import console, table
from benchmarks.serving.witness import Sight, Witness, are_fine, describe_sights
from focus_backend.serving.keys import KeyFolder

# For the witness to get answers that were asked for during the fault.
WITNESS_SECONDS = 120.0
WITNESS_ANSWERS = 2
# Of the block kept for documentation: no such host.
_ANOTHER_NETWORK = "198.51.100.1", 9


@dataclass
class Scene:
    """What a fault has to do with.

    Attributes:
        server: warm, with a loopback address, and with another where the machine has one.
        remote: that other address; "" without one.
        samples: photos; the first is good.
        chance: its own.
        folder: for files.
    """

    server: ServerProcess
    remote: str
    samples: list[Sample]
    chance: random.Random
    folder: Path

    @property
    def keys(self) -> KeyFolder:
        """The server's."""
        return KeyFolder(self.server.folder / "keys")

    def client_key(self, name: str) -> Path:
        """The file of a new client's key."""
        path = self.folder / f"{name}.key"
        self.keys.new(name, self.remote, path)
        return path

    def sample(self, kind: str) -> Sample:
        """The photo of a kind."""
        return next(sample for sample in self.samples if sample.kind == kind)


class SkippedError(Exception):
    """The fault cannot be brought about here; says why."""


# Does the harm and tells what the faulty party saw. Raises AssertionError where that is not what it should have been.
Fault = Callable[[Scene], str]


def own_address() -> str:
    """This machine's address on a network; "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            # Nothing is sent: the system only chooses which way it would go.
            asked.connect(_ANOTHER_NETWORK)
        except OSError:
            return ""
        found = str(asked.getsockname()[0])
    return "" if found.startswith("127.") else found


def free_address(host: str) -> str:
    """With a port that is free at this moment."""
    with socket.socket() as bound:
        bound.bind((host, 0))
        return f"tcp://{host}:{bound.getsockname()[1]}"


def try_fault(scene: Scene, fault: Fault, witness: Witness, digest: str) -> tuple[str, str, bool]:
    """What the faulty party saw, what the witness saw meanwhile, and whether all was well."""
    began = time.monotonic()
    is_well = True
    try:
        saw = fault(scene)
    except SkippedError as reason:
        return f"not run: {reason}", "-", True
    except Exception as error:
        saw, is_well = f"FAILED {type(error).__name__}: {error}", False
    sights = wait_for_answers(witness, began)
    has_answers = any(sight.kind == "photo" for sight in sights)
    return saw, describe_sights(sights, digest), is_well and has_answers and are_fine(sights, digest)


def wait_for_answers(witness: Witness, began: float) -> list[Sight]:
    """All the witness saw since then, as soon as there are some results among it."""
    until = time.monotonic() + WITNESS_SECONDS
    while time.monotonic() < until:
        if sum(sight.kind == "photo" for sight in witness.since(began)) >= WITNESS_ANSWERS:
            break
        time.sleep(0.1)
    return witness.since(began)


def first_digest(witness: Witness) -> str:
    """Of what the witness gets before any harm is done."""
    return next(sight.digest for sight in wait_for_answers(witness, 0.0) if sight.digest)


def run_faults(options: ServerOptions, photo: Path, seed: int, only: str, folder: Path) -> bool:
    """Print a table; whether every fault was survived and nobody else harmed.

    Args:
        options: of the server; two workers let the others go on while one is killed.
        photo: a good one.
        seed: of all chance.
        only: a fault is left out unless its name contains this.
        folder: for all files.
    """
    from benchmarks.serving.faults_messages import MESSAGE_FAULTS
    from benchmarks.serving.faults_processes import LONELY_FAULTS, PROCESS_FAULTS, kill_the_server

    _raise_handle_limit()
    host = own_address()
    remote = free_address(host) if host else ""
    options = replace(options, bind=("tcp://127.0.0.1:0", *([remote] if remote else [])))
    samples = quick_samples() if options.pipeline else real_samples(photo, seed)
    server = ServerProcess(options, folder / "server")
    scene = Scene(server, remote, samples, random.Random(seed), folder)
    rows: list[tuple[str, str, str, bool]] = []
    screen = console()

    def add(name: str, saw: str, others: str, is_well: bool) -> None:
        rows.append((name, saw, others, is_well))
        screen.print(f"{'ok' if is_well else 'BAD':4}{name}: {saw} | {others}", markup=False)

    try:
        if remote:
            # A server does not listen to others before somebody has a key.
            scene.client_key("first")
        server.start()
        server.wait_until_warm()
        assert isinstance(samples[0].data, bytes)
        with Witness(server.target, samples[0].data) as witness:
            digest = first_digest(witness)
            for name, fault in (PROCESS_FAULTS | MESSAGE_FAULTS).items():
                if only in name:
                    add(name, *try_fault(scene, fault, witness, digest))
        for name, lonely in LONELY_FAULTS.items():
            if only in name:
                add(name, *lonely(scene))
        if only in "kill -9 of the server":
            add("kill -9 of the server", *kill_the_server(scene))
    finally:
        left = scene.server.stop()
    screen.print(table("faults", ["fault", "what the faulty side saw", "what the others saw", "well"], [_shown(row) for row in rows]))
    if left:
        screen.print(f"left behind: {', '.join(left)}", markup=False)
    return all(row[3] for row in rows) and not left


def _shown(row: tuple[str, str, str, bool]) -> list[str]:
    return [*(cell.replace("[", "\\[") for cell in row[:3]), "yes" if row[3] else "NO"]


def _raise_handle_limit() -> None:
    """For a thousand connections at once."""
    if os.name != "posix":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
