"""Addresses, ready files, key files: what the add-on takes, and what it says about those that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from blender_addon.connection import credentials as credentials_module
from blender_addon.connection import private_file
from blender_addon.connection.address import parse_address
from blender_addon.connection.credentials import Credentials, find_credentials, is_loopback, live_servers, read_key_file, read_ready_file
from blender_addon.connection.processes import is_running
from blender_addon.errors import AddonError
from focus_backend.serving.keys import KeyFolder
from focus_backend.serving.ready import ReadyFile, new_secret, process_start, write_ready

on_posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes of files are POSIX")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A home and a runtime folder of the test's own, with a space and letters of other alphabets in their names."""
    home, runtime = tmp_path / "Jürgen Ōta", tmp_path / "laufend 走"
    for folder in (home, runtime):
        folder.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return SimpleNamespace(home=home, runtime=runtime)


def ready_file(path: Path | None = None, **changed: Any) -> Path:
    """The ready file of a backend that is this very process, written by the backend's own code."""
    public = zmq.curve_keypair()[0].decode()
    ready = ReadyFile.of_this_process("tcp://127.0.0.1:40123", public, new_secret(), "focus-backend 9")
    path = write_ready(ready, path)
    if changed:
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return path


def problem_of(call: Any, *arguments: Any) -> AddonError:
    with pytest.raises(AddonError) as caught:
        call(*arguments)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "anna's key.json"
    KeyFolder(tmp_path / "keys").new("anna", "tcp://render.example.org:5555", path)
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        (" 127.0.0.1:5555\n", "tcp://127.0.0.1:5555"),
        ("LocalHost:1", "tcp://127.0.0.1:1"),
        ("tcp://[::1]:65535", "tcp://[::1]:65535"),
        ("tcp://Render.Example.org:7", "tcp://render.example.org:7"),
    ],
)
def test_addresses(text, shown):
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "5555",
        "127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:70000",
        "tcp://127.0.0.1:5x",
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://[::]:5555",
        "tcp://127.1:5555",
        "tcp://1.2.3.400:5",
        "tcp://[::1:5",
        "ipc:///run/a",
        "http://127.0.0.1:80",
        "tcp://a@b:5",
        "tcp://a:5/x",
        "tcp://-a:5",
        "tcp://a;b:5",
    ],
)
def test_what_is_no_address(text):
    assert problem_of(parse_address, text).code == "config"
    assert not is_loopback(text)


def test_only_addresses_of_this_machine_are_loopback():
    assert is_loopback("tcp://127.0.0.9:5")
    assert is_loopback("localhost:5")
    assert is_loopback("tcp://[::1]:5")
    assert not is_loopback("tcp://[::ffff:127.0.0.1]:5")
    assert not is_loopback("tcp://localhost.example.org:5")
    assert not is_loopback("tcp://192.168.0.7:5")


def test_a_ready_file_is_read():
    path = ready_file()
    content = json.loads(path.read_text())
    found = read_ready_file(path)
    assert found == Credentials(
        "tcp://127.0.0.1:40123", content["public_key"], content["secret"], software="focus-backend 9", pid=os.getpid()
    )
    assert content["secret"] not in repr(found)
    assert live_servers() == [path]
    assert find_credentials("", None) == find_credentials("127.0.0.1:40123", None) == find_credentials("", path) == found


