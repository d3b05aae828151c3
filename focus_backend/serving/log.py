"""The server's log: one line an event, as text or JSON, never in the way of the work."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from typing import Any

# More lines wait only when whoever reads them has stopped to.
_MOST_WAITING = 1000
_LONGEST_VALUE = 4000


class EventLog:
    """Writes events from a thread of its own, for a pipe that nobody reads would stop the server otherwise.

    A line that cannot be written (disk full, pipe closed or full) is lost; the log never raises.

    Args:
        form: "text" or "json".
        descriptor: the file to write to; None for standard error, where there is one.
    """

    def __init__(self, form: str = "text", descriptor: int | None = None) -> None:
        self._is_json = form == "json"
        self._descriptor = _standard_error() if descriptor is None else descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._writer = threading.Thread(target=self._write_lines, name="log", daemon=True)
        if self._descriptor is not None:
            self._writer.start()

    def __call__(self, event: str, /, *, level: str = "info", **fields: Any) -> None:
        """Logs what happened; `fields` are shown after it, and never hold a photo, its name or a secret."""
        if self._descriptor is None:
            return
        try:
            self._lines.put_nowait(self._line(event, level, fields))
        except queue.Full:
            return

    def close(self, seconds: float = 1.0) -> None:
        """Writes what waits, for so long at most."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        if self._writer.is_alive():
            self._writer.join(seconds)

    def _line(self, event: str, level: str, fields: dict[str, Any]) -> bytes:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        if self._is_json:
            values = {name: _plain(value) for name, value in fields.items()}
            return json.dumps({"time": stamp, "level": level, "event": event} | values).encode("ascii") + b"\n"
        shown = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{stamp} {level:<7} {event}{shown}\n".encode("utf-8", "backslashreplace")

    def _write_lines(self) -> None:
        assert self._descriptor is not None
        while (line := self._lines.get()) is not None:
            # Past the buffers of sys.stderr, which keep what a full disk refuses and fail again when Python ends.
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(self._descriptor, line) :]


def _standard_error() -> int | None:
    """Its descriptor. Where a process was started without one, its number may be anything that was opened since."""
    try:
        return None if sys.stderr is None else sys.stderr.fileno()
    except (OSError, ValueError):
        return None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < float("inf") else str(value)
    return str(value)[:_LONGEST_VALUE]


def _shown(value: Any) -> str:
    text = str(_plain(value))
    is_plain = text.isprintable() and not any(character in text for character in ' "=')
    return text if text and is_plain else json.dumps(text, ensure_ascii=False)
