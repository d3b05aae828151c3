# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a backend, with a thread that owns its socket: the window never waits for the network."""

from __future__ import annotations

import itertools
import math
import secrets
import socket
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from .. import wire
from ..errors import AddonError
from .conversation import Conversation
from .credentials import Credentials
from .events import Event, EventQueue, Lost
from .link import Link
from .zeromq import zeromq

__all__ = ["Channel", "Event", "Lost"]

# Cancels may leave for so long, and then the thread for so long more.
_LINGER_MILLISECONDS = 200
_SECONDS_TO_CLOSE = 0.45
_CLOSED = Lost("the connection was closed", "connect again")


class Channel:
    """Requests go out, events come in; every method may be called from any thread and returns at once.

    Pings the backend by itself. After `Lost` it is of no use: make another.

    Args:
        credentials: of the backend and for it.
        quiet_seconds: without a sign of the backend before it counts as lost. Of another machine take more, such as 60: on a slow line
            a large answer holds back every sign behind it.

    Raises:
        AddonError: ZeroMQ is missing, or the system has no more handles or threads.
    """

    def __init__(self, credentials: Credentials, *, quiet_seconds: float = 10.0) -> None:
        self._zmq = zeromq()
        self._credentials = credentials
        self._quiet = quiet_seconds
        self._events = EventQueue()
        self._prefix = secrets.token_hex(12)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._inbox: deque[tuple[str, Any, Mapping[str, wire.Array]]] = deque()
        # Why nothing can be sent any more.
        self._end: Lost | None = None
        self._is_closing = False
        self._waker, self._thread = self._started()

    def send(self, body: Any, arrays: Mapping[str, wire.Array] | None = None) -> str:
        """Sends a request, as soon as the connection is up.

        Args:
            body: one of `wire.REQUESTS`.
            arrays: not to be changed until the request is answered.

        Returns:
            Its id; the events with it are the answers. After the connection was lost the answer is `Lost`.
        """
        with self._lock:
            message_id = f"{self._prefix}-{next(self._numbers)}"
            if self._end is not None:
                self._events.put(Event(message_id, self._end))
            else:
                self._inbox.append((message_id, body, arrays or {}))
                self._wake()
        return message_id

    def events(self) -> list[Event]:
        """What came since the last call, oldest first; of progress the newest only."""
        return self._events.take()

    def close(self, *, is_awaited: bool = True) -> None:
        """Gives up what is under way, here and at the backend, and ends the connection. May be called twice.

        Args:
            is_awaited: whether to wait until it has ended, 0.5 s at most.
        """
        with self._lock:
            self._is_closing = True
            self._end = self._end or _CLOSED
            self._wake()
        if is_awaited and self._thread is not threading.current_thread():
            self._thread.join(_SECONDS_TO_CLOSE)

    def _started(self) -> tuple[socket.socket, threading.Thread]:
        """The thread, running, and what wakes it."""
        ends: tuple[socket.socket, ...] = ()
        try:
            ends = waker, woken = socket.socketpair()
            for end in ends:
                end.setblocking(False)
            thread = threading.Thread(target=self._run, args=(woken,), name="focus-channel", daemon=True)
            # Before it runs, for it closes them when it ends.
            self._waker = waker
            thread.start()
        except (OSError, RuntimeError) as error:
            for end in ends:
                end.close()
            raise AddonError(f"no connection can be made ({error})", "close other programs, then connect again") from error
        return waker, thread

    def _wake(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:
            # So many wakes wait that one more changes nothing, or the thread has ended.
            return

    def _run(self, woken: socket.socket) -> None:
        # One of our own: another extension's ZeroMQ must not wait for us when Blender ends.
        context = self._zmq.Context()
        link: Link | None = None
        conversation = Conversation(self._credentials.address, self._credentials.secret, self._quiet, self._events.put, self._prefix)
        try:
            link = Link(context, self._credentials, self._quiet)
            while conversation.loss is None and not self._is_closing:
                self._turn(link, conversation)
                if conversation.loss is None:
                    self._wait(link, woken, conversation.seconds_to_tick)
            self._say_goodbye(link, conversation)
        except AddonError as error:
            conversation.lose(Lost(error.problem, error.remedy, error.code))
        except Exception as error:
            conversation.lose(Lost(f"the connection failed: {type(error).__name__}: {error}", "connect again, and report this", "internal"))
            raise
        finally:
            self._finish(conversation.loss)
            if link is not None:
                link.close(_LINGER_MILLISECONDS)
            context.term()
            with self._lock:
                self._waker.close()
            woken.close()

    def _turn(self, link: Link, conversation: Conversation) -> None:
        """All that can be done without waiting; incoming first, so that a late look is no silence."""
        loss = link.look()
        for frames in link.receive(is_last=loss is not None):
            conversation.receive(frames)
        if loss is not None:
            conversation.lose(loss)
            return
        while self._inbox:
            conversation.submit(*self._inbox.popleft())
        conversation.tick()
        self._send_all(link, conversation)

    def _send_all(self, link: Link, conversation: Conversation) -> None:
        for frames in conversation.take_outgoing():
            loss = link.send(frames)
            if loss is not None:
                conversation.lose(loss)
                return

    def _wait(self, link: Link, woken: socket.socket, seconds: float) -> None:
        poller = self._zmq.Poller()
        for end in (woken, *link.sockets):
            poller.register(end, self._zmq.POLLIN)
        poller.poll(math.ceil(1000 * seconds))
        try:
            while woken.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _say_goodbye(self, link: Link, conversation: Conversation) -> None:
        """Sends what was asked for before the end, and cancels the photos under way."""
        if conversation.loss is None:
            while self._inbox:
                conversation.submit(*self._inbox.popleft())
            conversation.give_up(self._prefix)
            self._send_all(link, conversation)

    def _finish(self, loss: Lost | None) -> None:
        """From now on there is nobody to send for us; requests that came too late are lost with the others."""
        with self._lock:
            self._end = self._end or loss or _CLOSED
            self._inbox.clear()
