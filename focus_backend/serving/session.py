"""What a client knows about its connection: what to send, what came of each request, whether the server still lives.

No sockets, no threads and no clock of its own: frames go in, frames and events come out.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from focus_backend import errors
from focus_backend.errors import (
    CancelledError,
    ConfigError,
    ConnectionLostError,
    DeadlineError,
    FocusError,
    PhotoError,
    ProtocolError,
    ServerError,
)
from focus_backend.serving import wire

Frames = list[bytes | memoryview]
# While something is under way, the server is asked so often whether it lives.
PING_SECONDS = 2.0
# What a server calls a request whose id it could not read.
_NO_ID = "unknown"
_FINAL = {
    wire.Hello: wire.Welcome,
    wire.Reconstruct: wire.Result,
    wire.Status: wire.StatusReport,
    wire.Shutdown: wire.Done,
    wire.Cancel: wire.Done,
    wire.Ping: wire.Pong,
}


@dataclass(frozen=True)
class Update:
    """How far a request is; `fraction` from 0 to 1."""

    id: str
    stage: str
    fraction: float
    preview: wire.Array | None = None


@dataclass(frozen=True)
class Finished:
    """A request ended, with the answer or an error."""

    id: str
    outcome: wire.Message | FocusError


@dataclass
class _Pending:
    body: Any
    # None once they were sent.
    arrays: Mapping[str, wire.Array] | None
    # By the session's clock; None until it was sent.
    expires: float | None = None
    shown: tuple[str, float] | None = None


def new_id() -> str:
    """An id that no request had before."""
    return secrets.token_hex(16)


def one_line(text: str) -> str:
    """A server's text, fit for a terminal: one line, no control characters, no halves of surrogates."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def error_of(answer: wire.Error) -> FocusError:
    """The error of ours that carries the answer's code; for a code that is not known a `ServerError` with that code."""
    problem, remedy = one_line(answer.problem), one_line(answer.remedy)
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, FocusError) and vars(kind).get("code") == answer.code:
            return kind(problem, remedy)
    error = ServerError(problem, remedy)
    error.code = one_line(answer.code)
    return error


def renewed(error: FocusError) -> FocusError:
    """The same error as an object of its own: several threads raise it, and each raise writes into it."""
    return type(error)(error.problem, error.remedy)


