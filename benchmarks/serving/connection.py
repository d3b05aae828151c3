"""The protocol spoken by hand: a connection that sees every answer, sends what no client would, and reads only when told."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from focus_backend.serving.credentials import Credentials
from focus_backend.serving.session import Session
from focus_backend.serving.wire import ANSWER_LIMITS, ANSWERS, Accepted, Array, Message, Progress, pack, unpack

# Answers after which nothing more may follow for their id.
NOT_FINAL = (Accepted, Progress)


class NoAnswerError(Exception):
    """Nothing came in time."""


@dataclass
class Connection:
    """One DEALER socket.

    Args:
        credentials: whose server, and as whom.
        receive_limit: messages kept unread before the server has to keep or drop them; 0 for the library's own.

    Attributes:
        finals: final answers received, by id; more than one for an id is an error of the server.
    """

    credentials: Credentials
    receive_limit: int = 0
    finals: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        public, secret = self.credentials.public_key.encode(), self.credentials.secret_key.encode()
        self._socket.curve_publickey, self._socket.curve_secretkey = (public, secret) if public else zmq.curve_keypair()
        self._socket.curve_serverkey = self.credentials.server_key.encode()
        if self.receive_limit:
            self._socket.rcvhwm = self.receive_limit
            self._socket.rcvbuf = 4096
        self._socket.connect(self.credentials.address)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is unsent."""
        self._context.destroy(linger=0)

    def send(self, body: Any, arrays: Mapping[str, Array] | None = None, message_id: str = "", secret: str | None = None) -> str:
        """Send a request; its id."""
        message_id = message_id or os.urandom(8).hex()
        secret = self.credentials.secret if secret is None else secret
        self.send_frames(pack(Message(message_id, body, arrays or {}, secret)))
        return message_id

    def send_frames(self, frames: Sequence[bytes | memoryview], seconds: float = 5.0) -> bool:
        """Send any frames at all; whether the socket took them in time."""
        if not self._socket.poll(int(1000 * seconds), zmq.POLLOUT):
            return False
        self._socket.send_multipart(list(frames))
        return True

    def receive(self, seconds: float) -> Message:
        """The next answer, of whatever id.

        Raises:
            NoAnswerError: none came.
        """
        if not self._socket.poll(max(0, int(1000 * seconds)), zmq.POLLIN):
            raise NoAnswerError(f"nothing came within {seconds:.0f} s")
        message = unpack(self._socket.recv_multipart(), ANSWERS, ANSWER_LIMITS)
        if not isinstance(message.body, NOT_FINAL):
            self.finals[message.id] += 1
        return message

    def final(self, message_id: str, seconds: float) -> Message:
        """The final answer of a request; others that come meanwhile are counted and left.

        Raises:
            NoAnswerError: none came.
        """
        until = time.monotonic() + seconds
        while True:
            message = self.receive(until - time.monotonic())
            if message.id == message_id and not isinstance(message.body, NOT_FINAL):
                return message

    def ask(self, body: Any, arrays: Mapping[str, Array] | None = None, *, seconds: float = 10.0, **sending: Any) -> Any:
        """Send a request and wait for the body of its final answer.

        Raises:
            NoAnswerError: none came.
        """
        return self.final(self.send(body, arrays, **sending), seconds).body


def describe_answer(body: Any) -> str:
    """An answer in a few words."""
    if hasattr(body, "code"):
        return f"error {body.code}: {body.problem}"
    return str(body.kind)


def count_final_answers(finals: Counter[str]) -> None:
    """From now on count the results and errors that the clients of this process receive, by id.

    Clients themselves pass over an answer to what was answered already; here it is to be seen.
    """
    receive = Session.receive

    def count_and_receive(self: Session, frames: Sequence[bytes | memoryview]) -> None:
        header = json.loads(bytes(frames[0]))
        if header["type"] in ("result", "error"):
            finals[header["id"]] += 1
        receive(self, frames)

    Session.receive = count_and_receive  # type: ignore[method-assign]
