"""A client's encrypted ZeroMQ socket, and what its monitor tells of the connection."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import zmq

from focus_backend.errors import ConnectionLostError, FocusError, RefusedError, ServerError
from focus_backend.serving.credentials import Credentials
from focus_backend.serving.wire import ANSWER_LIMITS

_RECONNECT_MILLISECONDS = 100
_HEARTBEAT_MILLISECONDS = 3000
# A large photo on a slow line holds the heartbeats behind it back.
_LEAST_HEARTBEAT_TIMEOUT = 60000
# A server that is killed may break one handshake; one that breaks so many does not want this key.
_FAILED_HANDSHAKES = 3
# One look takes so many messages at most, so that a flood cannot keep the thread from its other duties.
_MOST_MESSAGES = 256
_LONGEST_MILLISECONDS = 2**31 - 1
_REASON_MILLISECONDS = 200


class Link:
    """A DEALER under CURVE with a monitor. Belongs to one thread.

    Args:
        context: of the thread.
        credentials: of the server and for it.
        timeout: seconds for the handshake, and as long without a heartbeat, at least 60 s, before the connection counts as broken.

    Raises:
        RefusedError: the keys are no keys.
        ServerError: the address is none.
    """

    def __init__(self, context: zmq.Context, credentials: Credentials, timeout: float) -> None:
        self.address = credentials.address
        self.is_established = False
        self._failed_handshakes = 0
        self._socket = context.socket(zmq.DEALER)
        self._monitor: zmq.Socket | None = None
        try:
            _configure(self._socket, self.address, timeout)
            _set_keys(self._socket, credentials)
            self._monitor = self._socket.get_monitor_socket()
            self._connect()
        except BaseException:
            self.close(0)
            raise

    def to_poll(self) -> list[zmq.Socket]:
        """Sockets that become readable when `look` or `receive` has something to tell."""
        return [end for end in (self._socket, self._monitor) if end is not None]

    def look(self) -> FocusError | None:
        """Why the connection is of no use any more, as soon as that is known."""
        failure: FocusError | None = None
        while self._monitor is not None and self._monitor.poll(0):
            event, _value = struct.unpack("=Hi", self._monitor.recv_multipart()[0])
            failure = failure or self._judge(event)
        return failure

    def receive(self, is_last: bool = False) -> Iterator[list[bytes | memoryview]]:
        """Messages that have come, as views of ZeroMQ's own memory; with `is_last` all of them."""
        for _ in itertools.count() if is_last else range(_MOST_MESSAGES):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield [memoryview(frame) for frame in frames]

    def send(self, frames: list[bytes | memoryview]) -> FocusError | None:
        """Sends a message, or tells why none can be sent any more; what is under way is bounded by the requests."""
        try:
            # Copied, because the owner of the memory may write into it while ZeroMQ still sends.
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            # A refused connection is never made again; the monitor is about to tell why.
            if self._monitor is not None:
                self._monitor.poll(_REASON_MILLISECONDS)
            return self.look() or _went_away(self.address)
        return None

    def close(self, linger_milliseconds: int) -> None:
        """Ends the connection; messages that wait may take so long to leave, if there is a server to take them."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        self._socket.close(linger_milliseconds if self.is_established else 0)

    def _connect(self) -> None:
        try:
            self._socket.connect(self.address)
        except (zmq.ZMQError, OverflowError, UnicodeError):
            raise ServerError(f"{self.address!r} is no address of a server", "give tcp://HOST:PORT") from None

    def _judge(self, event: int) -> FocusError | None:
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.is_established = True
        elif event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            problem = f"the server at {self.address} does not let this key in: wrong or revoked key"
            return RefusedError(problem, "ask its owner for a new one, made with `focus-backend keys new`")
        elif event == zmq.Event.DISCONNECTED and self.is_established:
            self.is_established = False
            return _went_away(self.address)
        elif event in (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            self._failed_handshakes += 1
            if self._failed_handshakes >= _FAILED_HANDSHAKES:
                problem = f"the server at {self.address} has another key than expected, or is no FOCUS server"
                return RefusedError(problem, "check the address, or ask its owner for a new key file")
        return None


def _went_away(address: str) -> ConnectionLostError:
    return ConnectionLostError(f"the server at {address} went away", "start it again, or look at its log")


def _configure(end: zmq.Socket, address: str, timeout: float) -> None:
    milliseconds = min(max(1, round(1000 * timeout)), _LONGEST_MILLISECONDS)
    end.linger = 0
    end.setsockopt(zmq.SNDHWM, 0)
    end.setsockopt(zmq.MAXMSGSIZE, ANSWER_LIMITS.frame_bytes)
    end.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
    end.setsockopt(zmq.HANDSHAKE_IVL, milliseconds)
    end.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MILLISECONDS)
    end.setsockopt(zmq.HEARTBEAT_TIMEOUT, max(milliseconds, _LEAST_HEARTBEAT_TIMEOUT))
    # Only where the address asks for it: localhost would become ::1, where no server listens.
    end.setsockopt(zmq.IPV6, int("[" in address))


def _set_keys(end: zmq.Socket, credentials: Credentials) -> None:
    try:
        public, secret = credentials.public_key.encode("ascii"), credentials.secret_key.encode("ascii")
        if not public or not secret:
            public, secret = zmq.curve_keypair()
        end.curve_publickey, end.curve_secretkey = public, secret
        end.curve_serverkey = credentials.server_key.encode("ascii")
    except (zmq.ZMQError, ValueError):
        raise RefusedError("the key file holds no valid keys", "ask the server's owner for a new one") from None
