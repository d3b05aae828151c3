"""Whether the process that a server was started for still lives."""

from __future__ import annotations

import time

import psutil

_SECONDS_BETWEEN_LOOKS = 1.0


class Parent:
    """A process by its id, and not whatever gets that id after it.

    Args:
        pid: its id; None for a parent that never ends.
    """

    def __init__(self, pid: int | None) -> None:
        self._process: psutil.Process | None = None
        self._is_gone = False
        self._next_look = 0.0
        try:
            self._process = psutil.Process(pid) if pid is not None else None
        except psutil.NoSuchProcess:
            self._is_gone = True

    def is_gone(self) -> bool:
        """Whether it has ended; looked at once a second."""
        if self._is_gone or self._process is None or time.monotonic() < self._next_look:
            return self._is_gone
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        try:
            # One that has ended but was not waited for is still listed.
            self._is_gone = not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            self._is_gone = True
        except (psutil.AccessDenied, OSError):
            # No handle is free to look with, perhaps: the next look tells.
            pass
        return self._is_gone
