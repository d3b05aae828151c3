# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes from a backend, from the thread that hears it to the one that uses it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import wire


@dataclass(frozen=True)
class Lost:
    """The backend cannot be talked to any more: every request under way is lost, and the channel is of no use.

    Attributes:
        problem: what happened, one line.
        remedy: what to do about it, one line.
        code: "connection" for a backend that is away or silent, "refused" for keys that do not fit, "version" for another protocol,
            "missing-dependency" or "internal".
    """

    problem: str
    remedy: str = ""
    code: str = "connection"


@dataclass(frozen=True)
class Event:
    """Something that came.

    Attributes:
        id: of the request it belongs to; "" for the loss of the connection.
        body: one of `wire.ANSWERS`, or `Lost`.
        arrays: of the message; views of ZeroMQ's memory.
    """

    id: str
    body: Any
    arrays: Mapping[str, wire.Array] = field(default_factory=dict)


class EventQueue:
    """Events from one thread to another.

    Of a request's progress that nobody has looked at only the newest is kept, so that hours without a look cost no memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        # Where in the list the newest event of a request lies.
        self._newest: dict[str, int] = {}

    def put(self, event: Event) -> None:
        """Adds an event, or puts it in the place of an outdated one."""
        with self._lock:
            index = self._newest.get(event.id)
            if index is not None and _outdates(event, self._events[index]):
                self._events[index] = _with_preview(event, self._events[index])
                return
            self._newest[event.id] = len(self._events)
            self._events.append(event)

    def take(self) -> list[Event]:
        """All events since the last call, oldest first."""
        with self._lock:
            taken, self._events = self._events, []
            self._newest = {}
        return taken


def _outdates(event: Event, earlier: Event) -> bool:
    return isinstance(event.body, (wire.Accepted, wire.Progress)) and type(event.body) is type(earlier.body)


def _with_preview(event: Event, earlier: Event) -> Event:
    return event if event.arrays else Event(event.id, event.body, earlier.arrays)
