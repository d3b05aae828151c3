# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted ZeroMQ socket to a backend, and what its monitor tells of the connection."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from .. import wire
from ..errors import AddonError
from .credentials import Credentials, is_loopback
from .events import Lost
from .zeromq import zeromq

# As docs/protocol.md asks for.
_HEARTBEAT_MILLISECONDS, _HEARTBEAT_TIMEOUT_MILLISECONDS = 3000, 60000
_RECONNECT_MILLISECONDS = 100
# On this machine a port that refuses so often (some 2 s) has nobody listening.
_MOST_RETRIES = 15
# One broken handshake may be a backend that ends; so many mean that the keys do not fit.
_MOST_FAILED_HANDSHAKES = 3
# So that a flood of messages cannot keep the thread from its other duties.
_MOST_MESSAGES = 64


class Link:
    """A DEALER under CURVE; belongs to one thread.

    Args:
        context: ZeroMQ's, of that thread.
        credentials: of the backend and for it.
        quiet_seconds: for the handshake.

    Raises:
        AddonError: the keys are none, or the address cannot be used.
    """

    def __init__(self, context: Any, credentials: Credentials, quiet_seconds: float) -> None:
        self._zmq = zeromq()
        self._address = credentials.address
        self._is_loopback = is_loopback(credentials.address)
        self._is_established = False
        self._retries = self._failed_handshakes = 0
        self._socket = context.socket(self._zmq.DEALER)
        self._monitor: Any = None
        try:
            self._configure(quiet_seconds)
            self._set_keys(credentials)
            self._monitor = self._socket.get_monitor_socket()
            self._connect()
        except BaseException:
            self.close(0)
            raise

    @property
    def sockets(self) -> list[Any]:
        """Readable when `look` or `receive` has something to tell."""
        return [self._socket, self._monitor]

    def look(self) -> Lost | None:
        """Why the connection is of no use any more, as soon as that is known."""
        loss: Lost | None = None
        while self._monitor.poll(0):
            event, _ = struct.unpack("=Hi", self._monitor.recv_multipart()[0][:6])
            loss = loss or self._judge(event)
        if loss is None and not self._is_established and not self._socket.getsockopt(self._zmq.EVENTS) & self._zmq.POLLOUT:
            # What answered there does not speak ZeroMQ, which therefore has given the address up, and tells nobody.
            return self._is_no_backend()
        return loss

    def receive(self, *, is_last: bool = False) -> Iterator[list[memoryview]]:
        """Messages that have come, as views of ZeroMQ's memory; some of them, or with `is_last` all."""
        for _ in itertools.count() if is_last else range(_MOST_MESSAGES):
            try:
                frames = self._socket.recv_multipart(self._zmq.NOBLOCK, copy=False)
            except self._zmq.Again:
                return
            yield [memoryview(frame) for frame in frames]

    def send(self, frames: Sequence[Any]) -> Lost | None:
        """Hands a message to ZeroMQ, which keeps it until the connection is up; or tells why none can be sent any more."""
        try:
            self._socket.send_multipart(frames, self._zmq.NOBLOCK)
        except self._zmq.Again:
            # ZeroMQ has given the connection up; the monitor may know why.
            return self.look() or self._went_away()
        return None

    def close(self, linger_milliseconds: int) -> None:
        """Ends the connection; what waits may take so long to leave, if somebody takes it."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        self._socket.close(linger_milliseconds if self._is_established else 0)

    def _configure(self, quiet_seconds: float) -> None:
        options = {
            "LINGER": 0,
            "SNDHWM": 0,
            "MAXMSGSIZE": wire.ANSWER_LIMITS.frame_bytes,
            "RECONNECT_IVL": _RECONNECT_MILLISECONDS,
            "HANDSHAKE_IVL": min(max(1, round(1000 * quiet_seconds)), 2**31 - 1),
            "HEARTBEAT_IVL": _HEARTBEAT_MILLISECONDS,
            "HEARTBEAT_TIMEOUT": _HEARTBEAT_TIMEOUT_MILLISECONDS,
            # Off where the address does not ask for it: a name could lead to an IPv6 address at which no backend listens.
            "IPV6": int("[" in self._address),
        }
        for name, value in options.items():
            self._socket.setsockopt(getattr(self._zmq, name), value)

    def _set_keys(self, credentials: Credentials) -> None:
        try:
            pair = (credentials.public_key.encode("ascii"), credentials.secret_key.encode("ascii"))
            self._socket.curve_publickey, self._socket.curve_secretkey = pair if all(pair) else self._zmq.curve_keypair()
            self._socket.curve_serverkey = credentials.server_key.encode("ascii")
        except (self._zmq.ZMQError, ValueError):
            raise AddonError("the keys of the backend are none", "ask its owner for another key file", "refused") from None

    def _connect(self) -> None:
        try:
            self._socket.connect(self._address)
        except (self._zmq.ZMQError, OverflowError, UnicodeError):
            raise AddonError(f"{self._address!r} is no address of a backend", "give tcp://HOST:PORT", "config") from None

    def _judge(self, event: int) -> Lost | None:
        kinds = self._zmq.Event
        if event == kinds.HANDSHAKE_SUCCEEDED:
            self._is_established = True
        elif event == kinds.HANDSHAKE_FAILED_AUTH:
            problem = f"the backend at {self._address} does not let this key in: it is wrong or revoked"
            return Lost(problem, "ask its owner for another, made with `focus-backend keys new`", "refused")
        elif event == kinds.DISCONNECTED and self._is_established:
            self._is_established = False
            return self._went_away()
        elif event in (kinds.HANDSHAKE_FAILED_NO_DETAIL, kinds.HANDSHAKE_FAILED_PROTOCOL):
            self._failed_handshakes += 1
            if self._failed_handshakes >= _MOST_FAILED_HANDSHAKES:
                return self._is_no_backend()
        elif event == kinds.CONNECTED:
            self._retries = 0
        elif event == kinds.CONNECT_RETRIED and self._is_loopback:
            self._retries += 1
            if self._retries >= _MOST_RETRIES:
                return Lost(f"nobody listens at {self._address}", "start the backend, or check its address")
        return None

    def _is_no_backend(self) -> Lost:
        problem = f"the backend at {self._address} has another key than expected, or is no FOCUS backend"
        return Lost(problem, "check the address and the key file", "refused")

    def _went_away(self) -> Lost:
        return Lost(f"the backend at {self._address} went away", "start it again, or look at its log")
