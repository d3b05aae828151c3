"""Counts the signals that ask a process to end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


class StopSignals:
    """While it is entered, such signals are counted and do nothing else; they are left alone outside the main thread.

    Attributes:
        count: of signals so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]
            # nohup has the hanging up of a terminal ignored, which is to stay so.
            wanted = [number for number in numbers if not _is_ignored_hangup(number)]
            self._before = {number: signal.signal(number, self._take) for number in wanted}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def _is_ignored_hangup(number: int) -> bool:
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN
