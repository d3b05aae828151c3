"""Decides what happens to every message, without sockets, processes or a clock of its own."""

from __future__ import annotations

import dataclasses
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any

from focus_backend.errors import (
    BusyError,
    CancelledError,
    ClosingError,
    DeadlineError,
    FocusError,
    InternalError,
    ProtocolError,
    RefusedError,
)
from focus_backend.serving import wire
from focus_backend.serving.admission import admit
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.jobs import Job
from focus_backend.serving.metrics import Metrics
from focus_backend.serving.outbox import Action, Outbox, ReplaceWorker, Route, ToClient, ToWorker
from focus_backend.serving.parties import Connections, party_of, user_of
from focus_backend.serving.workshop import Workshop

__all__ = ["Broker", "ReplaceWorker", "Route", "ToClient", "ToWorker"]

# For answers to messages whose own id cannot be read.
UNKNOWN_ID = "unknown"
_HEARTBEAT_SECONDS = 2.0
# Of the bytes that the server holds, no client gets more than this part.
_SHARES = 4
# A server without a tick for so long stood still itself: it was stopped, or the machine slept.
_STANDSTILL_SECONDS = 5.0


class Broker:
    """The server's decisions. Any call may leave actions in the outbox; `take_out` hands them over.

    Args:
        config: of the server.
        secret: that messages of the owner have to carry.
        batch: requests that a worker may be given at once.
        software: name and version, for `Welcome`.
        clock: seconds, never going back.
        log: called with an event's name and plain numbers or codes; never with anything a client sent.
        is_allowed: whether the key of that name may be used still.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        secret: str,
        batch: int,
        software: str,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[..., None],
        is_allowed: Callable[[str], bool],
    ) -> None:
        self._config = config
        self._limits, self._wire_limits = config.limits, config.limits.wire()
        self._secret = secret.encode("utf-8")
        self._software, self._clock, self._log, self._is_allowed = software, clock, log, is_allowed
        self._outbox = Outbox()
        self._metrics = Metrics(clock)
        self._connections = Connections(clock)
        self._workshop = Workshop(
            self._outbox,
            self._metrics,
            queue=config.limits.queue,
            batch=batch,
            work_seconds=config.work_seconds,
            clock=clock,
            log=log,
        )
        self._close_at: float | None = None
        self._ticked = self._told_places = clock()

    def take_out(self) -> list[Action]:
        """What is to be done, in this order. Each action is handed over once."""
        return self._outbox.take()

    # Clients

    def client_message(self, route: Route, frames: Sequence[Any]) -> None:
        """Carries out or refuses what a client sent, whatever it is. Never raises.

        Args:
            route: the way back.
            frames: anything with bytes in it.
        """
        message_id = UNKNOWN_ID
        try:
            message = wire.unpack(frames, wire.REQUESTS, self._wire_limits)
            message_id = message.id
            self._check_sender(route, message)
            self._connections.heard(route)
            self._carry_out(route, message, frames)
        except wire.WireError as error:
            self._refuse(route, error.message_id or UNKNOWN_ID, ProtocolError(error.problem, error.remedy))
        except FocusError as error:
            self._refuse(route, message_id, error)
        except Exception as error:
            # A fault of ours with one message must not end the server for all.
            self._log("fault", kind=type(error).__name__)
            self._refuse(route, message_id, InternalError("the server failed with this message", "report it"))

    def client_gone(self, route: Route) -> None:
        """Gives up the requests of a connection that answers cannot be sent to."""
        self._connections.gone(route)
        for job in self._workshop.book:
            if job.route == route:
                self._workshop.drop(job)
        self._workshop.assign()

    def undelivered(self, route: Route, message_id: str) -> None:
        """Lets the client of a final answer that could not be sent ask for it again."""
        self._workshop.book.forget(user_of(route), message_id)

    def _check_sender(self, route: Route, message: wire.Message) -> None:
        if route.endpoint == "owner":
            if not hmac.compare_digest(message.secret.encode("utf-8"), self._secret):
                raise RefusedError("the message does not carry this server's secret", "read the ready file anew")
        elif not self._is_allowed(route.user):
            raise RefusedError("this key may not be used", "ask the server's owner for another")

    def _refuse(self, route: Route, message_id: str, error: FocusError) -> None:
        """Answers a message with an error. A request under way with the same id must not take it for its own."""
        if self._workshop.book.find(user_of(route), message_id) is not None:
            message_id = UNKNOWN_ID
        ahead = len(self._workshop.book) if isinstance(error, BusyError) else None
        self._metrics.failed(error.code)
        self._outbox.answer(route, message_id, wire.Error(error.code, error.problem, error.remedy, ahead))

    def _carry_out(self, route: Route, message: wire.Message, frames: Sequence[Any]) -> None:
        body = message.body
        if isinstance(body, wire.Reconstruct):
            self._reconstruct(route, message, frames)
        elif isinstance(body, wire.Cancel):
            self._outbox.answer(route, message.id, wire.Done(found=self._cancel(route, body.target)))
        elif isinstance(body, wire.Ping):
            self._outbox.answer(route, message.id, wire.Pong())
        elif isinstance(body, wire.Hello):
            self._outbox.answer(route, message.id, self._welcome(route))
        elif isinstance(body, wire.Status):
            self._outbox.answer(route, message.id, self._status(route, body))
        elif isinstance(body, wire.Shutdown):
            self._shut_down(route, body)
            self._outbox.answer(route, message.id, wire.Done())

    def _reconstruct(self, route: Route, message: wire.Message, frames: Sequence[Any]) -> None:
        user = user_of(route)
        job = self._workshop.book.find(user, message.id)
        if job is not None:
            # Sent twice, or the client has connected anew.
            job.route = route
            self._workshop.tell_place(job)
            return
        if self._workshop.book.was_answered(user, message.id):
            error = wire.Error("duplicate", "a request with this id was answered already", "choose another id for each request")
            self._metrics.failed(error.code)
            self._outbox.answer(route, message.id, error)
            return
        try:
            self._workshop.add(self._admitted(route, message, frames))
        except FocusError:
            # An error is a final answer, too.
            self._workshop.book.remember(user, message.id)
            raise
        self._workshop.assign()

    def _admitted(self, route: Route, message: wire.Message, frames: Sequence[Any]) -> Job:
        if self.is_closing:
            raise ClosingError("the server is about to end", "try again when it runs anew")
        info = self._workshop.roster.info
        request = admit(message, self._limits, methods=info.methods, parts=info.parts)
        header = self._header(message, request)
        size = sum(memoryview(frame).nbytes for frame in frames)
        self._check_room(route, size)
        now = self._clock()
        return Job(
            number=self._workshop.book.next_number(),
            user=user_of(route),
            party=party_of(route),
            route=route,
            message_id=message.id,
            request=request,
            frames=[header, *frames[1:]],
            size=size,
            arrived=now,
            deadline=now + (request.deadline_seconds or self._limits.deadline_seconds),
        )

    def _header(self, message: wire.Message, request: wire.Reconstruct) -> bytes:
        """The header written anew: workers get what was checked here, and no secret."""
        header = bytes(wire.pack(dataclasses.replace(message, body=request, secret=""))[0])
        # Letters beyond ASCII are longer in it.
        if len(header) > self._wire_limits.header_bytes:
            raise ProtocolError(f"the header has {len(header)} bytes in ASCII", f"send at most {self._wire_limits.header_bytes}")
        return header

    def _check_room(self, route: Route, size: int) -> None:
        book, limits = self._workshop.book, self._limits
        if size > limits.queue_bytes:
            raise ProtocolError(f"the request has {size} bytes", f"send at most {limits.queue_bytes}")
        if book.count(party_of(route)) >= limits.requests_in_flight:
            raise BusyError(f"{limits.requests_in_flight} requests of yours are under way", "wait for one of them")
        held = book.bytes_of(party_of(route))
        # One large photo is always admitted.
        if held and held + size > limits.queue_bytes // _SHARES:
            raise BusyError(f"requests of yours with {held} bytes are under way", "wait for one of them")
        if self._workshop.schedule.is_full or book.total_bytes + size > limits.queue_bytes:
            raise BusyError(f"the server holds {len(book)} requests and takes no more", "try again later")

    def _cancel(self, route: Route, target: str) -> bool:
        job = self._workshop.book.find(user_of(route), target)
        if job is None:
            return False
        self._workshop.fail(job, CancelledError("the request was cancelled"))
        self._workshop.assign()
        return True

    def _welcome(self, route: Route) -> wire.Welcome:
        roster = self._workshop.roster
        return wire.Welcome(
            software=self._software,
            protocols=[wire.PROTOCOL],
            limits=self._limits.published(),
            models=roster.info.models,
            methods=roster.info.methods,
            parts=roster.info.parts,
            device=roster.info.device,
            workers=len(roster),
            workers_ready=roster.ready_count,
            is_owner=route.endpoint == "owner",
        )

    def _status(self, route: Route, request: wire.Status) -> wire.StatusReport:
        return self._metrics.report(
            queued=len(self._workshop.schedule),
            running=self._workshop.running,
            clients=len(self._connections),
            workers=[worker.report(with_pid=route.endpoint == "owner") for worker in self._workshop.roster],
            prometheus=request.prometheus,
        )

    def _shut_down(self, route: Route, request: wire.Shutdown) -> None:
        if route.endpoint != "owner":
            raise RefusedError("only its owner may end the server", "ask its owner")
        grace = self._config.grace_seconds if request.grace_seconds is None else request.grace_seconds
        self.close(max(0.0, grace))

    # Workers

    def worker_started(self, worker: int, pid: int) -> None:
        """A process was started for a worker; its number stays when it is started again."""
        self._workshop.roster.start(worker, pid)
        self._log("worker-started", worker=worker, pid=pid)

    def worker_message(self, worker: int, frames: Sequence[Any]) -> None:
        """Carries out what a worker sent."""
        self._workshop.worker_message(worker, frames)
        self._after_worker()

    def worker_lost(self, worker: int, reason: str) -> None:
        """A worker's process has ended, on its own or because it was to be replaced."""
        self._workshop.worker_lost(worker)
        self._after_worker()

    def _after_worker(self) -> None:
        if self.failure is not None and not self.is_closing:
            self.close(0.0)
        self._workshop.assign()

    def restart_delay(self, worker: int) -> float:
        """Seconds to wait before a lost worker is started again."""
        known = self._workshop.roster.get(worker)
        return known.restart_delay if known is not None else 0.0

    @property
    def failure(self) -> wire.Error | None:
        """Why nothing can be loaded; the server has to end with it."""
        return self._workshop.load_failure

    # Time

    def tick(self) -> None:
        """Does what is due; to be called at least every 50 ms."""
        now = self._clock()
        if now - self._ticked > _STANDSTILL_SECONDS:
            self._workshop.roster.forgive(now - self._ticked)
        self._ticked = now
        for job in self._workshop.book:
            if job.deadline <= now:
                problem = f"the request was not done within {job.deadline - job.arrived:g} s"
                self._workshop.fail(job, DeadlineError(problem, "give it more time"))
        if self._close_at is not None and self._close_at <= now:
            self._end_all(list(self._workshop.book))
        self._workshop.replace_stuck()
        if now - self._told_places >= _HEARTBEAT_SECONDS:
            self._told_places = now
            self._end_refused()
            self._workshop.tell_places()
            self._connections.forget_silent()
        self._workshop.assign()

    def _end_refused(self) -> None:
        """A key that was revoked gets no answers to what it asked before."""
        for job in self._workshop.book:
            if job.route.endpoint == "remote" and not self._is_allowed(job.route.user):
                self._workshop.fail(job, RefusedError("this key may not be used", "ask the server's owner for another"))

    def close(self, grace: float) -> None:
        """Takes no new work, and ends all requests that wait; running ones may go on.

        Args:
            grace: seconds; a second call can only shorten it.
        """
        end = self._clock() + grace
        self._close_at = end if self._close_at is None else min(end, self._close_at)
        self._workshop.is_closing = True
        self._log("closing", grace=grace, waiting=len(self._workshop.schedule), running=self._workshop.running)
        self._end_all(list(self._workshop.schedule.in_order()))

    def _end_all(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._workshop.fail(job, ClosingError("the server is about to end", "try again when it runs anew"))

    @property
    def is_closing(self) -> bool:
        """Whether no new work is taken."""
        return self._workshop.is_closing

    @property
    def is_finished(self) -> bool:
        """Whether the server is closing and nobody waits for an answer."""
        return self.is_closing and len(self._workshop.book) == 0
