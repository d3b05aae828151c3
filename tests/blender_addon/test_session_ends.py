"""How jobs end before their time: cancelled, stopped, closed, and with a backend that is lost or never comes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from addon_backend.bench import HEADS, Bench, benches_in, is_alive, make_bench
from blender_addon.errors import AddonError
from blender_addon.session.session import Session
from blender_addon.session.settings import BackendSettings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and pipes")


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Benches of their own: `benches(pipeline, **settings of the server)`."""
    yield from benches_in(tmp_path)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench whose backend runs and makes heads; the tests leave it without jobs under way."""
    bench = make_bench(tmp_path_factory.mktemp("heads"), HEADS)
    bench.session.start_backend()
    bench.until(lambda: bench.session.status.light == "ready")
    yield bench
    bench.session.close()


def check_cancelled(bench: Bench, job) -> None:
    """Cancels the job; the bench is as good as before, and nothing comes of the job."""
    bench.session.error = None
    bench.session.cancel(job)
    assert (job.state, job.stage, job.error.code) == ("cancelled", "Cancelled", "cancelled")
    bench.session.cancel(job)
    bench.session.cancel_all()
    assert not bench.session.is_working
    assert bench.session.error is None
    after = bench.submit("no-face", "after.jpg")
    bench.until_ended(after)
    assert after.error.code == "no-face"
    assert job.state == "cancelled"
    assert bench.plans == {}


def test_cancel_while_the_backend_starts(benches):
    bench = benches()
    check_cancelled(bench, bench.submit("sleep 60"))


def test_cancel_while_another_is_read(heads):
    waiting = [heads.submit("sleep 60") for _ in range(5)][-1]
    heads.until(lambda: waiting.stage == "Waiting, 4 ahead")
    check_cancelled(heads, waiting)


def test_cancel_while_a_drive_does_not_answer(heads, monkeypatch, tmp_path):
    photo = tmp_path / "photo.jpg"
    # Opening it hangs until somebody writes, as a network drive does.
    os.mkfifo(photo)
    for module in ("session", "photo_reading"):
        monkeypatch.setattr(f"blender_addon.session.{module}.check_photo", lambda path: None)
    job = heads.submit_file(photo)
    heads.until_state(job, "reading")
    check_cancelled(heads, job)
    photo.open("wb").close()
    heads.turn()
    assert job.state == "cancelled"


def test_cancel_while_it_waits_at_the_server(heads):
    heads.until_state(heads.submit("sleep 60"), "running")
    job = heads.submit("sleep 60")
    heads.until(lambda: (job.state, job.stage) == ("sent", "Waiting"))
    check_cancelled(heads, job)


def test_cancel_while_it_is_worked_on(heads):
    job = heads.submit("sleep 60")
    heads.until_state(job, "running")
    check_cancelled(heads, job)


@pytest.mark.parametrize("is_planned", [False, True])
def test_cancel_while_it_is_planned(heads, is_planned):
    job = heads.submit()
    while job.state != "planning":
        heads.session.tick()
        assert not job.has_ended
        time.sleep(0.005)
    if is_planned:
        while not heads.session._plans:
            heads.session.tick()
            time.sleep(0.005)
    check_cancelled(heads, job)


def test_stop_while_it_starts(benches):
    bench = benches(before="time.sleep(60)")
    job = bench.submit()
    bench.until(lambda: bench.session._backend._process.is_running)
    pid = bench.backend_pid()
    bench.session.stop_backend()

    assert (job.state, bench.session.status.light) == ("cancelled", "off")
    assert "stopped" in job.error.problem
    bench.until(lambda: not is_alive(pid))
    assert bench.session.status.light == "off"


def test_stop_and_start_with_a_photo_under_way(benches):
    bench = benches()
    job = bench.submit("sleep 60")
    bench.until_state(job, "running")
    first = bench.backend_pid()
    bench.session.stop_backend()
    bench.session.start_backend()
    bench.until(lambda: bench.session.status.light == "ready")

    assert job.state == "cancelled"
    assert bench.backend_pid() != first
    bench.until(lambda: not is_alive(first))


def test_close_in_mid_request(benches):
    bench = benches()
    job = bench.submit("hang")
    bench.until_state(job, "running")
    pid = bench.backend_pid()
    bench.session.close()

    assert job.state == "cancelled"
    bench.session.tick()
    bench.session.close()
    assert bench.session.take_plan() is None
    for call in (bench.submit, bench.session.start_backend, bench.session.connect):
        with pytest.raises(AddonError, match="switched off"):
            call()
    bench.until(lambda: not is_alive(pid))


def test_backend_killed_in_mid_request_is_started_again_for_what_waits(benches):
    bench = benches(limits={"requests_in_flight": 1})
    lost, waiting = bench.submit("sleep 60", "lost.jpg"), bench.submit("no-face", "waiting.jpg")
    bench.until_state(lost, "running")
    first = bench.backend_pid()
    assert waiting.stage == "Waiting, 1 ahead"
    os.kill(first, signal.SIGKILL)
    bench.until_ended(lost)

    assert (lost.state, lost.error.code) == ("failed", "backend-lost")
    assert "lost.jpg" in lost.error.problem
    assert "signal 9" in lost.error.problem
    assert lost.error.remedy
    assert bench.session.error.problem
    bench.until_ended(waiting)
    assert waiting.error.code == "no-face"
    assert bench.backend_pid() != first


def test_backend_that_cannot_load_is_told_and_not_started_for_ever(benches):
    bench = benches("serving.pipelines:load_never")
    errors = []
    for _ in range(5):
        job = bench.submit()
        bench.until_ended(job)
        errors.append(job.error)

    assert "there are no such weights" in errors[0].problem
    assert errors[-1].code == "breaker"
    assert bench.session.status.light == "failed"
    bench.session.start_backend()
    bench.until(lambda: bench.session.status.light == "failed")
    assert bench.session.status.error.code != "breaker"


@pytest.mark.parametrize("executable", ["", "no such program"])
def test_no_backend(tmp_path, monkeypatch, executable):
    monkeypatch.setattr("blender_addon.session.backend.find_backend", lambda preferred: None)
    session = Session(tmp_path / "own", os.getpid())
    session.settings = BackendSettings(executable=executable)
    bench = Bench(session, tmp_path / "photos")
    job = bench.submit()
    bench.until_ended(job)
    session.close()

    assert (job.state, job.error.code) == ("failed", "no-backend")
    assert "preferences" in job.error.remedy
    assert executable in job.error.problem
    assert session.error.problem == job.error.problem


def test_folder_that_cannot_be_written(benches, tmp_path):
    bench = benches()
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    session = Session(in_the_way / "own", os.getpid())
    session.settings = bench.session.settings
    other = Bench(session, tmp_path / "photos")
    job = other.submit()
    other.until_ended(job)
    session.close()

    assert "cannot be written" in job.error.problem
    assert job.error.remedy
