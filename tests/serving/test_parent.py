"""Looking after the process that a server was started for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import psutil

from focus_backend.serving.parent import Parent


def test_it_is_gone_when_it_has_ended(monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        parent = Parent(process.pid)
        assert not parent.is_gone()
    latest = time.monotonic() + 30
    while not parent.is_gone() and time.monotonic() < latest:
        time.sleep(0.05)
    assert parent.is_gone()


def test_a_look_that_the_system_refuses_is_no_end(monkeypatch):
    parent = Parent(os.getpid())

    def refuse(_process):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(psutil.Process, "is_running", refuse)
    assert not parent.is_gone()
