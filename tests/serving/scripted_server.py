"""A server whose answers a test writes: a real ROUTER under CURVE in a thread, for what no proper server would do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from focus_backend.serving import wire
from focus_backend.serving.config import LimitsConfig
from focus_backend.serving.credentials import Credentials

MODEL = wire.ModelInfo("quick", "0" * 64, 4, ["jawOpen"])


def welcome(**limits: Any) -> wire.Welcome:
    """Of a server with these limits."""
    published = LimitsConfig(**limits).published()
    return wire.Welcome("scripted 1", [wire.PROTOCOL], published, [MODEL], ["fit"], ["geometry"], "cpu", 1, 1, True)


def result(text: str = "") -> wire.Result:
    """With one face, which says `text`."""
    return wire.Result([wire.Face(0, [text] if text else [], {})], MODEL, ["geometry"], 0.5)


def packed(message: wire.Message, body: Any, arrays: dict[str, wire.Array] | None = None) -> list[bytes | memoryview]:
    """An answer to a message."""
    return wire.pack(wire.Message(message.id, body, arrays or {}))


Answer = Callable[["ScriptedServer", bytes, wire.Message], None]


class ScriptedServer:
    """Greets and answers pings; everything else goes to `answer`, which sends what it likes.

    Args:
        answer: called in the server's thread.
        greeting: None for no answer to a hello.
        pongs: whether pings are answered.
    """

    def __init__(self, answer: Answer | None = None, *, greeting: wire.Welcome | wire.Error | None = None, pongs: bool = True) -> None:
        self.greeting: wire.Welcome | wire.Error | None = greeting or welcome()
        self.pongs = pongs
        self.heard: list[wire.Message] = []
        self._answer = answer
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self.public_key, secret_key = zmq.curve_keypair()
        self._socket.curve_server = True
        self._socket.curve_secretkey = secret_key
        self.address = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def credentials(self) -> Credentials:
        """For its owner."""
        return Credentials(self.address, self.public_key.decode(), secret="ab" * 32)

    def heard_of(self, kind: type) -> list[wire.Message]:
        """The messages of one kind so far."""
        return [message for message in self.heard if isinstance(message.body, kind)]

    def send(self, identity: bytes, frames: Sequence[bytes | memoryview]) -> None:
        """Any bytes; from `answer` only."""
        self._socket.send_multipart([identity, *frames])

    def close(self) -> None:
        """Goes away at once."""
        self._is_stopped.set()
        self._thread.join()
        self._socket.close(0)
        self._context.term()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            if not self._socket.poll(20):
                continue
            identity, *frames = self._socket.recv_multipart()
            message = wire.unpack(frames, wire.REQUESTS)
            self.heard.append(message)
            if isinstance(message.body, wire.Hello):
                if self.greeting is not None:
                    self.send(identity, packed(message, self.greeting))
            elif isinstance(message.body, wire.Ping):
                if self.pongs:
                    self.send(identity, packed(message, wire.Pong()))
            elif self._answer is not None:
                self._answer(self, identity, message)
