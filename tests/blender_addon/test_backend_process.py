"""The backend as a child process: started, watched, ended; with real servers, and with programs that are none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from blender_addon.connection import backend_process
from blender_addon.connection.backend_process import BackendProcess, ProcessState
from blender_addon.connection.channel import Channel
from blender_addon.connection.credentials import read_ready_file
from blender_addon.errors import AddonError
from focus_backend.serving import wire

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs of these tests are scripts")
PATIENCE = 30.0
_SERVING = Path(__file__).parents[1] / "serving"
# A real server with the quick pipeline of the server's own tests.
_QUICK = f"""
import argparse, sys
from pathlib import Path
sys.path.insert(0, {str(_SERVING)!r})
from focus_backend.errors import FocusError
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.server import serve
parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["serve"])
parser.add_argument("--ready-file", type=Path)
parser.add_argument("--parent-pid", type=int)
parser.add_argument("--pipeline", default="load_quick")
given = parser.parse_args()
config = ServerConfig(workers=1, ready_file=given.ready_file, parent_pid=given.parent_pid, keys=given.ready_file.parent / "keys")
try:
    sys.exit(serve(config, pipeline="pipelines:" + given.pipeline, announce=lambda path: print(path, flush=True)))
except FocusError as error:
    sys.exit(f"error: {{error}}")
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Writes a program: `script(text, interpreter=...)`."""

    def write(text: str, interpreter: str = sys.executable) -> Path:
        path = tmp_path / "Програми 走 dir" / "focus-backend"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{interpreter}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., BackendProcess]]:
    """Makes backend processes in one folder with a space in its name; whatever they started is killed at the end."""
    made: list[BackendProcess] = []
    before = {child.pid for child in psutil.Process().children()}

    def make_one(**settings: float) -> BackendProcess:
        made.append(BackendProcess(tmp_path / "user folder ü", os.getpid(), **settings))
        return made[-1]

    yield make_one
    for process in made:
        process.stop()
    for child in psutil.Process().children():
        if child.pid not in before:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                child.wait(PATIENCE)


def until(process: BackendProcess, *states: ProcessState) -> ProcessState:
    latest = time.monotonic() + PATIENCE
    while (state := process.poll()) not in states:
        assert time.monotonic() < latest, f"it stays {state}"
        time.sleep(0.01)
    return state


def child_of(process: BackendProcess) -> psutil.Process:
    assert process._process is not None
    return psutil.Process(process._process.pid)


def has_gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(PATIENCE)
    return not process.is_running()


def ask(ready: Path) -> wire.Welcome:
    channel = Channel(read_ready_file(ready))
    try:
        channel.send(wire.Hello())
        latest = time.monotonic() + PATIENCE
        while not (events := channel.events()):
            assert time.monotonic() < latest
            time.sleep(0.01)
        return events[0].body
    finally:
        channel.close()


def test_started_used_and_stopped(make, script, tmp_path):
    process = make()
    assert process.poll() == "off"
    process.start(script(_QUICK))
    assert process.poll() == "starting"
    until(process, "listening")
    assert process.ready is not None
    assert process.ready.parent == tmp_path / "user folder ü"
    assert ask(process.ready).is_owner
    child = child_of(process)
    process.start(script("raise SystemExit"))
    assert process.poll() == "listening"
    process.stop()
    assert process.poll() == "off"
    assert process.ready is None
    assert has_gone(child)
    assert not list((tmp_path / "user folder ü").glob("*.json"))
    assert "server-ended" in process.log.path.read_text()


def test_started_anew_while_the_last_one_ends(make, script):
    process = make()
    process.start(script(_QUICK))
    until(process, "listening")
    first, first_ready = child_of(process), process.ready
    process.stop()
    process.start(script(_QUICK))
    until(process, "listening")
    assert has_gone(first)
    assert process.ready != first_ready
    assert ask(process.ready).is_owner


def test_two_blenders_share_the_folder(make, script, tmp_path):
    here = make()
    there = BackendProcess(tmp_path / "user folder ü", os.getppid())
    try:
        for process in (here, there):
            process.start(script(_QUICK))
        for process in (here, there):
            until(process, "listening")
        assert here.ready != there.ready
        assert here.log.path != there.log.path
        assert ask(here.ready).is_owner
        assert ask(there.ready).is_owner
    finally:
        child = child_of(there)
        there.stop()
        has_gone(child)


def test_killed_by_somebody(make, script):
    process = make()
    process.start(script(_QUICK))
    until(process, "listening")
    child_of(process).kill()
    until(process, "ended")
    assert process.failure.code == "ended"
    assert "signal 9" in process.failure.problem
    assert process.ready is None
    assert process.poll() == "ended"
    process.start(script(_QUICK))
    until(process, "listening")
    assert process.failure is None


def test_a_pipeline_that_cannot_be_loaded(make, script):
    process = make()
    process.start(script(_QUICK), ["--pipeline", "load_never"])
    until(process, "ended")
    assert "there are no such weights: give others with --weights" in process.failure.problem
    assert "error:" not in process.failure.problem


def test_it_ends_with_its_parent(script, tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = BackendProcess(tmp_path / "folder", parent.pid)
    process.start(script(_QUICK))
    until(process, "listening")
    parent.communicate(b"\n")
    until(process, "ended")
    assert process.failure.problem == "the backend ended"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "import sys; print('first', file=sys.stderr); sys.exit('Error: no such weights\\n\\n')",
            "exit code 1 before it listened: no such weights",
        ),
        ("import focus_backend_that_is_missing", "No module named 'focus_backend_that_is_missing'"),
        ("import os; os._exit(3)", "exit code 3 before it listened"),
        ("pass", "the backend ended before it listened"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 before it listened"),
        ("import os; os.write(2, b'\\x1b[31m\\xff bad \\x07bytes\\n' + b'\\xe2\\x95\\xb0\\n'); os._exit(1)", "\ufffd bad bytes"),
        ("import os; os.write(2, b'x' * 300000); os._exit(1)", "x" * 400),
    ],
)
def test_programs_that_end_at_once(make, script, text, expected):
    process = make()
    process.start(script(text))
    until(process, "ended")
    assert expected in process.failure.problem
    assert "\n" not in process.failure.problem
    assert len(process.failure.problem) < 500


def test_a_program_that_never_listens(make, script):
    process = make(startup_seconds=0.3)
    process.start(script("import time; print('loading', flush=True); time.sleep(600)"))
    child = child_of(process)
    until(process, "ended")
    assert "did not listen within 0.3 s" in process.failure.problem
    assert process.failure.code == "startup"
    assert has_gone(child)


def test_a_program_that_does_not_want_to_end(make, script, monkeypatch):
    monkeypatch.setattr(backend_process, "_SECONDS_TO_HURRY", 0.1)
    monkeypatch.setattr(backend_process, "_SECONDS_TO_END", 0.3)
    process = make()
    process.start(script("import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"))
    child = child_of(process)
    latest = time.monotonic() + PATIENCE
    while process.log.last_line() != "deaf" and time.monotonic() < latest:
        time.sleep(0.01)
    process.stop()
    assert process.poll() == "off"
    assert has_gone(child)


def test_what_a_script_started_ends_with_it(make, script):
    process = make()
    process.start(script("sleep 600 & echo $!; wait", "/bin/sh"))
    latest = time.monotonic() + PATIENCE
    while not process.log.last_line().isdigit() and time.monotonic() < latest:
        time.sleep(0.01)
    grandchild = psutil.Process(int(process.log.last_line()))
    process.stop()
    latest = time.monotonic() + PATIENCE
    while grandchild.is_running() and grandchild.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < latest
        time.sleep(0.01)


def test_ended_by_a_message_where_there_are_no_signals(make, script, monkeypatch):
    process = make()
    process.start(script(_QUICK))
    until(process, "listening")
    child = child_of(process)
    backend_process._ask_to_end(process.ready)
    assert has_gone(child)
    assert until(process, "ended")
    assert process.failure.problem == "the backend ended"


def test_what_cannot_be_run(make, script, tmp_path):
    process = make()
    plain = tmp_path / "plain"
    plain.write_text("text")
    program = script("pass", interpreter="/nowhere/python")
    no_script = script("", interpreter="x")
    for path, told in ((tmp_path, "is a folder"), (tmp_path / "none", "does not exist"), (plain, "is not a program")):
        with pytest.raises(AddonError, match=told) as caught:
            process.start(path)
        assert caught.value.code == "executable"
        assert str(path) in caught.value.problem
    script("pass", interpreter="/nowhere/python")
    with pytest.raises(AddonError, match="the Python that it was installed with is gone"):
        process.start(program)
    no_script.write_bytes(b"\x00\x01 no program")
    with pytest.raises(AddonError, match="cannot be run"):
        process.start(no_script)
    assert process.poll() == "off"


def test_a_folder_that_cannot_be_written_to(script, tmp_path):
    (tmp_path / "file").write_text("")
    process = BackendProcess(tmp_path / "file" / "folder", os.getpid())
    with pytest.raises(AddonError, match="cannot be written to") as caught:
        process.start(script("pass"))
    assert caught.value.code == "output"


def test_a_ready_file_that_is_none_is_told(make, script):
    process = make()
    process.start(script("import sys, time; open(sys.argv[3], 'w').write('{'); time.sleep(600)"))
    child = child_of(process)
    until(process, "ended")
    assert process.failure.code == "server"
    assert has_gone(child)


def test_three_failures_open_the_breaker(make, script):
    process = make()
    path = script("import sys; sys.exit('broken')")
    for _ in range(3):
        process.start(path)
        until(process, "ended")
    with pytest.raises(AddonError, match=r"again and again.*broken") as caught:
        process.start(path)
    assert caught.value.code == "breaker"
    process.breaker.reset()
    process.start(path)
    until(process, "ended")


def test_what_the_child_is_given(make, script, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{sys.prefix}/lib{os.pathsep}/usr/lib")
    process = make()
    process.start(
        script("import os, sys; print(sys.argv[1:], [n for n in os.environ if n.startswith('PYTHON')], os.environ['LD_LIBRARY_PATH'])")
    )
    until(process, "ended")
    said = process.log.path.read_text()
    assert f"'--parent-pid', '{os.getpid()}'" in said
    assert "['PYTHONIOENCODING'] /usr/lib\n" in said


def test_ready_files_of_the_dead_are_removed(make, script, tmp_path):
    folder = tmp_path / "user folder ü"
    folder.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, other = folder / f"backend-{gone.pid}-1.json", folder / f"backend-{os.getppid()}-1.json"
    for path in (left, other):
        path.write_text("{}")
    process = make()
    process.start(script("pass"))
    until(process, "ended")
    assert not left.exists()
    assert other.exists()


@pytest.mark.slow
def test_the_installed_program(make):
    program = Path(sys.executable).with_name("focus-backend")
    if not program.exists():
        pytest.skip("focus-backend is not installed beside this Python")
    process = make()
    process.start(program, ["--workers", "1"])
    until(process, "listening")
    child = child_of(process)
    assert ask(process.ready).software.startswith("focus-backend ")
    process.stop()
    assert has_gone(child)
    with contextlib.suppress(AddonError):
        process.start(program, ["--no-such-option"])
        until(process, "ended")
    assert "--no-such-option" in process.failure.problem
