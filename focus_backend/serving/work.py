"""What a worker's computing thread does: requests through the pipeline, and answers out of it."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from focus_backend.errors import CancelledError, FocusError, ProtocolError
from focus_backend.serving import wire
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.pipeline import Job, Pipeline, Preview

_SECONDS_BETWEEN_PROGRESS = 0.05
_SECONDS_BETWEEN_PREVIEWS = 0.25

Frames = Sequence[bytes | memoryview]
Send = Callable[[list[Any]], None]


@dataclass
class Order:
    """One request as it came from the server.

    Attributes:
        number: of the job.
        frames: the header as the server wrote it, and the client's array.
        is_cancelled: set when it was given up.
    """

    number: bytes
    frames: Frames
    is_cancelled: threading.Event = field(default_factory=threading.Event)


class RequestWatch:
    """Tells the server how far a request is, and the pipeline when it was given up.

    Args:
        order: the request.
        message: the same, unpacked.
        send: takes the frames for the server.
        largest_preview: longest side in pixels that the server admits.
    """

    def __init__(self, order: Order, message: wire.Message, send: Send, largest_preview: int) -> None:
        self._order = order
        self._message = message
        self._send = send
        self._preview_side = min(message.body.preview_side, largest_preview)
        self._stage = ""
        self._fraction = 0.0
        self._sent_at = self._preview_at = -float("inf")

    def __call__(self, stage: str, fraction: float, preview: Preview | None = None) -> None:
        """Says that the work is at `fraction` (0 to 1) of the whole, in `stage`.

        Raises:
            CancelledError: the request was given up.
        """
        if self._order.is_cancelled.is_set():
            raise _given_up()
        now = time.monotonic()
        # Also keeps what is no number out of the message.
        if fraction > self._fraction:
            self._fraction = min(float(fraction), 1.0)
        if not self._message.body.progress or (stage == self._stage and now - self._sent_at < _SECONDS_BETWEEN_PROGRESS):
            return
        arrays = {}
        if preview is not None and self._preview_side > 0 and now - self._preview_at >= _SECONDS_BETWEEN_PREVIEWS:
            arrays["preview"] = _picture(preview(), self._preview_side)
            self._preview_at = now
        self._stage, self._sent_at = stage, now
        body = wire.Progress(stage, self._fraction)
        self._send([b"progress", self._order.number, *wire.pack(wire.Message(self._message.id, body, arrays))])


def _picture(pixels: Any, side: int) -> wire.Array:
    """A uint8 array [height width 3] as it is sent, its pixels picked out where it is larger than was asked for."""
    step = -(-max(pixels.shape[:2]) // side)
    pixels = pixels[::step, ::step]
    return wire.Array("uint8", tuple(pixels.shape), pixels.tobytes())


class Batch:
    """Requests that go through the pipeline together.

    Args:
        orders: which; those that were given up or cannot be read are answered at once.
        config: of the server.
        send: takes the frames for the server.
    """

    def __init__(self, orders: Sequence[Order], config: ServerConfig, send: Send) -> None:
        self._send = send
        self._limits = config.limits
        self._orders: list[Order] = []
        self._messages: list[wire.Message] = []
        self._answered: set[int] = set()
        self.is_device_lost = False
        for order in orders:
            self._admit(order)

    def run(self, pipeline: Pipeline) -> None:
        """Answers every request of the batch, whatever the pipeline does."""
        limits = self._limits.published()
        jobs = [Job(message.body, message.arrays, limits) for message in self._messages]
        pairs = zip(self._orders, self._messages, strict=True)
        watches = [RequestWatch(order, message, self._send, limits.preview_side) for order, message in pairs]
        failure: BaseException | None = None
        try:
            if jobs:
                pipeline.run(jobs, watches, self._deliver)
        # SystemExit out of a library ends a thread without a word.
        except BaseException as error:
            failure = error
        for index in range(len(jobs)):
            if index not in self._answered:
                self._answer_failure(index, failure or RuntimeError("the pipeline gave no answer"))

    def _admit(self, order: Order) -> None:
        try:
            message = wire.unpack(order.frames, (wire.Reconstruct,), self._limits.wire())
        except wire.WireError as error:
            refusal = wire.Error("protocol", error.problem, error.remedy)
            self._send([b"error", order.number, *wire.pack(wire.Message(error.message_id or "unknown", refusal))])
            return
        self._orders.append(order)
        self._messages.append(message)

    def _deliver(self, index: int, answer: wire.Result | Exception, arrays: Mapping[str, wire.Array]) -> None:
        if index in self._answered:
            return
        if isinstance(answer, Exception) or self._orders[index].is_cancelled.is_set():
            self._answer_failure(index, answer if isinstance(answer, Exception) else _given_up())
            return
        try:
            frames = wire.pack(wire.Message(self._messages[index].id, answer, arrays))
            _check_size(frames, wire.ANSWER_LIMITS)
        except (ValueError, ProtocolError) as error:
            self._answer_failure(index, error)
            return
        self._answered.add(index)
        self._send([b"result", self._orders[index].number, *frames])

    def _answer_failure(self, index: int, failure: BaseException) -> None:
        order, message = self._orders[index], self._messages[index]
        if order.is_cancelled.is_set():
            failure = _given_up()
        self.is_device_lost |= "CUDA error" in str(failure)
        if not isinstance(failure, FocusError):
            report_failure(failure)
        self._answered.add(index)
        self._send([b"error", order.number, *wire.pack(wire.Message(message.id, error_for(failure)))])


def _given_up() -> CancelledError:
    return CancelledError("the request was cancelled")


def _check_size(frames: Frames, limits: wire.WireLimits) -> None:
    """Fails here what the client would have to refuse."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    is_small = sizes[0] <= limits.header_bytes and max(sizes) <= limits.frame_bytes and sum(sizes) <= limits.total_bytes
    if len(sizes) > limits.frames or not is_small:
        problem = f"the answer would have {len(sizes)} frames and {sum(sizes)} bytes, more than a client takes"
        raise ProtocolError(problem, "ask for fewer parts or faces, or for smaller textures")


