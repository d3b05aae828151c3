"""Sessions whose backend does what no proper one does, and lookups that hang: every photo ends, and the next has a chance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addon_backend.bench import Bench
from blender_addon import wire
from blender_addon.connection.channel import Event, Lost
from blender_addon.connection.credentials import Credentials
from blender_addon.session import backend as backend_module
from blender_addon.session.backend import Backend
from blender_addon.session.kept_models import MODEL_PARTS
from blender_addon.session.session import Session
from blender_addon.session.settings import BackendSettings
from serving.scripted_server import MODEL, Answer, ScriptedServer, packed, result, welcome

PARTS = ["geometry", "texture", "masks", "albedo", "photo", "model", "identity"]
READY = replace(welcome(), parts=PARTS)


def refuse(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
    """Answers every photo with an error of its own making."""
    if isinstance(message.body, wire.Reconstruct):
        server.send(identity, packed(message, wire.Error("moon-phase", "not\ntoday", "")))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A session that connects."""
    session = Session(tmp_path / "own", os.getpid())
    session.settings = BackendSettings(mode="connect")
    yield Bench(session, tmp_path / "photos")
    session.close()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedServer]]:
    """Makes the server that sessions find: `scripted(answer, greeting=...)`."""
    made: list[ScriptedServer] = []

    def make_one(answer: Answer | None = refuse, **given: Any) -> ScriptedServer:
        made.append(ScriptedServer(answer, **({"greeting": READY} | given)))
        theirs = made[-1].credentials
        ours = Credentials(theirs.address, theirs.server_key, theirs.secret)
        monkeypatch.setattr(backend_module, "find_credentials", lambda address, key_file: ours)
        return made[-1]

    yield make_one
    for server in made:
        server.close()


def test_error_that_nobody_has_heard_of(bench, scripted):
    scripted()
    job = bench.submit()
    bench.until_ended(job)

    assert (job.state, job.error.code, job.error.problem) == ("failed", "moon-phase", "not today")


@pytest.mark.parametrize("admitted", [0, -5])
def test_server_that_takes_no_photo_at_once(bench, scripted, admitted):
    scripted(greeting=replace(READY, limits=replace(READY.limits, requests_in_flight=admitted, preview_side=admitted)))
    jobs = [bench.submit(name=f"{number}.jpg") for number in range(3)]
    bench.until_ended(*jobs)

    assert {job.error.code for job in jobs} == {"moon-phase"}


def test_preview_larger_than_was_asked_for(bench, scripted):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        if isinstance(message.body, wire.Reconstruct):
            picture = {"preview": wire.Array.of(np.zeros((3000, 3, 3), np.uint8))}
            server.send(identity, packed(message, wire.Progress("fit " * 10_000, 7.5), picture))

    scripted(answer)
    job = bench.submit()
    bench.until_state(job, "running")

    assert job.preview is None
    assert job.fraction == 1.0
    assert len(job.stage) < 1000


def test_names_of_a_server_cannot_break_the_panel(bench, scripted):
    scripted(greeting=replace(READY, software="a\nb" * 10_000, device="\x1b[2J"))
    bench.session.connect()
    bench.until(lambda: bench.session.status.light == "ready")

    assert bench.session.status.software.startswith("a ba b")
    assert len(bench.session.status.software) < 1000
    assert bench.session.status.device == "?[2J"


@pytest.mark.parametrize(
    "faces",
    [
        [],
        [wire.Face(0, [], {})],
        [wire.Face(-1, [], {"camera": {"rotation": "none"}, "lighting": [[1e300]]})],
        [wire.Face(0, ["x" * 100_000], {"camera": None, "photo": {"width": -1, "height": 2**40}})],
    ],
)
def test_wrong_model_is_not_kept(bench, scripted, faces):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        if isinstance(message.body, wire.Reconstruct):
            names = [name for names in MODEL_PARTS.values() for name in names]
            arrays = {name: wire.Array("float32", (2**31 - 1, 0), b"") for name in (*names, "model/more", "face0/neutral")}
            server.send(identity, packed(message, replace(result(), faces=faces), arrays))

    server = scripted(answer)
    jobs = [bench.submit(name="first.jpg")]
    bench.until_ended(*jobs)
    jobs.append(bench.submit(name="second.jpg"))
    bench.until_ended(*jobs)

    assert {(job.state, job.error.code) for job in jobs} == {("failed", "answer")}
    assert [set(MODEL_PARTS) <= set(message.body.parts) for message in server.heard_of(wire.Reconstruct)] == [True, True]
    assert bench.session._kept.missing(MODEL.sha256, ["model"]) == ["model"]


