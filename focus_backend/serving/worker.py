"""A worker process: holds the pipeline and answers what the server hands it. Started by the server only."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil
import zmq

from focus_backend.reconstruction.loading import collection_paused
from focus_backend.serving import work
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.frames import views
from focus_backend.serving.pipeline import Pipeline

_SECONDS_BETWEEN_BEATS = 1.0
_SECONDS_TO_SEND = 2.0
# Stands for the last thing that the computing thread hands over.
_END: list[Any] = []


@dataclass(frozen=True)
class Assignment:
    """What a worker is told by the first line of its standard input.

    Attributes:
        address: of the server's socket for workers.
        token: proves to it who this is.
        number: of the worker.
        identity: of this process; no other ever has it.
        pipeline: "module:function" that loads what it runs.
        config: of the server.
    """

    address: str
    token: str
    number: int
    identity: str
    pipeline: str
    config: ServerConfig

    @classmethod
    def read(cls, line: bytes) -> Assignment:
        """What the line says."""
        values = json.loads(line)
        return cls(**values | {"config": ServerConfig.model_validate(values["config"])})


class Outbox:
    """Frames on their way from the computing thread to the one that owns the socket."""

    def __init__(self) -> None:
        self._frames: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        # Wakes a poll; a socket, for Windows cannot poll pipes.
        self.waker, self._bell = socket.socketpair()
        self.waker.setblocking(False)
        self._bell.setblocking(False)

    def put(self, frames: list[Any]) -> None:
        """Hands frames over; from any thread."""
        self._frames.put(frames)
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            # It rings already.
            return

    def take(self) -> list[list[Any]]:
        """All that has come, in order."""
        try:
            while self.waker.recv(4096):
                pass
        except BlockingIOError:
            pass
        taken = []
        while not self._frames.empty():
            taken.append(self._frames.get())
        return taken


class Computing(threading.Thread):
    """Loads the pipeline and runs batches, one after the other.

    Args:
        assignment: what was told.
        outbox: where answers go.
    """

    def __init__(self, assignment: Assignment, outbox: Outbox) -> None:
        super().__init__(name="computing", daemon=True)
        self._assignment = assignment
        self._outbox = outbox
        self._batches: queue.SimpleQueue[list[work.Order]] = queue.SimpleQueue()

    def take(self, orders: list[work.Order]) -> None:
        """Runs these together, after what it has already."""
        self._batches.put(orders)

    def run(self) -> None:
        """Until the process ends."""
        try:
            with collection_paused():
                pipeline = work.load(self._assignment.pipeline, self._assignment.config)
            self._outbox.put(work.ready_frames(pipeline))
        except BaseException as failure:
            self._outbox.put(work.failed_frames(failure))
            self._outbox.put(_END)
            return
        try:
            while self._run_batch(pipeline):
                continue
        finally:
            # After some errors a GPU, or this thread, does no more until the process is a new one.
            self._outbox.put(_END)

    def _run_batch(self, pipeline: Pipeline) -> bool:
        """Whether the next one may follow. A function of its own, so that nothing is kept of a photo while none waits."""
        batch = work.Batch(self._batches.get(), self._assignment.config, self._outbox.put)
        batch.run(pipeline)
        return not batch.is_device_lost


class Worker:
    """The thread that owns the socket: hands work on, answers back, and tells every second that it lives.

    Args:
        assignment: what was told.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._outbox = Outbox()
        self._computing = Computing(assignment, self._outbox)
        self._orders: dict[bytes, work.Order] = {}
        self._process = psutil.Process()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.IDENTITY, assignment.identity.encode("ascii"))
        self._socket.set(zmq.PLAIN_USERNAME, str(assignment.number).encode("ascii"))
        self._socket.set(zmq.PLAIN_PASSWORD, assignment.token.encode("ascii"))
        self._socket.connect(assignment.address)

    def run(self) -> None:
        """Until the server says stop, or the pipeline cannot be loaded."""
        self._computing.start()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._outbox.waker, zmq.POLLIN)
        next_beat = time.monotonic()
        is_going = True
        while is_going:
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat = time.monotonic() + _SECONDS_BETWEEN_BEATS
            poller.poll(max(0, int(1000 * (next_beat - time.monotonic())) + 1))
            is_going = self._read() and self._send_answers()
        self._socket.close(linger=int(1000 * _SECONDS_TO_SEND))
        self._context.term()

    def _read(self) -> bool:
        """Does what the server says; whether to go on."""
        while self._socket.poll(0):
            kind, *rest = self._socket.recv_multipart(copy=False)
            verb = kind.bytes
            if verb == b"stop":
                return False
            if verb == b"run":
                number = rest[0].bytes
                self._orders[number] = work.Order(number, views(rest[1:]))
            elif verb == b"take":
                self._computing.take([self._orders[number] for number in rest[0].bytes.split()])
            elif verb == b"cancel" and rest[0].bytes in self._orders:
                self._orders[rest[0].bytes].is_cancelled.set()
        return True

    def _send_answers(self) -> bool:
        """Sends what was computed; whether there will be more."""
        for frames in self._outbox.take():
            if frames == _END:
                return False
            if frames[0] in (b"result", b"error"):
                self._orders.pop(frames[1], None)
            self._socket.send_multipart(frames, copy=False)
        return True

    def _beat(self) -> None:
        memory = {"memory_bytes": self._process.memory_info().rss}
        self._socket.send_multipart([b"beat", json.dumps(memory).encode("ascii")])


def _end_with_server() -> None:
    """Ends the process when standard input closes, for then the server has died."""
    # Past the buffered reader, whose lock would be held when Python ends.
    while True:
        try:
            if not os.read(0, 4096):
                break
        except OSError:
            break
    os._exit(0)


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    return line


def main() -> None:
    """The process."""
    # Ctrl-C and a service's stop reach the whole group; the server decides what they mean.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    assignment = Assignment.read(_first_line())
    threading.Thread(target=_end_with_server, name="server-watch", daemon=True).start()
    Worker(assignment).run()
    sys.stdout.flush()
    # Libraries with threads of their own seldom survive an orderly end in the middle of their work.
    os._exit(0)


if __name__ == "__main__":
    main()