def load(name: str, config: ServerConfig) -> Pipeline:
    """The pipeline that "module:function" loads, warmed up.

    Raises:
        FocusError: it cannot be loaded, for a reason the user can change.
    """
    module, _, function = name.partition(":")
    pipeline = getattr(importlib.import_module(module), function)(config.pipeline)
    pipeline.warm_up()
    return pipeline


def ready_frames(pipeline: Pipeline) -> list[Any]:
    """What tells the server that the worker has everything loaded."""
    return [b"ready", json.dumps(asdict(pipeline.info)).encode("ascii")]


def failed_frames(failure: BaseException) -> list[Any]:
    """What tells the server that the pipeline cannot be loaded."""
    if isinstance(failure, FocusError):
        told = {"code": failure.code, "problem": _one_line(failure.problem), "remedy": _one_line(failure.remedy)}
    else:
        report_failure(failure, text=_one_line(str(failure)))
        problem = f"the face model and the networks cannot be loaded ({type(failure).__name__})"
        told = {"code": "internal", "problem": problem, "remedy": "see the server's log"}
    return [b"failed", json.dumps(told).encode("ascii")]


def error_for(failure: BaseException) -> wire.Error:
    """What a client is told: our own errors as they are, of others neither paths nor names."""
    if isinstance(failure, FocusError):
        return wire.Error(failure.code, _one_line(failure.problem), _one_line(failure.remedy))
    # torch's own, by name, for torch may not be loaded here.
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return wire.Error("internal", "the server ran out of memory", "send a smaller photo, or ask for fewer faces")
    problem = f"the server failed on this photo ({type(failure).__name__})"
    return wire.Error("internal", problem, "report this with the lines of the server's log")


def report_failure(failure: BaseException, text: str = "") -> None:
    """Writes what failed and where to standard error, in one line. What an error says of a photo may name it, so it is left out."""
    kind = f"{type(failure).__name__}: {text}" if text else type(failure).__name__
    line = f"{kind} at {' < '.join(_places(failure.__traceback__))}"
    try:
        os.write(sys.stderr.fileno(), line.encode("utf-8", "backslashreplace")[:1900] + b"\n")
    except (AttributeError, OSError, ValueError):
        # Nobody hears of it; the client still gets its answer.
        return


def _places(trace: TracebackType | None) -> list[str]:
    """Where it happened, innermost first."""
    entries = reversed(traceback.extract_tb(trace))
    return [f"{os.path.basename(entry.filename)}:{entry.lineno} in {entry.name}" for entry in entries]


def _one_line(text: str) -> str:
    return " ".join(text.split())
