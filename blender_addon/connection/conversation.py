# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is under way between us and a backend, and whether it still lives. No socket, no thread, no clock of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import wire
from .events import Event, Lost

Frames = list[Any]
_PING_SECONDS = 2.0
# What a backend calls a request whose id it could not read.
_NO_ID = "unknown"
_FINAL = {
    wire.Hello: wire.Welcome,
    wire.Reconstruct: wire.Result,
    wire.Cancel: wire.Done,
    wire.Ping: wire.Pong,
    wire.Status: wire.StatusReport,
    wire.Shutdown: wire.Done,
}


class Conversation:
    """Frames and requests go in, frames and events come out.

    Args:
        address: of the backend, for messages to the user.
        secret: for every request; may be "".
        quiet_seconds: without a sign of the backend before it counts as lost.
        deliver: takes each event.
        prefix: of our own requests' ids.
        clock: seconds.
    """

    def __init__(
        self,
        address: str,
        secret: str,
        quiet_seconds: float,
        deliver: Callable[[Event], None],
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loss: Lost | None = None
        self._address = address
        self._secret = secret
        self._quiet = quiet_seconds
        self._deliver = deliver
        self._ids = (f"{prefix}-ping-{number}" for number in itertools.count(1))
        self._clock = clock
        self._pending: dict[str, type] = {}
        self._outgoing: list[Frames] = []
        self._limits: wire.Limits | None = None
        self._ping = ""
        self._was_heard = False
        self._heard = self._ticked = clock()
        self._pinged = float("-inf")

    @property
    def seconds_to_tick(self) -> float:
        """How long `tick` may wait."""
        return min(1.0, self._quiet / 4)

    def submit(self, message_id: str, body: Any, arrays: Mapping[str, wire.Array]) -> None:
        """Sends a request; one that cannot be sent is answered with an error."""
        try:
            frames = wire.pack(wire.Message(message_id, body, arrays, self._secret))
        except Exception as error:  # a wrong type may raise anything, and must not cost the other requests
            self._deliver(Event(message_id, wire.Error("protocol", f"the request cannot be sent: {error}", "check its options")))
            return
        refusal = self._refusal(frames)
        if refusal is not None:
            self._deliver(Event(message_id, refusal))
            return
        self._pending[message_id] = type(body)
        self._outgoing.append(frames)

    def receive(self, frames: Sequence[Any]) -> None:
        """Takes a message of the backend."""
        self._heard = self._clock()
        self._was_heard = True
        try:
            message = wire.unpack(frames, wire.ANSWERS, wire.ANSWER_LIMITS)
        except wire.WireError as error:
            self._unreadable(error)
            return
        if message.id == self._ping:
            self._ping = ""
            if isinstance(message.body, wire.Error):
                self._refused(message.body)
        elif message.id == _NO_ID and isinstance(message.body, wire.Error):
            # It is about one of ours, but nobody can say which: better all end than one waits for ever.
            self._refused(message.body)
        elif message.id in self._pending:
            self._answered(message)

    def tick(self) -> None:
        """Sends pings and notices silence; to be called after `receive`, every `seconds_to_tick`."""
        now = self._clock()
        self._forgive(now - self._ticked)
        self._ticked = now
        if now - self._heard > self._quiet:
            self.lose(self._silence())
        elif not self._ping and now - self._pinged >= min(_PING_SECONDS, self._quiet / 4):
            self._ping = next(self._ids)
            self._pinged = now
            self._outgoing.append(wire.pack(wire.Message(self._ping, wire.Ping(), {}, self._secret)))

    def lose(self, loss: Lost) -> None:
        """Ends everything under way."""
        if self.loss is None:
            self.loss = loss
            self._pending.clear()
            self._outgoing.clear()
            self._deliver(Event("", loss))

    def give_up(self, prefix: str) -> None:
        """Cancels the photos under way: the backend has others to work for."""
        photos = [message_id for message_id, kind in self._pending.items() if kind is wire.Reconstruct]
        self._pending.clear()
        for number, message_id in enumerate(photos):
            self._outgoing.append(wire.pack(wire.Message(f"{prefix}-end-{number}", wire.Cancel(message_id), {}, self._secret)))

    def take_outgoing(self) -> list[Frames]:
        """Messages to send, oldest first, each once."""
        taken, self._outgoing = self._outgoing, []
        return taken

    def _answered(self, message: wire.Message) -> None:
        kind, body = self._pending[message.id], message.body
        if isinstance(body, (wire.Accepted, wire.Progress)) and kind is wire.Reconstruct:
            self._deliver(Event(message.id, body, message.arrays))
            return
        del self._pending[message.id]
        if isinstance(body, wire.Welcome):
            self._limits = body.limits
        if not isinstance(body, (wire.Error, _FINAL[kind])):
            problem = f"the backend answered a {_kind_of(kind)} with a {body.kind}"
            body = wire.Error("protocol", problem, "update the backend or the extension")
        self._deliver(Event(message.id, body, message.arrays))

    def _refusal(self, frames: Frames) -> wire.Error | None:
        """Why the backend would hang up on this request instead of answering it."""
        limits = self._limits or wire.WireLimits()
        sizes = [memoryview(frame).nbytes for frame in frames]
        if max(sizes[1:], default=0) <= limits.frame_bytes and sum(sizes) <= limits.total_bytes and sizes[0] <= limits.header_bytes:
            return None
        problem = f"the photo has {sum(sizes) / 2**20:.3g} MB, more than the {limits.frame_bytes / 2**20:.3g} MB the backend admits"
        return wire.Error("photo", problem, "save it as JPEG or scale it down")

    def _refused(self, error: wire.Error) -> None:
        code = "refused" if error.code == "refused" else "connection"
        self.lose(Lost(f"the backend at {self._address} refused: {_one_line(error.problem)}", _one_line(error.remedy), code))

    def _unreadable(self, error: wire.WireError) -> None:
        problem = f"the backend at {self._address} sent an answer that cannot be read: {error.problem}"
        remedy = "update the backend or the extension"
        if error.code == "version":
            problem = f"the backend at {self._address} speaks another version: {error.problem}"
            self.lose(Lost(problem, "update the backend or the extension, so that both are of the same FOCUS version", "version"))
        elif error.message_id in self._pending:
            del self._pending[error.message_id]
            self._deliver(Event(error.message_id, wire.Error("protocol", problem, remedy)))
        elif error.message_id in ("", self._ping):
            self.lose(Lost(problem, remedy))

    def _forgive(self, seconds: float) -> None:
        """After a sleep of the machine, or of ours while Blender kept Python to itself, the silence was ours."""
        if seconds > 2 * _PING_SECONDS + self.seconds_to_tick:
            self._heard = min(self._clock(), self._heard + seconds)

    def _silence(self) -> Lost:
        if not self._was_heard:
            return Lost(f"no backend answers at {self._address}", "check that it runs, its address and its keys")
        return Lost(f"the backend at {self._address} has not answered for {self._quiet:g} s", "look at its log, or start it again")


def _kind_of(kind: Any) -> str:
    return str(kind.kind)


def _one_line(text: str) -> str:
    """A backend's text, fit to be shown."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))[:500]
