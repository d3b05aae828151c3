"""What the broker wants done: messages to clients and workers, workers to be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from focus_backend.serving.wire import Message, pack


@dataclass(frozen=True)
class Route:
    """The way back to a client.

    Attributes:
        endpoint: "owner" or "remote".
        identity: of the connection, as the socket names it.
        user: "owner", or the name of the client's key.
        number: index of the server's socket that the client came through.
    """

    endpoint: str
    identity: bytes
    user: str
    number: int


@dataclass(frozen=True)
class ToClient:
    """A message to a client.

    Attributes:
        route: to whom.
        frames: of the message.
        is_final: may not be dropped when the client reads slowly; others may.
        message_id: whose final answer it is.
    """

    route: Route
    frames: list[Any]
    is_final: bool
    message_id: str = ""


@dataclass(frozen=True)
class ToWorker:
    """A message to a worker."""

    worker: int
    frames: list[Any]


@dataclass(frozen=True)
class ReplaceWorker:
    """The worker's process is to be killed; its death is then told to the broker like any other."""

    worker: int
    reason: str


Action = ToClient | ToWorker | ReplaceWorker


class Outbox:
    """Collects actions in the order in which they are to be carried out."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """All that was collected since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def answer(self, route: Route, message_id: str, body: Any, *, is_final: bool = True) -> None:
        """Sends a message of ours."""
        self.forward(route, message_id, pack(Message(message_id, body)), is_final=is_final)

    def forward(self, route: Route, message_id: str, frames: Sequence[Any], *, is_final: bool) -> None:
        """Sends a worker's message as it is."""
        self._actions.append(ToClient(route, list(frames), is_final, message_id))

    def tell(self, worker: int, *frames: Any) -> None:
        """Sends a message to a worker."""
        self._actions.append(ToWorker(worker, list(frames)))

    def replace(self, worker: int, reason: str) -> None:
        """Has a worker killed."""
        self._actions.append(ReplaceWorker(worker, reason))