class Session:
    """One connection to a server, from the greeting to its loss.

    Requests wait until the server's `Welcome` has told its limits; one beyond them ends without being sent.

    Args:
        address: for messages.
        secret: from the ready file; "" over CURVE with a client's own key.
        timeout: seconds without a sign of the server, while one is due, after which it counts as lost.
        clock: seconds, never going back.
    """

    def __init__(self, address: str, secret: str = "", timeout: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self.welcome: wire.Welcome | None = None
        # Why the connection is of no use any more; every request has ended with it.
        self.failure: FocusError | None = None
        self._secret = secret
        self._timeout = timeout
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._outgoing: list[Frames] = []
        self._events: list[Update | Finished] = []
        self._ping = ""
        self._hello = new_id()
        self._heard = self._ticked = self._pinged = clock()
        self._send(self._hello, wire.Hello())

    @property
    def is_waiting(self) -> bool:
        """Whether the server owes an answer."""
        return self.failure is None and (self.welcome is None or bool(self._pending))

    def submit(self, request_id: str, body: Any, arrays: Mapping[str, wire.Array] | None = None) -> None:
        """Sends a request as soon as the server's limits are known; its end comes as an event, whatever happens."""
        if self.failure is not None:
            self._finish(request_id, renewed(self.failure))
            return
        if not self.is_waiting:
            self._heard = self._ticked = self._pinged = self._clock()
        self._pending[request_id] = _Pending(body, arrays or {})
        if self.welcome is not None:
            self._send_checked(request_id, self.welcome.limits)

    def cancel(self, request_id: str) -> None:
        """Gives a request up: it ends at once with `CancelledError`, and the server is told."""
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return
        if pending.arrays is None and isinstance(pending.body, wire.Reconstruct):
            self._send(new_id(), wire.Cancel(request_id))
        self._finish(request_id, CancelledError("the request was cancelled"))

    def receive(self, frames: Sequence[bytes | memoryview]) -> None:
        """Takes one message of the server, whatever its bytes."""
        if self.failure is not None:
            return
        self._heard = self._clock()
        try:
            message = wire.unpack(frames, wire.ANSWERS, wire.ANSWER_LIMITS)
        except wire.WireError as error:
            self._unreadable(error)
            return
        if message.id == self._hello:
            self._greeted(message)
        elif message.id == self._ping:
            self._ping = ""
        elif message.id == _NO_ID and isinstance(message.body, wire.Error):
            # It is about one of ours, but nobody can say which: better all end than one waits for ever.
            self.fail(error_of(message.body))
        elif message.id in self._pending:
            self._answered(message)

    def tick(self) -> None:
        """Sends what is due by the clock and notices what came too late; call it after `receive`, every `seconds_to_tick`."""
        now = self._clock()
        self._forgive(now - self._ticked)
        self._ticked = now
        if not self.is_waiting:
            return
        if now - self._heard > self._timeout:
            self.fail(self._silence())
            return
        self._end_expired(now)
        if self.welcome is not None and not self._ping and now - self._pinged >= PING_SECONDS:
            self._ping = new_id()
            self._pinged = now
            self._send(self._ping, wire.Ping())

    def seconds_to_tick(self) -> float | None:
        """How long `tick` may wait; None while nothing is under way."""
        return min(1.0, self._timeout / 4) if self.is_waiting else None

    def fail(self, error: FocusError) -> None:
        """Ends everything under way: the connection is of no use any more."""
        if self.failure is not None:
            return
        self.failure = error
        for request_id in self._pending:
            self._finish(request_id, renewed(error))
        self._pending.clear()

    def take_outgoing(self) -> list[Frames]:
        """The messages to send, oldest first, each once."""
        taken, self._outgoing = self._outgoing, []
        return taken

    def take_events(self) -> list[Update | Finished]:
        """What happened, oldest first, each once."""
        taken, self._events = self._events, []
        return taken

    def _send(self, request_id: str, body: Any) -> None:
        self._outgoing.append(wire.pack(wire.Message(request_id, body, {}, self._secret)))

    def _send_checked(self, request_id: str, limits: wire.Limits) -> None:
        pending = self._pending[request_id]
        body, arrays = pending.body, pending.arrays or {}
        try:
            if isinstance(body, wire.Reconstruct):
                check_request(body, arrays, limits)
                body = dataclasses.replace(body, preview_side=min(body.preview_side, limits.preview_side))
            frames = wire.pack(wire.Message(request_id, body, arrays, self._secret))
            check_sizes(frames, limits)
            expires = self._clock() + self._timeout + _answer_seconds(body, limits)
        except Exception as error:  # a caller's wrong types may raise anything, and must not cost the other requests
            del self._pending[request_id]
            shown = error if isinstance(error, FocusError) else ProtocolError(f"the request cannot be sent: {error}", "check its options")
            self._finish(request_id, shown)
            return
        pending.arrays = None
        pending.expires = expires
        self._outgoing.append(frames)

    def _greeted(self, message: wire.Message) -> None:
        if isinstance(message.body, wire.Error):
            self.fail(error_of(message.body))
        elif isinstance(message.body, wire.Welcome) and self.welcome is None:
            self.welcome = message.body
            for request_id in list(self._pending):
                self._send_checked(request_id, self.welcome.limits)

    def _unreadable(self, error: wire.WireError) -> None:
        if error.code == "version":
            self.fail(ProtocolError(f"the server at {self.address} speaks another version: {error.problem}", error.remedy))
            return
        shown = ProtocolError(
            f"the server at {self.address} sent an answer that cannot be read: {error.problem}", "update it or this client"
        )
        if error.message_id in self._pending:
            del self._pending[error.message_id]
            self._finish(error.message_id, shown)
        elif error.message_id in ("", self._hello):
            self.fail(shown)

    def _answered(self, message: wire.Message) -> None:
        pending, body = self._pending[message.id], message.body
        if isinstance(body, (wire.Accepted, wire.Progress)) and not isinstance(pending.body, wire.Reconstruct):
            return
        if isinstance(body, wire.Accepted):
            if pending.shown is None or pending.shown[0].startswith("waiting"):
                self._update(message.id, f"waiting, {body.ahead} ahead" if body.ahead else "waiting", 0.0, None)
            return
        if isinstance(body, wire.Progress):
            self._update(message.id, body.stage, body.fraction, message.arrays.get("preview"))
            return
        del self._pending[message.id]
        if isinstance(body, wire.Error):
            self._finish(message.id, error_of(body))
        elif isinstance(body, _FINAL[type(pending.body)]):
            self._finish(message.id, message)
        else:
            problem = f"the server answered a {pending.body.kind} with a {body.kind}"
            self._finish(message.id, ProtocolError(problem, "update it or this client"))

    def _update(self, request_id: str, stage: str, fraction: float, preview: wire.Array | None) -> None:
        pending = self._pending[request_id]
        # The server repeats itself to show that it lives; users need not see it.
        if pending.shown == (stage, fraction) and preview is None:
            return
        pending.shown = (stage, fraction)
        self._events.append(Update(request_id, stage, fraction, preview))

    def _finish(self, request_id: str, outcome: wire.Message | FocusError) -> None:
        self._events.append(Finished(request_id, outcome))

    def _forgive(self, seconds: float) -> None:
        """After a sleep of the machine the silence was ours: the server gets its time again."""
        if seconds <= 2 * PING_SECONDS + self._timeout / 4:
            return
        # What came at waking was heard now, and nothing is heard later than that.
        self._heard = min(self._clock(), self._heard + seconds)
        for pending in self._pending.values():
            if pending.expires is not None:
                pending.expires += seconds

    def _end_expired(self, now: float) -> None:
        late = [request_id for request_id, pending in self._pending.items() if pending.expires is not None and now > pending.expires]
        for request_id in late:
            is_work = isinstance(self._pending[request_id].body, wire.Reconstruct)
            self.cancel(request_id)
            self._events.pop()
            problem = f"the server at {self.address} did not answer in time"
            self._finish(request_id, DeadlineError(problem, "give it longer") if is_work else ServerError(problem, "look at its log"))

    def _silence(self) -> FocusError:
        if self.welcome is None:
            return ConnectionLostError(f"no server answers at {self.address}", "check the address and that the server runs")
        problem = f"the server at {self.address} has not answered for {self._timeout:g} s"
        return ConnectionLostError(problem, "look at its log, or allow a longer timeout on a slow line")


def _answer_seconds(body: Any, limits: wire.Limits) -> float:
    """How long the server itself may take for an answer."""
    if isinstance(body, wire.Reconstruct):
        return min(limits.deadline_seconds, body.deadline_seconds or limits.deadline_seconds)
    return 0.0


def check_request(request: wire.Reconstruct, arrays: Mapping[str, wire.Array], limits: wire.Limits) -> None:
    """Whether the server will take a request, as far as can be told without decoding the photo.

    Raises:
        PhotoError: the photo is larger than the server admits.
        ConfigError: an option is beyond them.
    """
    for array in arrays.values():
        size = memoryview(array.data).nbytes
        if size > limits.frame_bytes:
            raise PhotoError(
                f"{request.name} has {_megabytes(size)}, more than the {_megabytes(limits.frame_bytes)} this server admits",
                "save it as JPEG or scale it down",
            )
    if "pixels" in arrays and len(arrays["pixels"].shape) == 3:
        _check_pixels(request.name, *arrays["pixels"].shape[:2], limits)
    texture_size = request.options.texture_size
    if texture_size is not None and texture_size > limits.texture_size:
        problem = f"a texture of {texture_size} pixels a side is larger than the {limits.texture_size} this server admits"
        raise ConfigError(problem, "ask for a smaller one")


def check_sizes(frames: Sequence[bytes | memoryview], limits: wire.Limits) -> None:
    """Whether the bytes of a request are within the server's limits.

    Raises:
        ProtocolError: they are not.
    """
    header, total = memoryview(frames[0]).nbytes, sum(memoryview(frame).nbytes for frame in frames)
    if header > limits.header_bytes:
        problem = f"the request's options have {header} bytes, more than the {limits.header_bytes} this server admits"
        raise ProtocolError(problem, "give fewer landmarks or a shorter name")
    if total > limits.total_bytes or len(frames) > limits.frames:
        problem = f"the request has {_megabytes(total)} in {len(frames)} frames, more than this server admits"
        raise ProtocolError(problem, "save the photo as JPEG or scale it down")


def _check_pixels(name: str, height: int, width: int, limits: wire.Limits) -> None:
    if max(height, width) > limits.side:
        raise PhotoError(
            f"{name} is {width} x {height} pixels, longer than the {limits.side} this server admits", "scale it down or cut the face out"
        )
    if height * width > limits.pixels:
        problem = f"{name} is {width} x {height} pixels, more than the {limits.pixels / 1e6:g} megapixels this server admits"
        raise PhotoError(problem, "scale it down or cut the face out")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.3g} MB" if size < 1000 * 2**20 else f"{size / 2**30:.3g} GB"