def test_server_that_lacks_the_model(bench, scripted):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        if isinstance(message.body, wire.Reconstruct):
            server.send(identity, packed(message, replace(result(), parts=message.body.parts)))

    server = scripted(answer, greeting=welcome())
    job = bench.submit()
    bench.until_ended(job)

    assert (job.state, job.error.code) == ("failed", "planning")
    assert "lacks model" in job.error.problem
    assert len(server.heard_of(wire.Reconstruct)) == 2


def test_work_is_shown_before_the_server_tells_that_its_workers_are_ready(bench, scripted):
    def answer(server: ScriptedServer, identity: bytes, message: wire.Message) -> None:
        if isinstance(message.body, wire.Reconstruct):
            server.send(identity, packed(message, wire.Progress("fit", 0.5)))

    scripted(answer, greeting=replace(READY, workers_ready=0))
    job = bench.submit()
    bench.until_state(job, "running")

    assert (bench.session.status.light, bench.session.status.text) == ("busy", "Working on a photo")


def test_server_that_is_too_busy_to_repeat_what_it_offers(bench, scripted, monkeypatch):
    monkeypatch.setattr(backend_module, "_HELLO_SECONDS", 0.05)
    server = scripted(greeting=replace(READY, workers_ready=0))
    bench.session.connect()
    bench.until(lambda: bench.session._backend.state == "open")
    server.greeting = wire.Error("busy", "later")
    told = len(server.heard_of(wire.Hello))
    bench.until(lambda: len(server.heard_of(wire.Hello)) > told + 1)
    server.greeting = READY
    bench.until(lambda: bench.session.status.light == "ready")


def test_first_reason_of_a_failure_is_the_one_that_is_told(tmp_path):
    class Ended:
        """A channel on which everything has come at once."""

        def events(self) -> list[Event]:
            return [Event("hello", wire.Error("refused", "the key was revoked")), Event("", Lost("it went away"))]

        def close(self, **_given: Any) -> None:
            pass

    backend = Backend(tmp_path, os.getpid())
    backend.state, backend._channel, backend._hello = "greeting", Ended(), "hello"
    backend.take_events()

    assert (backend.state, backend.error.problem) == ("failed", "the key was revoked")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The first lookup of a backend or of its keys hangs until this is set; further ones find nothing."""
    gate, calls = threading.Event(), []

    def look(*_given: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            gate.wait(60)
        return

    monkeypatch.setattr(backend_module, "find_backend", look)
    yield gate
    gate.set()


def test_search_that_hangs_holds_up_no_other(tmp_path, hanging):
    session = Session(tmp_path / "own", os.getpid())
    bench = Bench(session, tmp_path / "photos")
    session.start_backend()
    session.stop_backend()
    job = bench.submit()
    bench.until_ended(job)
    session.close()

    assert job.error.code == "no-backend"


def test_going_offline_while_the_keys_are_read(bench, monkeypatch):
    gate, calls = threading.Event(), []

    def find(address: str, key_file: Path | None) -> Credentials:
        calls.append(1)
        gate.wait(60)
        return Credentials("tcp://192.0.2.1:5555", "k" * 40)

    monkeypatch.setattr(backend_module, "find_credentials", find)
    job = bench.submit()
    bench.until(lambda: len(calls) == 1)
    bench.session.settings = BackendSettings(mode="connect", online=False)
    gate.set()
    bench.until_ended(job)

    assert job.error.code == "offline"
