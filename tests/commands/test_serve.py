"""`serve`, `status`, `stop` and `keys`: configuration, lines, exit codes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands.conftest import save_photo
from focus_backend.cli import app
from focus_backend.commands.serve import read_config
from focus_backend.errors import ConfigError
from focus_backend.serving.credentials import find_credentials


def _run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return path


def test_flags_win_over_set_and_set_over_the_file(tmp_path):
    path = _toml(tmp_path, 'workers = 1\nbatch = 1\nlog = "json"\n[limits]\nqueue = 5\n[pipeline]\nmethod = "fit"\nmodel = "mine"\n')
    config = read_config(
        path, ["workers=2", "limits.queue=7", "pipeline.model=other", "batch=2"], {"workers": 3, "log": None}, {"model": "anny"}
    )
    assert (config.workers, config.batch, config.log) == (3, 2, "json")
    assert (config.limits.queue, config.limits.side) == (7, 16_384)
    assert (config.pipeline.model, config.pipeline.method) == ("anny", "fit")
    assert read_config(None).bind == ("tcp://127.0.0.1:0",)


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        ("workers = ", [], "is no TOML"),
        ("worker = 2", [], "there is no setting worker"),
        ("[limits]\nqeue = 2", [], "there is no setting limits.qeue"),
        ("workers = -1", [], "workers"),
        ("pipeline = 3", [], "pipeline"),
        ("", ["limits.queue=many"], "limits.queue"),
        ("", ["workers"], "is not section.key=value"),
        ("workers = 1", ["workers.x=1"], "workers is not a section"),
        ("limits = 3", [], "is a section, not 3"),
        ('log = "loud"', [], "log"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_one_line(tmp_path, text, overrides, told):
    with pytest.raises(ConfigError) as caught:
        read_config(_toml(tmp_path, text), overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    done = _run("serve", "-c", tmp_path / "server.toml", *(part for override in overrides for part in ("--set", override)))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_missing_configuration_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_a_server_that_cannot_start_is_one_line_and_exit_2(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = _run("serve", "--ready-file", tmp_path / "mine.txt", "--keys", tmp_path / "keys", "--bind", "nowhere")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr


def test_status_for_people_machines_and_prometheus(files_server):
    text = _run("status", files_server.ready_path)
    assert text.exit_code == 0
    assert "2 of 2 ready" in text.stdout
    report = json.loads(_run("status", files_server.ready_path, "--json").stdout)
    assert report["server"]["methods"] == ["fit", "network"]
    assert report["status"]["queued"] == 0
    assert len(report["status"]["workers"]) == 2
    prometheus = _run("status", files_server.ready_path, "--prometheus")
    assert "focus_requests_answered_total" in prometheus.stdout
    assert not prometheus.stdout.endswith("\n\n")
    assert _run("status", files_server.ready_path, "--prometheus", "--json").exit_code == 2


def test_stop_returns_when_the_server_has_ended(start_server):
    server = start_server(workers=1)
    done = _run("stop", server.ready_path, "--grace", "0")
    assert (done.exit_code, done.stdout) == (0, "stopped\n")
    assert server.process.poll() == 0
    assert not server.ready_path.exists()
    again = _run("stop", server.ready_path)
    assert again.exit_code == 2
    assert len(again.stderr.splitlines()) == 1


def test_no_server_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for command in ("status", "stop"):
        done = _run(command)
        assert done.exit_code == 2
        assert [line[:7] for line in done.stderr.splitlines()] == ["error: "]


def test_keys_from_new_to_revoked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOCUS_KEYS", str(tmp_path / "keys"))
    assert "no keys" in _run("keys", "list").stdout
    made = _run("keys", "new", "anna", "--address", "tcp://10.0.0.1:5555")
    assert (made.exit_code, made.stdout) == (0, "anna.key\n")
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "anna.key").stat().st_mode) == 0o600
    assert find_credentials("anna.key").address == "tcp://10.0.0.1:5555"
    assert _run("keys", "new", "berta", "-o", tmp_path / "b.key").exit_code == 0
    assert [entry["name"] for entry in json.loads(_run("keys", "list", "--json").stdout)] == ["anna", "berta"]
    assert _run("keys", "revoke", "anna").exit_code == 0
    listed = _run("keys", "list").stdout.splitlines()
    assert "revoked" in listed[0]
    assert "let in" in listed[1]
    secret = json.loads((tmp_path / "b.key").read_text())["secret_key"]
    assert not any(secret in path.read_text() for path in (tmp_path / "keys").rglob("*.json"))


@pytest.mark.parametrize("arguments", [("new", "../up"), ("new", "a b"), ("revoke", "nobody"), ("new", "c", "--address", "nowhere")])
def test_bad_keys_are_bad_input(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = _run("keys", *arguments, "--keys", tmp_path / "keys")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.key"))


def test_a_client_with_a_key_gets_in_until_it_is_revoked(start_server, tmp_path):
    keys = tmp_path / "server0" / "keys"
    assert _run("keys", "new", "anna", "-o", tmp_path / "anna.key", "--keys", keys).exit_code == 0
    server = start_server(workers=1, bind=["tcp://*:0"])
    there = ("--key", tmp_path / "anna.key")
    photo, address = save_photo(tmp_path / "a.png"), f"tcp://127.0.0.1:{server.port_for_others()}"
    assert _run("reconstruct", photo, "-o", tmp_path / "out", "--server", address, *there).exit_code == 0
    assert (tmp_path / "out" / "a" / "result.json").exists()
    report = json.loads(_run("status", address, *there, "--json").stdout)
    assert [worker["pid"] for worker in report["status"]["workers"]] == [0]
    assert _run("keys", "revoke", "anna", "--keys", keys).exit_code == 0
    done = _run("reconstruct", photo, "-o", tmp_path / "later", "--server", address, *there)
    assert done.exit_code == 2
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: "]
    assert not (tmp_path / "later").exists()
