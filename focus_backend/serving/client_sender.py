"""Sends answers to clients without ever waiting for one of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import zmq

from focus_backend.serving.frames import whole_frames
from focus_backend.serving.outbox import Route, ToClient

_SECONDS_TO_READ = 30.0
# What waits for one client; with more, or when it reads nothing for that time, it counts as gone.
_MOST_MESSAGES = 1024
_MOST_BYTES = 256 * 2**20
# The same for all clients; beyond it whoever lets most wait has to go.
_MOST_BYTES_IN_ALL = 2**30


@dataclass
class _Backlog:
    since: float
    messages: deque[ToClient] = field(default_factory=deque)
    size: int = 0


class ClientSender:
    """Final answers wait for a client that reads slowly, up to a bound; progress is dropped instead.

    Args:
        sockets: by number; a route names its own.
        gone: told of each client that cannot be reached any more.
        undelivered: told of each message whose final answer never left.
        log: takes an event and its fields.
        clock: seconds.
    """

    def __init__(
        self,
        sockets: Sequence[zmq.Socket],
        *,
        gone: Callable[[Route], None],
        undelivered: Callable[[Route, str], None],
        log: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sockets = sockets
        self._gone = gone
        self._undelivered = undelivered
        self._log = log
        self._clock = clock
        self._backlogs: dict[tuple[int, bytes], _Backlog] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no answer waits."""
        return not self._backlogs

    def send(self, message: ToClient) -> None:
        """Sends, keeps or drops a message."""
        key = (message.route.number, message.route.identity)
        backlog = self._backlogs.get(key)
        # What waits goes first.
        if backlog is None and self._is_settled(message):
            return
        if not message.is_final:
            return
        backlog = self._backlogs.setdefault(key, _Backlog(self._clock()))
        backlog.messages.append(message)
        backlog.size += _size_of(message)
        if len(backlog.messages) > _MOST_MESSAGES or (backlog.size > _MOST_BYTES and len(backlog.messages) > 1):
            self._give_up(key, message.route)
        elif sum(each.size for each in self._backlogs.values()) > _MOST_BYTES_IN_ALL:
            largest = max(self._backlogs, key=lambda each: self._backlogs[each].size)
            self._give_up(largest, self._backlogs[largest].messages[0].route)

    def retry(self) -> None:
        """Tries what waits again; to be called every few moments."""
        for key, backlog in list(self._backlogs.items()):
            route = backlog.messages[0].route
            while backlog.messages and self._is_settled(backlog.messages[0]):
                backlog.size -= _size_of(backlog.messages.popleft())
                backlog.since = self._clock()
            if not backlog.messages:
                self._backlogs.pop(key, None)
            elif self._clock() - backlog.since > _SECONDS_TO_READ:
                self._give_up(key, route)

    def _is_settled(self, message: ToClient) -> bool:
        """Whether a message was sent, or never can be."""
        try:
            socket = self._sockets[message.route.number]
            socket.send_multipart([message.route.identity, *whole_frames(message.frames)], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                self._log("answer-not-sent", level="error", problem=str(error))
            backlog = self._backlogs.pop((message.route.number, message.route.identity), None)
            self._drop([message, *(backlog.messages if backlog is not None else ())])
            self._gone(message.route)
        return True

    def _drop(self, messages: Iterable[ToClient]) -> None:
        for message in messages:
            if message.is_final:
                self._undelivered(message.route, message.message_id)

    def _give_up(self, key: tuple[int, bytes], route: Route) -> None:
        backlog = self._backlogs.pop(key)
        self._log("client-does-not-read", level="warning", user=route.user, answers=len(backlog.messages))
        self._drop(backlog.messages)
        self._gone(route)


def _size_of(message: ToClient) -> int:
    return sum(memoryview(frame).nbytes for frame in message.frames)
