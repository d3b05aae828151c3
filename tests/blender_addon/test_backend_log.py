"""The log of a backend of ours: bounded, the one before it kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from blender_addon.connection import backend_log
from blender_addon.connection.backend_log import BackendLog

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files as they are")


def test_one_older_log_is_kept(tmp_path):
    log = BackendLog(tmp_path, os.getpid())
    for word in ("one", "two", "three"):
        with log.open() as file:
            file.write(f"error: {word}\n".encode())
        assert log.last_line() == word
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"backend-{gone.pid}.log").write_text("of a Blender that has ended")
    os.utime(tmp_path / f"backend-{gone.pid}.log", (1, 1))
    (tmp_path / f"backend-{os.getppid()}.log").write_text("of another Blender")
    log.open().close()
    assert log.last_line() == ""
    assert log.older_path.read_text() == "error: three\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["backend-older.log", log.path.name, f"backend-{os.getppid()}.log"])


def test_a_log_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(backend_log, "_MOST_BYTES", 1000)
    log = BackendLog(tmp_path, os.getpid())
    with log.open() as file:
        for number in range(100):
            file.write(f"line {number}: {'x' * 80}\n".encode())
            file.flush()
            log.bound()
    assert log.path.stat().st_size <= 1100
    assert log.last_line().startswith("line 99")
    assert "line 9" in log.older_path.read_text()
