"""Ready files: private, whole, the server's own, and no proof of life by themselves."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import zmq

from focus_backend.errors import ConfigError, OutputError, ServerError
from focus_backend.serving import private_files, ready
from focus_backend.serving.ready import ReadyFile, live_servers, read_ready, ready_folder, remove_ready, sweep_stale, write_ready

on_posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    """A runtime folder of the test's own."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def _ready(**changed) -> ReadyFile:
    public = zmq.curve_keypair()[0].decode()
    made = ReadyFile.of_this_process("tcp://127.0.0.1:40123", public, ready.new_secret(), "focus-backend 1")
    return dataclasses.replace(made, **changed)


@pytest.fixture
def sleeper():
    """A process that lives until the test ends it."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_written_and_read():
    written = _ready()
    path = write_ready(written)
    assert path == ready_folder() / f"{os.getpid()}.json"
    assert read_ready(path) == written
    assert json.loads(path.read_text()).keys() == {"address", "public_key", "secret", "pid", "protocol", "software", "started"}
    assert written.secret not in repr(written)


@on_posix
def test_only_the_user_can_read_it_from_the_first_byte(monkeypatch, runtime):
    seen = []
    fsync = os.fsync

    def look(descriptor):
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        path = write_ready(_ready())
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_leaves_nothing_behind_and_the_old_file_whole(monkeypatch):
    first = _ready()
    path = write_ready(first)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_ready(_ready())
    assert read_ready(path) == first
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_ready(_ready(), tmp_path / "file" / "ready.json")


def test_a_file_that_is_no_ready_file_is_not_overwritten(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(OutputError, match="no ready file"):
        write_ready(_ready(), photo)
    assert photo.read_bytes() == b"\xff\xd8\xff"


@on_posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_others_can_write_to_is_refused(mode):
    ready_folder().mkdir()
    ready_folder().chmod(mode)
    with pytest.raises(ConfigError, match="other users"):
        write_ready(_ready())
    with pytest.raises(ConfigError, match="other users"):
        live_servers()


@on_posix
def test_a_folder_of_somebody_else_is_refused(monkeypatch, runtime):
    path = write_ready(_ready())
    monkeypatch.setattr(os, "getuid", lambda: 123456)
    monkeypatch.setattr(Path, "stat", _owned_by(4321))
    with pytest.raises(ConfigError, match="another user"):
        private_files.check_private_folder(path.parent)
    # Nor is a runtime folder used that sudo left in the environment.
    assert runtime not in ready_folder().parents


def _owned_by(user: int):
    status = Path.stat

    def other(path, **options):
        values = list(status(path, **options))
        values[4] = user
        return os.stat_result(values)

    return other


def test_without_a_runtime_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, place in (("linux", ".cache/focus-backend/run"), ("darwin", "Library/Caches/focus-backend/run")):
        monkeypatch.setattr(sys, "platform", platform)
        assert ready_folder() == tmp_path / place
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert ready_folder() == tmp_path / "Local" / "focus-backend" / "run"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 16_000,
        b" " * 20_000,
        b'{"address": "tcp://127.0.0.1:1"}',
    ],
)
def test_damaged_files(tmp_path, content):
    path = tmp_path / "ready.json"
    path.write_bytes(content)
    with pytest.raises(ServerError, match=r"damaged|too large") as refused:
        read_ready(path)
    assert "focus-backend serve" in refused.value.remedy
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "ipc:///tmp/x"),
        ("address", "tcp://127.0.0.1:0"),
        ("address", None),
        ("public_key", "short"),
        ("public_key", "\n" * 40),
        ("secret", "00"),
        ("secret", 17),
        ("pid", "17"),
        ("pid", True),
        ("pid", -1),
        ("pid", 2**70),
        ("protocol", None),
        ("software", ["x"]),
        ("started", "now"),
        ("started", None),
        ("started", float("inf")),
        ("started", float("nan")),
        ("started", 10**400),
    ],
)
def test_fields_are_checked(tmp_path, name, value):
    content = dataclasses.asdict(_ready()) | {name: value}
    path = tmp_path / "ready.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ServerError, match="damaged") as refused:
        read_ready(path)
    assert content["secret"] == value or str(content["secret"]) not in str(refused.value)


def test_missing_and_odd_files(tmp_path):
    with pytest.raises(ServerError, match="cannot be read"):
        read_ready(tmp_path / "nowhere.json")
    with pytest.raises(ServerError, match="cannot be read"):
        read_ready(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(ServerError, match="no file"):
            read_ready(tmp_path / "pipe.json")


def test_a_dead_server_is_told_and_swept(sleeper):
    dead = _ready(pid=sleeper.pid, started=ready.process_start(sleeper.pid))
    path = write_ready(dead)
    assert live_servers() == [(path, dead)]
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ServerError, match="has ended"):
        read_ready(path)
    assert live_servers() == []
    mine = write_ready(_ready())  # the next server sweeps
    assert list(ready_folder().iterdir()) == [mine]


@pytest.mark.skipif(os.name != "posix", reason="there are no zombies")
def test_a_killed_server_that_its_parent_never_asked_about_is_dead(sleeper):
    sleeper.kill()
    process = psutil.Process(sleeper.pid)
    for _ in range(1000):
        if process.status() == psutil.STATUS_ZOMBIE:
            break
        threading.Event().wait(0.01)
    assert ready.process_start(sleeper.pid) is None


def test_a_later_process_with_the_same_number_is_not_the_server():
    earlier = _ready()
    earlier = dataclasses.replace(earlier, started=earlier.started - 60)
    path = write_ready(earlier)
    with pytest.raises(ServerError, match="has ended"):
        read_ready(path)
    assert sweep_stale() == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="others keep the stamp of a process whatever the clock does")
def test_a_clock_that_is_set_kills_nobody(monkeypatch):
    path = write_ready(_ready())
    import psutil._pslinux as linux

    booted = linux.boot_time()
    monkeypatch.setattr(linux, "boot_time", lambda: booted + 3600)
    assert read_ready(path).pid == os.getpid()


def test_sweeping_leaves_what_is_not_ours_or_alive(sleeper):
    mine = write_ready(_ready())
    folder = mine.parent
    (folder / "notes.json").write_text("{}")
    (folder / "17.json").write_text("damaged")
    (folder / f".5.json.{sleeper.pid}.0123abcd").write_text("half")
    left_behind = folder / f".5.json.{2**31 - 1}.0123abcd"
    left_behind.write_text("half")
    assert sweep_stale() == [left_behind]
    assert len(list(folder.iterdir())) == 4


def test_the_file_of_a_running_server_is_not_overwritten(tmp_path, sleeper):
    path = tmp_path / "ready.json"
    its = _ready(pid=sleeper.pid, started=ready.process_start(sleeper.pid))
    write_ready(its, path)
    with pytest.raises(OutputError, match=f"runs, process {sleeper.pid}"):
        write_ready(_ready(), path)
    assert read_ready(path) == its
    sleeper.kill()
    sleeper.wait()
    mine = _ready()
    write_ready(mine, path)
    assert read_ready(path) == mine


def test_only_the_own_file_is_removed(tmp_path):
    path = tmp_path / "ready.json"
    first, second = _ready(), _ready()
    write_ready(first, path)
    write_ready(second, path)
    assert not remove_ready(path, first)
    assert read_ready(path) == second
    assert remove_ready(path, second)
    assert not path.exists()
    assert not remove_ready(path, second)


def test_the_newest_server_is_first(sleeper):
    me = write_ready(_ready())
    later = _ready(pid=sleeper.pid, started=ready.process_start(sleeper.pid))
    its = write_ready(later)
    assert [path for path, _ in live_servers()] == [its, me]


def test_a_missing_folder_holds_no_servers():
    assert live_servers() == []
    assert sweep_stale() == []


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = write_ready(_ready(), tmp_path / "ready.json")
    stop = threading.Event()
    writer = threading.Thread(target=lambda: [write_ready(_ready(), path) for _ in range(100) if not stop.is_set()])
    writer.start()
    try:
        while writer.is_alive():
            assert read_ready(path).pid == os.getpid()
    finally:
        stop.set()
        writer.join()
    assert list(tmp_path.glob(".*")) == []