@pytest.mark.parametrize(
    "changed",
    [
        {"public_key": "short"},
        {"public_key": None},
        {"secret": "AB" * 32},
        {"secret": 5},
        {"pid": 0},
        {"pid": True},
        {"pid": 2**40},
        {"started": "yesterday"},
        {"started": 1e300},
        {"protocol": "1"},
        {"address": "tcp://*:5"},
        {"address": 5},
        {"software": ["x"]},
    ],
)
def test_damaged_fields_are_named(changed):
    path = ready_file(**changed)
    error = problem_of(read_ready_file, path)
    assert str(path) in error.problem
    assert next(iter(changed)) in error.problem
    assert live_servers() == []
    assert "no backend of yours is running" in problem_of(find_credentials, "", None).problem


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{" * 20000, b"[" * 10000, b" " * 20000])
def test_garbled_files(tmp_path, content):
    path = tmp_path / "ready.json"
    path.write_bytes(content)
    path.chmod(0o600)
    assert str(path) in problem_of(read_ready_file, path).problem
    assert str(path) in problem_of(read_key_file, path).problem


def test_what_is_no_file(tmp_path):
    for path in (tmp_path / "none", tmp_path, tmp_path / "a\0b"):
        assert problem_of(read_ready_file, path).code == "server"
        assert problem_of(find_credentials, "", path).code == "refused"


@on_posix
def test_a_pipe_in_its_place_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "no file" in problem_of(read_ready_file, tmp_path / "pipe").problem


@on_posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_files_that_are_open_to_others_are_refused(key_file, mode):
    path = ready_file()
    path.chmod(mode)
    key_file.chmod(mode)
    assert f"chmod 600 '{path}'" in problem_of(read_ready_file, path).remedy
    assert "open to other users" in problem_of(read_key_file, key_file).problem
    assert live_servers() == []


@on_posix
def test_another_users_files_are_refused(monkeypatch, key_file):
    path = ready_file()
    mine = os.getuid()
    monkeypatch.setattr(private_file.os, "getuid", lambda: mine + 1)
    assert "another user" in problem_of(read_ready_file, path).problem
    assert "another user" in problem_of(read_key_file, key_file).problem


@on_posix
def test_a_folder_that_others_write_to_is_refused(folders):
    ready_file().parent.chmod(0o777)
    assert "other users" in problem_of(live_servers).problem
    assert "chmod go-w" in problem_of(find_credentials, "", None).remedy


def test_the_backend_of_a_stale_file_has_ended():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = ready_file(pid=process.pid)
    error = problem_of(read_ready_file, path)
    assert error.code == "connection"
    assert "has ended" in error.problem
    assert live_servers() == []


@pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="elsewhere the start of a process is not looked at")
def test_a_process_that_got_the_number_later_is_another():
    path = ready_file(started=process_start(os.getpid()) - 100)
    assert problem_of(read_ready_file, path).code == "connection"


@on_posix
def test_processes():
    assert is_running(os.getpid())
    assert is_running(os.getpid(), process_start(os.getpid()))
    assert not is_running(0)
    assert not is_running(2**31 - 1)
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()
    # Ended, but nobody has waited for it yet.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process.pid)
    process.communicate()
    assert not is_running(process.pid)


def test_another_version_is_said_to_be_one():
    path = ready_file(protocol=2)
    error = problem_of(read_ready_file, path)
    assert error.code == "version"
    assert "version 2" in error.problem
    assert problem_of(find_credentials, "", None).code == "version"
    assert problem_of(find_credentials, "tcp://127.0.0.1:40123", None).code == "version"


def test_an_older_backend_of_our_version_is_better_than_a_newer_one_of_another(folders, monkeypatch):
    monkeypatch.setattr(credentials_module, "is_running", lambda pid, started: True)
    folder = folders.runtime / "focus-backend"
    ready_file(folder / "5.json", pid=5, started=100.0, software="old")
    ready_file(folder / "6.json", pid=6, started=300.0, software="middle")
    ready_file(folder / "7.json", pid=7, started=400.0, protocol=2)
    assert [path.name for path in live_servers()] == ["7.json", "6.json", "5.json"]
    assert find_credentials("", None).software == "middle"


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is Linux's")
def test_backends_without_a_runtime_folder_are_found(folders):
    (folders.home / ".cache").mkdir(mode=0o700)
    path = ready_file()
    (folders.home / ".cache/focus-backend/run").mkdir(mode=0o700, parents=True)
    moved = path.rename(folders.home / ".cache/focus-backend/run" / path.name)
    assert live_servers() == [moved]
    assert find_credentials("", None).pid == os.getpid()


@on_posix
def test_a_folder_that_cannot_be_looked_at_hides_no_backend(monkeypatch):
    # As one that belongs to the administrator, this name is refused by the system.
    monkeypatch.setenv("HOME", "/" + "x" * 300)
    assert problem_of(find_credentials, "", None).code == "server"
    path = ready_file()
    assert live_servers() == [path]


def test_numbers_that_no_process_has():
    assert not is_running(2**70)
    assert not is_running(-1)


def test_a_key_file_is_read(key_file):
    content = json.loads(key_file.read_text())
    found = read_key_file(key_file)
    assert found.address == "tcp://render.example.org:5555"
    assert (found.server_key, found.public_key, found.secret_key) == tuple(
        content[name] for name in ("server_key", "public_key", "secret_key")
    )
    assert not found.secret
    assert content["secret_key"] not in repr(found)
    assert find_credentials("", key_file) == found
    assert find_credentials("10.0.0.1:7", key_file).address == "tcp://10.0.0.1:7"


@pytest.mark.parametrize("changed", [{"server_key": ""}, {"public_key": "x"}, {"secret_key": None}, {"focus_key": "1"}, {"address": 5}])
def test_damaged_key_files(key_file, changed):
    key_file.write_text(json.dumps(json.loads(key_file.read_text()) | changed))
    error = problem_of(read_key_file, key_file)
    assert "damaged" in error.problem
    assert next(iter(changed)) in error.problem


def test_key_files_of_no_use(key_file):
    content = json.loads(key_file.read_text())
    key_file.write_text(json.dumps(content | {"focus_key": 2}))
    assert "version 2" in problem_of(read_key_file, key_file).problem
    key_file.write_text(json.dumps(content | {"public_key": zmq.curve_keypair()[0].decode()}))
    assert "no pair" in problem_of(read_key_file, key_file).problem
    key_file.write_text(json.dumps(content | {"address": ""}))
    assert "no address" in problem_of(read_key_file, key_file).problem
    assert read_key_file(key_file, "tcp://10.0.0.1:7").address == "tcp://10.0.0.1:7"


def test_addresses_without_what_they_need():
    assert problem_of(find_credentials, "tcp://10.0.0.1:7", None).code == "refused"
    assert "no backend of yours listens at tcp://127.0.0.1:7" in problem_of(find_credentials, "127.0.0.1:7", None).problem
    assert problem_of(find_credentials, "what", None).code == "config"


def test_a_missing_zeromq_is_told_when_it_is_needed(monkeypatch, key_file):
    monkeypatch.setitem(sys.modules, "zmq", None)
    assert read_ready_file(ready_file_without_zmq()).pid == os.getpid()
    error = problem_of(read_key_file, key_file)
    assert error.code == "missing-dependency"
    assert "extension" in error.remedy


def ready_file_without_zmq() -> Path:
    return write_ready(ReadyFile.of_this_process("tcp://127.0.0.1:1", "k" * 40, new_secret(), "focus-backend 9"))
