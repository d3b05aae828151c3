"""A broker with clients and workers around it that tests move by hand, message by message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from focus_backend.serving import wire
from focus_backend.serving.broker import Broker, ReplaceWorker, Route, ToClient, ToWorker
from focus_backend.serving.config import LimitsConfig, ServerConfig

SECRET = "5ec7e7"
MODEL = wire.ModelInfo("small", "0" * 64, 4, ["jawOpen"])
INFO = {"models": [MODEL.__dict__], "methods": ["fit", "network"], "parts": ["geometry", "texture", "masks"], "device": "cpu"}
PHOTO = {"photo": wire.Array.of(b"a photo")}


def owner(name: str = "a") -> Route:
    """A connection of the owner's."""
    return Route("owner", name.encode(), "owner", 0)


def remote(key: str, connection: str = "a") -> Route:
    """A connection with a key."""
    return Route("remote", connection.encode(), key, 1)


@dataclass
class Order:
    """What a worker was given: the client's message by job number."""

    messages: dict[int, wire.Message] = field(default_factory=dict)
    taken: list[list[int]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)


class Desk:
    """The broker, its clock, and what it sent."""

    def __init__(self, *, batch: int = 1, workers: int = 1, work_seconds: float = 300.0, **limits: Any) -> None:
        self.now = 1000.0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.revoked: set[str] = set()
        self.answers: list[tuple[Route, wire.Message, bool]] = []
        self.workers: dict[int, Order] = {}
        self.to_replace: list[int] = []
        self.broker = Broker(
            ServerConfig(limits=LimitsConfig(**limits), work_seconds=work_seconds),
            secret=SECRET,
            batch=batch,
            software="test 1",
            clock=lambda: self.now,
            log=lambda event, **fields: self.events.append((event, fields)),
            is_allowed=lambda name: name not in self.revoked,
        )
        for number in range(workers):
            self.start(number)
            self.ready(number)

    def collect(self) -> None:
        """Sorts what the broker wants done."""
        for action in self.broker.take_out():
            if isinstance(action, ToClient):
                message = wire.unpack(action.frames, wire.ANSWERS, wire.ANSWER_LIMITS)
                self.answers.append((action.route, message, action.is_final))
            elif isinstance(action, ReplaceWorker):
                self.to_replace.append(action.worker)
            else:
                self._collect_order(action)

    def _collect_order(self, action: ToWorker) -> None:
        order = self.workers[action.worker]
        verb, rest = bytes(action.frames[0]), action.frames[1:]
        if verb == b"run":
            order.messages[int(rest[0])] = wire.unpack(rest[1:], wire.REQUESTS)
        elif verb == b"take":
            order.taken.append([int(number) for number in rest[0].split()])
        else:
            assert verb == b"cancel"
            order.cancelled.append(int(rest[0]))

    def send(self, route: Route, message_id: str, body: Any, arrays: dict[str, wire.Array] | None = None, secret: str = SECRET) -> None:
        """A client's message."""
        secret = secret if route.endpoint == "owner" else ""
        self.broker.client_message(route, wire.pack(wire.Message(message_id, body, arrays or {}, secret)))
        self.collect()

    def ask(self, route: Route, message_id: str, arrays: dict[str, wire.Array] | None = None, **fields: Any) -> None:
        """A request."""
        self.send(route, message_id, wire.Reconstruct(**fields), PHOTO if arrays is None else arrays)

    def start(self, number: int) -> None:
        """A worker's process was started."""
        self.workers[number] = Order()
        self.broker.worker_started(number, 100 + number)
        self.collect()

    def ready(self, number: int) -> None:
        """A worker has loaded everything."""
        self.tell(number, b"ready", json.dumps(INFO).encode())

    def tell(self, number: int, *frames: Any) -> None:
        """A worker's message."""
        self.broker.worker_message(number, list(frames))
        self.collect()

    def lose(self, number: int) -> None:
        """A worker's process has died."""
        self.broker.worker_lost(number, "killed")
        self.collect()

    def progress(self, number: int, job: int, fraction: float, stage: str = "fit") -> None:
        """A worker reports how far it is."""
        message_id = self.workers[number].messages[job].id
        self.tell(number, b"progress", b"%d" % job, *wire.pack(wire.Message(message_id, wire.Progress(stage, fraction))))

    def finish(self, number: int, job: int, body: Any = None) -> None:
        """A worker ends a job, with a result by default."""
        body = body or wire.Result([wire.Face(0, [], {})], MODEL, ["geometry"], 1.5)
        verb = b"error" if isinstance(body, wire.Error) else b"result"
        message_id = self.workers[number].messages[job].id
        self.tell(number, verb, b"%d" % job, *wire.pack(wire.Message(message_id, body)))

    def wait(self, seconds: float, step: float = 1.0, *, beats: Sequence[int] = ()) -> None:
        """Time goes by, tick by tick; workers in `beats` tell that they live."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for number in beats:
                self.tell(number, b"beat", b'{"memory_bytes": 1000}')
            self.broker.tick()
            self.collect()

    def of(self, route: Route, message_id: str) -> list[Any]:
        """What was answered to a message."""
        return [message.body for to, message, _ in self.answers if to == route and message.id == message_id]

    def last(self, route: Route, message_id: str) -> Any:
        """The last answer to a message."""
        return self.of(route, message_id)[-1]

    def code(self, route: Route, message_id: str) -> str:
        """The code of the one error that answered a message."""
        (code,) = [body.code for body in self.of(route, message_id) if isinstance(body, wire.Error)]
        return code

    def job(self, number: int = 0) -> int:
        """The job that a worker was given last."""
        return self.workers[number].taken[-1][-1]

    def ids_taken(self, number: int = 0) -> list[list[str]]:
        """Ids of the clients, batch by batch, as a worker was told to work on them."""
        order = self.workers[number]
        return [[order.messages[job].id for job in batch] for batch in order.taken]
