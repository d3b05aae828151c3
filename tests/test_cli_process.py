"""The command line as a process among others: signals, a reader that leaves, a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def _write_damaged(folder: Path, count: int) -> None:
    """Damaged photos, which keep the command busy without a fit."""
    for index in range(count):
        (folder / f"{index}.jpg").write_bytes(b"no picture")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_running_command_cleanly(number, tmp_path):
    _write_damaged(tmp_path, 3000)
    child = subprocess.Popen(
        [sys.executable, "-m", "focus_backend", "reconstruct", tmp_path, "-o", tmp_path / "out", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert child.returncode == (130 if summary["interrupted"] else 2)
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_reader_that_leaves_is_no_failure_of_ours(tmp_path):
    _write_damaged(tmp_path, 3000)
    command = f"{sys.executable} -m focus_backend reconstruct {tmp_path} -o {tmp_path}/out --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_progress_shows_on_a_terminal_only(tmp_path):
    """A real pseudo-terminal for stderr; stdout stays a pipe and must stay clean."""
    _write_damaged(tmp_path, 3)
    arguments = [sys.executable, "-m", "focus_backend", "reconstruct", tmp_path, "-o", tmp_path / "out"]
    master, slave = pty.openpty()
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            block = os.read(master, 4096)
        except OSError:  # Linux's way to say that the other side has closed
            break
        if not block:
            break
        seen += block
    out, _ = child.communicate(timeout=60)
    os.close(master)
    assert b"/3" in seen
    assert b"\x1b[" in seen
    assert b"\x1b" not in out
    quiet = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert "\x1b" not in quiet.stdout + quiet.stderr
