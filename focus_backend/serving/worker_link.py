"""Between the broker and the worker processes: their messages, deaths and successors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmq

from focus_backend.serving.broker import Broker
from focus_backend.serving.frames import views, whole_frames
from focus_backend.serving.outbox import ReplaceWorker, ToWorker
from focus_backend.serving.worker_processes import WorkerProcesses

_MOST_AT_ONCE = 64
# Where no process can be started: the machine is out of memory or handles, which may pass.
_SECONDS_TO_TRY_AGAIN = 2.0


class WorkerLink:
    """Carries the broker's orders out, and tells it what becomes of its workers.

    Args:
        socket: a bound ROUTER.
        address: of the socket.
        processes: of the workers.
        broker: that decides.
        log: takes an event and its fields.
        clock: seconds.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        address: str,
        *,
        processes: WorkerProcesses,
        broker: Broker,
        log: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.socket = socket
        self._address = address
        self._processes = processes
        self._broker = broker
        self._log = log
        self._clock = clock
        # Workers without a process, and when each gets one.
        self._due: dict[int, float] = {}

    def start(self, count: int) -> None:
        """Starts so many workers."""
        self._due = dict.fromkeys(range(1, count + 1), self._clock())
        self._start_due()

    def receive(self) -> None:
        """Hands what workers said to the broker; a few messages at a time, for clients wait, too."""
        for _ in range(_MOST_AT_ONCE):
            try:
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            number = self._processes.number(identity.bytes)
            if number is not None and frames:
                self._broker.worker_message(number, views(frames))

    def watch(self) -> None:
        """Tells the broker who died, and starts successors when it is time."""
        # Before deaths are told: what is still on its way to a dead worker must not reach its successor.
        self._start_due()
        for number, reason in self._processes.lost():
            self._log("worker-lost", level="warning", worker=number, reason=reason)
            self._broker.worker_lost(number, reason)
            self._due[number] = self._clock() + self._broker.restart_delay(number)

    def send(self, order: ToWorker) -> None:
        """Sends a message of the broker."""
        identity = self._processes.identity(order.worker)
        if identity is None:
            return
        try:
            self.socket.send_multipart([identity, *whole_frames(order.frames)], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            # It is dead, which `watch` will see, or it does not read, which cannot be waited for.
            self._processes.kill(order.worker, f"it took no message ({error.strerror})")

    def replace(self, order: ReplaceWorker) -> None:
        """Kills a worker; `watch` reports its death."""
        self._processes.kill(order.worker, order.reason)

    def end(self) -> None:
        """Ends all workers."""
        for number in self._processes.tokens():
            self.send(ToWorker(number, [b"stop"]))
        self._processes.end_all()

    def _start_due(self) -> None:
        if self._broker.is_closing:
            return
        for number, due in list(self._due.items()):
            if self._clock() < due:
                continue
            try:
                pid = self._processes.start(number, self._address)
            except OSError as error:
                self._log("worker-not-started", level="error", worker=number, problem=error.strerror)
                self._due[number] = self._clock() + _SECONDS_TO_TRY_AGAIN
                continue
            del self._due[number]
            self._broker.worker_started(number, pid)
