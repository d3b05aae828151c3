"""The key folder: made once, never overwritten, names that stay inside it, nothing open to others."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from focus_backend.errors import ConfigError, OutputError, ServerError
from focus_backend.serving import keys
from focus_backend.serving.keys import KeyFolder, default_key_folder, read_client_file

on_posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")


@pytest.fixture
def folder(tmp_path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_server_keeps_its_key(folder):
    public, secret = folder.server_keys()
    assert zmq.curve_public(secret.encode()) == public.encode()
    assert KeyFolder(folder.path).server_keys() == (public, secret)


@on_posix
def test_modes(folder, tmp_path):
    before = os.umask(0)
    try:
        folder.new("anna", output=tmp_path / "anna.key")
    finally:
        os.umask(before)
    assert _mode(folder.path) == _mode(folder.clients) == 0o700
    assert _mode(folder.path / "server.json") == _mode(folder.clients / "anna.json") == _mode(tmp_path / "anna.key") == 0o600


def test_a_new_key(folder, tmp_path):
    content = folder.new("anna", "tcp://render.example.org:5555", tmp_path / "anna.key")
    assert content.keys() == {"focus_key", "name", "address", "server_key", "public_key", "secret_key"}
    assert json.loads((tmp_path / "anna.key").read_text()) == content
    assert read_client_file(tmp_path / "anna.key").items() <= content.items()
    assert content["server_key"] == folder.server_keys()[0]
    (entry,) = folder.list()
    assert (entry.name, entry.public_key, entry.revoked) == ("anna", content["public_key"], None)
    on_server = "".join(path.read_text() for path in folder.path.rglob("*.json"))
    assert content["secret_key"] not in on_server


def test_list_and_revoke(folder):
    for name in ("zoe", "anna"):
        folder.new(name)
    revoked = folder.revoke("zoe")
    assert revoked.revoked is not None
    assert [(entry.name, entry.revoked is None) for entry in folder.list()] == [("anna", True), ("zoe", False)]
    assert folder.revoke("zoe") == revoked
    with pytest.raises(ConfigError, match="no key 'nobody'"):
        folder.revoke("nobody")


def test_a_name_is_used_once(folder):
    first = folder.new("anna")
    with pytest.raises(ConfigError, match="already"):
        folder.new("anna")
    folder.revoke("anna")
    with pytest.raises(ConfigError, match="already"):
        folder.new("anna")
    assert folder.entry("anna").public_key == first["public_key"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc/passwd",
        ".hidden",
        "-flag",
        "a b",
        "a\n",
        "a\0",
        "é",
        "x" * 65,
        "a.",
        "owner",
        "Owner",
        "CON",
        "nul.txt",
    ],
)
def test_names_that_are_refused(folder, name):
    for verb in (folder.new, folder.revoke, folder.entry):
        with pytest.raises(ConfigError) as refused:
            verb(name)
        assert "\n" not in str(refused.value)
    assert not folder.path.exists()


@pytest.mark.parametrize("name", ["a", "7", "anna-2.laptop_x", "x" * 64, "console", "a-"])
def test_names_that_are_fine(folder, name):
    assert folder.new(name)["name"] == name
    assert [entry.name for entry in folder.list()] == [name]


@pytest.mark.parametrize("address", ["tcp://*:5555", "tcp://host:0", "host:5555", "ipc:///x"])
def test_an_address_nobody_can_call_is_refused(folder, address):
    with pytest.raises(ConfigError):
        folder.new("anna", address)
    assert folder.list() == []


def test_a_key_that_reaches_nobody_is_not_let_in(folder, tmp_path):
    there = tmp_path / "anna.key"
    there.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        folder.new("anna", output=there)
    with pytest.raises(OutputError):
        folder.new("anna", output=tmp_path / "nowhere" / "anna.key")
    assert there.read_text() == "precious"
    assert folder.list() == []


def test_full_disk_leaves_no_key(folder, monkeypatch):
    folder.server_keys()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        folder.new("anna")
    assert list(folder.clients.iterdir()) == []


_MAKE = """
import sys
from pathlib import Path
from focus_backend.serving.keys import KeyFolder
input()
print(*KeyFolder(Path(sys.argv[1])).server_keys())
"""


def test_two_servers_at_once_share_one_key(folder):
    servers = [
        subprocess.Popen([sys.executable, "-c", _MAKE, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for server in servers:
        server.stdin.write("\n")
        server.stdin.flush()
    answers = {server.communicate(timeout=60)[0] for server in servers}
    assert answers == {" ".join(folder.server_keys()) + "\n"}
    assert [path.name for path in folder.path.iterdir()] == ["server.json"]


def test_the_slower_of_two_takes_the_key_that_is_there(folder, monkeypatch):
    faster = []
    pair = keys._new_pair

    def meanwhile():
        monkeypatch.setattr(keys, "_new_pair", pair)
        faster.append(KeyFolder(folder.path).server_keys())
        return pair()

    monkeypatch.setattr(keys, "_new_pair", meanwhile)
    assert folder.server_keys() == faster[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"public_key": 1}', "x" * 20_000])
def test_damaged_files_of_the_folder(folder, content):
    folder.new("anna")
    (folder.clients / "anna.json").write_text(content)
    for verb in (folder.list, lambda: folder.revoke("anna")):
        with pytest.raises(ConfigError, match=r"anna\.json"):
            verb()
    (folder.path / "server.json").write_text(content)
    with pytest.raises(ConfigError, match=r"server\.json"):
        folder.server_keys()


def test_a_key_file_without_word_on_revocation_is_damaged(folder):
    folder.new("anna")
    path = folder.clients / "anna.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "revoked"}))
    with pytest.raises(ConfigError, match="revoked"):
        folder.list()


def test_a_server_key_that_is_no_pair(folder):
    folder.server_keys()
    path = folder.path / "server.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"public_key": zmq.curve_keypair()[0].decode()}))
    with pytest.raises(ConfigError, match="no pair"):
        folder.server_keys()


@on_posix
def test_what_is_open_to_others_is_refused(folder):
    folder.new("anna")
    (folder.path / "server.json").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        folder.server_keys()
    (folder.path / "server.json").chmod(0o600)
    folder.clients.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod go-w"):
        folder.new("zoe")
    folder.path.chmod(0o770)
    with pytest.raises(ConfigError, match="chmod go-w"):
        folder.server_keys()


def test_client_files_are_checked(folder, tmp_path):
    path = tmp_path / "anna.key"
    content = folder.new("anna", output=path)
    changes = (
        {"focus_key": 2},
        {"focus_key": None},
        {"secret_key": "short"},
        {"server_key": None},
        {"address": 5},
        {"secret_key": zmq.curve_keypair()[1].decode()},
    )
    for change in changes:
        path.write_text(json.dumps(content | change))
        with pytest.raises(ServerError, match="key file") as refused:
            read_client_file(path)
        assert content["secret_key"] not in str(refused.value)
    with pytest.raises(ServerError, match="cannot be read"):
        read_client_file(tmp_path / "nowhere.key")


@on_posix
def test_a_client_file_open_to_others_is_refused(folder, tmp_path):
    path = tmp_path / "anna.key"
    folder.new("anna", output=path)
    path.chmod(0o644)
    with pytest.raises(ServerError, match="chmod 600"):
        read_client_file(path)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("FOCUS_KEYS", raising=False)
    if sys.platform != "win32":
        assert default_key_folder() == tmp_path / ".config" / "focus-backend" / "keys"
    monkeypatch.setenv("FOCUS_KEYS", str(tmp_path / "elsewhere"))
    assert KeyFolder().path == tmp_path / "elsewhere"
