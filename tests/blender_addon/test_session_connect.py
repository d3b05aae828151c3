"""Sessions that connect to a server that runs already, and one that is set to another in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from addon_backend.bench import ORDERS, PATIENCE, Bench, benches_in, is_alive
from addon_backend.program import write_program
from blender_addon.connection.credentials import read_ready_file
from blender_addon.errors import AddonError
from blender_addon.session.session import Session
from blender_addon.session.settings import BackendSettings
from focus_backend.cli import app
from focus_backend.serving.ready import ready_folder


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Benches of their own: `benches(pipeline, **settings of the server)`."""
    yield from benches_in(tmp_path)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ready files of this test's own."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return ready_folder()


@pytest.fixture
def start(tmp_path: Path, runtime: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts servers of this user's that are nobody's child: `start(name, **settings)`."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_one(name: str = "server", **settings: object) -> subprocess.Popen[bytes]:
        program = write_program(tmp_path / name, ORDERS, **settings)  # type: ignore[arg-type]
        processes.append(subprocess.Popen([str(program), "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline().strip().endswith(b".json")
        return processes[-1]

    yield start_one
    for process in processes:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A session that connects."""
    session = Session(tmp_path / "own", os.getpid())
    session.settings = BackendSettings(mode="connect")
    yield Bench(session, tmp_path / "photos")
    session.close()


def address_of(process: subprocess.Popen[bytes], runtime: Path) -> str:
    return read_ready_file(runtime / f"{process.pid}.json").address


def test_newest_server_is_used_and_left_alone(bench, start, runtime):
    start("older")
    server = start("newer")
    job = bench.submit("no-face")
    assert job.stage == "Connecting to the backend"
    bench.until_ended(job)
    status = bench.session.status
    bench.session.stop_backend()
    bench.session.close()

    assert job.error.code == "no-face"
    assert (status.address, status.is_ours) == (address_of(server, runtime), False)
    assert server.poll() is None


def test_address_of_a_server_that_is_not_the_newest(bench, start, runtime):
    address = address_of(start("older"), runtime)
    start("newer")
    bench.session.settings = BackendSettings(mode="connect", address=address)
    bench.session.connect()
    bench.until(lambda: bench.session.status.light == "ready")

    assert bench.session.status.address == address


def test_no_server_runs(bench, runtime):
    job = bench.submit("no-face")
    bench.until_ended(job)

    assert (job.state, job.error.problem) == ("failed", "no backend of yours is running")
    assert job.error.remedy
    assert bench.session.status.light == "failed"


def make_key(tmp_path: Path, *more: str) -> str:
    """A key file as the server's owner hands it over."""
    key = tmp_path / "anna.key"
    given = ["keys", "new", "anna", "-o", str(key), "--keys", str(tmp_path / "keys"), *more]
    assert CliRunner().invoke(app, given).exit_code == 0
    return str(key)


def test_nobody_answers(bench, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr("blender_addon.session.backend._SECONDS_TO_GREET", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        bench.session.settings = BackendSettings(mode="connect", address=address, key_file=make_key(tmp_path))
        job = bench.submit("no-face")
        bench.until_ended(job)

    assert job.error.code == "connection"
    assert address in job.error.problem
    assert "key" in job.error.remedy


@pytest.mark.parametrize("key_file", ["", "missing.key"])
def test_key_is_missing(bench, runtime, key_file):
    bench.session.settings = BackendSettings(mode="connect", address="tcp://192.0.2.1:5555", key_file=key_file)
    job = bench.submit("no-face")
    bench.until_ended(job)

    assert job.error.code == "refused"
    assert "focus-backend keys new" in job.error.remedy


def test_another_machine_while_offline(bench, runtime):
    bench.session.settings = BackendSettings(mode="connect", address="tcp://192.0.2.1:5555", key_file="missing.key", online=False)
    job = bench.submit("no-face")
    bench.until_ended(job)

    assert job.error.code == "offline"
    assert "192.0.2.1" in job.error.problem
    assert "online access" in job.error.remedy


def test_key_file_that_names_another_machine_while_offline(bench, runtime, tmp_path):

    key = make_key(tmp_path, "--address", "tcp://192.0.2.1:5555")
    bench.session.settings = BackendSettings(mode="connect", key_file=key, online=False)
    bench.session.connect()
    bench.until(lambda: bench.session.status.light == "failed")

    assert bench.session.error.code == "offline"


def test_going_offline_ends_the_connection_to_another_machine(bench, start, runtime, monkeypatch):
    start()
    job = bench.submit("sleep 60")
    bench.until_state(job, "running")
    bench.session.settings = BackendSettings(mode="connect", online=False)
    assert job.state == "running"
    # The nearest thing to another machine that a test has.
    monkeypatch.setattr("blender_addon.session.session.is_loopback", lambda address: False)
    bench.session.settings = BackendSettings(mode="connect", online=False)

    assert (job.state, job.error.code) == ("failed", "offline")
    assert bench.session.status.light == "failed"


def test_server_of_another_version(bench, start, runtime):
    server = start()
    ready = runtime / f"{server.pid}.json"
    ready.write_text(ready.read_text().replace('"protocol": 1', '"protocol": 7'))
    job = bench.submit("no-face")
    bench.until_ended(job)

    assert job.error.code == "version"
    assert "version 7" in job.error.problem
    assert "same FOCUS version" in job.error.remedy


def test_server_killed_in_mid_request(bench, start, runtime):
    server = start()
    job = bench.submit("sleep 60")
    bench.until_state(job, "running")
    server.send_signal(signal.SIGKILL)
    bench.until_ended(job)

    assert job.error.code == "backend-lost"
    assert "photo.jpg" in job.error.problem
    assert bench.session.status.light == "failed"
    start("another")
    again = bench.submit("no-face")
    bench.until_ended(again)
    assert again.error.code == "no-face"


def test_from_automatic_to_connect_with_a_photo_under_way(benches, start, runtime):
    server = start()
    bench = benches()
    first = bench.submit("sleep 0.5\nno-face", "first.jpg")
    bench.until_state(first, "running")
    ours = bench.backend_pid()
    bench.session.settings = BackendSettings(mode="connect")
    second = bench.submit("no-face", "second.jpg")
    bench.turn()
    assert (first.state, second.state, bench.session.status.is_ours) == ("running", "waiting", True)
    bench.until_ended(first, second)

    assert [job.error.code for job in (first, second)] == ["no-face", "no-face"]
    assert bench.session.status.address == address_of(server, runtime)
    bench.until(lambda: not is_alive(ours))


def test_another_backend_has_to_wait_for_what_is_under_way(bench, start, runtime):
    start()
    job = bench.submit("sleep 60")
    bench.until_state(job, "running")
    for call in (bench.session.start_backend, bench.session.connect):
        with pytest.raises(AddonError, match="a photo is under way"):
            call()
    assert job.state == "running"


def test_deadline(bench, start, runtime):
    start(limits={"deadline_seconds": 0.5})
    job = bench.submit("sleep 60")
    bench.until_ended(job)

    assert job.error.code == "deadline"
    assert "quicker method" in job.error.remedy


def test_server_that_is_busy_with_others(bench, start, runtime, tmp_path):
    start(limits={"queue": 1})
    neighbour = Bench(Session(tmp_path / "neighbour", os.getpid()), tmp_path / "others")
    neighbour.session.settings = BackendSettings(mode="connect")
    first = neighbour.submit("sleep 60")
    neighbour.until_state(first, "running")
    second = neighbour.submit("sleep 60", "second.jpg")
    neighbour.until(lambda: second.state == "sent" and second.stage == "Waiting")
    neighbour.until(lambda: len(neighbour.session._requests) == 2)
    job = bench.submit("no-face")
    bench.until_ended(job)
    neighbour.session.close()

    assert job.error.code == "busy"
    assert "try again" in job.error.remedy


def test_photo_larger_than_the_server_admits(bench, start, runtime):
    start(limits={"frame_bytes": 4096})
    job, good = bench.submit("\n" * 5000, "large.jpg"), bench.submit("no-face", "good.jpg")
    sent = bench.record_requests()
    bench.until_ended(job, good)

    assert job.error.code == "photo"
    assert job.error.problem == "large.jpg has 4.88 KB, more than the 4 KB that the backend admits"
    assert good.error.code == "no-face"
    assert len(sent) == 1


def test_method_and_texture_that_the_server_has_not(bench, start, runtime):
    start()
    bench.session.connect()
    bench.until(lambda: bench.session.status.methods != ())
    wrong = [bench.submit(name="a.jpg", method="refine"), bench.submit(name="b.jpg", texture_size=1 << 20)]
    jobs = [*wrong, bench.submit("no-face", method="network")]
    bench.until_ended(*jobs)

    assert [job.error.code for job in jobs] == ["config", "config", "no-face"]
    assert "fit, network" in jobs[0].error.remedy
    assert "8192" in jobs[1].error.remedy
