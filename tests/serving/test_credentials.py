"""Finding a server: the newest of one's own, a ready file, a key file, an address."""

from __future__ import annotations

import subprocess
import sys

import pytest
import zmq

from focus_backend.errors import ConfigError, RefusedError, ServerError
from focus_backend.serving import ready
from focus_backend.serving.credentials import Credentials, find_credentials
from focus_backend.serving.keys import KeyFolder
from focus_backend.serving.ready import ReadyFile, process_start, write_ready


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    """A runtime folder of the test's own."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def process():
    """Another process than this one, a younger."""
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield running
    running.kill()
    running.communicate()


def _ready(port: int, pid: int | None = None) -> ReadyFile:
    public = zmq.curve_keypair()[0].decode()
    made = ReadyFile.of_this_process(f"tcp://127.0.0.1:{port}", public, ready.new_secret(), "focus-backend 1")
    if pid is None:
        return made
    return ReadyFile(made.address, public, made.secret, pid, made.protocol, made.software, process_start(pid) or 0.0)


def _owner(server: ReadyFile) -> Credentials:
    return Credentials(server.address, server.public_key, secret=server.secret)


@pytest.fixture
def key(tmp_path):
    """Makes key files, with an address or without."""

    def make(address: str = "", name: str = "anna"):
        path = tmp_path / f"{name}.key"
        content = KeyFolder(tmp_path / "keys").new(name, address, path)
        return path, content

    return make


@pytest.mark.parametrize("server", ["auto", "tcp://127.0.0.1:5555"])
def test_no_server_runs(server):
    with pytest.raises(ServerError, match="no server of yours") as refused:
        find_credentials(server)
    assert "focus-backend serve" in refused.value.remedy


def test_auto_is_the_newest_that_lives(process):
    mine, its = _ready(1001), _ready(1002, process.pid)
    write_ready(mine)
    write_ready(its)
    assert find_credentials("auto") == _owner(its)
    process.kill()
    process.wait()
    assert find_credentials("auto") == _owner(mine)


def test_an_own_server_by_its_address(process):
    mine, its = _ready(1001), _ready(1002, process.pid)
    write_ready(mine)
    write_ready(its)
    assert find_credentials("tcp://127.0.0.1:1001") == find_credentials("tcp://localhost:1001") == _owner(mine)
    with pytest.raises(ServerError, match="1003"):
        find_credentials("tcp://127.0.0.1:1003")


def test_a_ready_file(tmp_path):
    mine = _ready(1001)
    path = write_ready(mine, tmp_path / "here.json")
    assert find_credentials(path) == find_credentials(str(path)) == _owner(mine)
    with pytest.raises(ServerError, match="no server of yours"):
        find_credentials("auto")  # only the default folder is looked through


def test_a_key_file_with_an_address(key):
    path, content = key("tcp://render.example.org:5555")
    expected = Credentials(
        "tcp://render.example.org:5555", content["server_key"], public_key=content["public_key"], secret_key=content["secret_key"]
    )
    assert find_credentials(path) == find_credentials("auto", path) == expected


def test_a_key_file_without_an_address_needs_one(key):
    path, content = key()
    for arguments in ((path,), ("auto", path)):
        with pytest.raises(ServerError, match="holds no address"):
            find_credentials(*arguments)
    # Also to this machine: a tunnel ends here.
    for address in ("tcp://192.168.0.7:5555", "tcp://127.0.0.1:5555"):
        found = find_credentials(address, path)
        assert (found.address, found.server_key, found.secret) == (address, content["server_key"], "")


def test_a_given_address_goes_before_the_one_in_the_key(key):
    path, _ = key("tcp://old.example.org:5555")
    assert find_credentials("tcp://new.example.org:5555", path).address == "tcp://new.example.org:5555"


def test_a_remote_server_needs_a_key():
    with pytest.raises(RefusedError, match="known keys only") as refused:
        find_credentials("tcp://192.168.0.7:5555")
    assert "--key" in refused.value.remedy


@pytest.mark.parametrize("server", ["http://127.0.0.1:80", "ipc:///tmp/x", "tcp://host", "tcp://127.0.0.1:0", "tcp://*:5555"])
def test_addresses_that_cannot_be_called(server):
    with pytest.raises(ConfigError):
        find_credentials(server)


@pytest.mark.parametrize("server", ["", "nowhere.json", "127.0.0.1:5555", ".", "a\0b"])
def test_files_that_are_not_there(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ServerError, match="no server") as refused:
        find_credentials(server)
    assert "tcp://HOST:PORT" in refused.value.remedy
    assert "\n" not in str(refused.value)


def test_a_file_of_something_else(tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"address": "tcp://127.0.0.1:1"}')
    with pytest.raises(ServerError, match="damaged"):
        find_credentials(other)


def test_a_key_and_a_file_do_not_go_together(key, tmp_path):
    path, _ = key("tcp://render.example.org:5555")
    with pytest.raises(ConfigError, match="address"):
        find_credentials(write_ready(_ready(1001), tmp_path / "here.json"), path)


def test_secrets_are_not_shown(key):
    path, content = key("tcp://render.example.org:5555")
    mine = _ready(1001)
    write_ready(mine)
    shown = repr(find_credentials(path)) + repr(find_credentials("auto"))
    assert content["secret_key"] not in shown
    assert mine.secret not in shown
