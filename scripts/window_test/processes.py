"""Processes that others have started, as Linux tells them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """All processes that this one has started, and those have started."""
    found = []
    for thread in PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in thread.read_text().split()]
    return found + [grandchild for child in found for grandchild in descendants(child)]


def is_running(pid: int) -> bool:
    """Whether it is there, and not only waiting for someone to take note of its end."""
    with contextlib.suppress(OSError):
        # The name before the state may hold spaces and brackets.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def workers_of(pid: int) -> list[int]:
    """The backend's workers among what this process has started."""
    return [process for process in descendants(pid) if b"focus_backend.serving.work" in _command_of(process)]


@contextlib.contextmanager
def held_still(processes: Sequence[int]) -> Iterator[None]:
    """They do nothing meanwhile."""
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def _command_of(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
