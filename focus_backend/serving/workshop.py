"""Requests under way and the workers that do them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from focus_backend.errors import ClosingError, FocusError, InternalError, WorkerLostError
from focus_backend.serving import wire
from focus_backend.serving.jobs import Book, Job
from focus_backend.serving.metrics import Metrics
from focus_backend.serving.outbox import Outbox
from focus_backend.serving.roster import Roster, Worker, WorkerInfo
from focus_backend.serving.schedule import Schedule

# A request is given to workers so often before their deaths are held to be its fault.
_MOST_TRIES = 2
# A worker that still works on something given up after that time is replaced. Reading the largest photo takes some 3 s in one go.
_GIVE_UP_SECONDS = 5.0
# A worker that tells nothing for so long has hung as a whole; it should send a beat every second.
_SILENCE_SECONDS = 30.0
# Loading may include compiling and reading from a slow disk.
_LOADING_SECONDS = 600.0


class Workshop:
    """Gives requests to workers, and answers to clients. Each request that was added gets one final answer, or is dropped.

    Args:
        outbox: where messages go.
        metrics: that count.
        queue: requests that may wait.
        batch: requests that a worker may be given at once.
        work_seconds: a request that runs longer has hung.
        clock: seconds.
        log: called with an event's name and plain numbers.
    """

    def __init__(
        self,
        outbox: Outbox,
        metrics: Metrics,
        *,
        queue: int,
        batch: int,
        work_seconds: float,
        clock: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self.book = Book()
        self.schedule = Schedule(queue)
        self.roster = Roster(clock)
        self.is_closing = False
        self.load_failure: wire.Error | None = None
        self._outbox, self._metrics = outbox, metrics
        self._batch, self._work_seconds = max(1, batch), work_seconds
        self._clock, self._log = clock, log

    @property
    def running(self) -> int:
        """Requests that are being worked on."""
        return len(self.book) - len(self.schedule)

    # Requests

    def add(self, job: Job) -> None:
        """Takes in a request and tells its client; it starts when it is its turn."""
        self.book.add(job)
        self.schedule.add(job)
        self._log("accepted", job=job.number, bytes=job.size)
        self.tell_place(job)

    def tell_place(self, job: Job) -> None:
        """Tells a client how many are before its request."""
        self._outbox.answer(job.route, job.message_id, wire.Accepted(self.schedule.ahead_of(job)), is_final=False)

    def tell_places(self) -> None:
        """A sign of life to every client that waits: its place, or the stage that its request has reached."""
        for ahead, job in enumerate(self.schedule.in_order()):
            self._outbox.answer(job.route, job.message_id, wire.Accepted(ahead), is_final=False)
        for job in self.book:
            if job.worker is not None:
                body = wire.Progress(job.stage, job.fraction) if job.stage and job.request.progress else wire.Accepted(0)
                self._outbox.answer(job.route, job.message_id, body, is_final=False)

    def fail(self, job: Job, error: FocusError) -> None:
        """Answers a request with an error, and gives up the work on it."""
        body = wire.Error(error.code, error.problem, error.remedy)
        self._outbox.answer(job.route, job.message_id, body)
        self._metrics.failed(error.code)
        self._log("failed", job=job.number, code=error.code, seconds=self._clock() - job.arrived)
        self._let_go(job, is_answered=True)

    def drop(self, job: Job) -> None:
        """Gives up a request whose client has gone; should it come back, its id is new."""
        self._log("dropped", job=job.number)
        self._let_go(job, is_answered=False)

    def assign(self) -> None:
        """Gives work to idle workers."""
        for worker in self.roster.idle():
            jobs = self.schedule.take(self._batch)
            if not jobs:
                return
            worker.note_given([job.number for job in jobs], self._clock())
            for job in jobs:
                job.worker, job.started, job.tries = worker.number, self._clock(), job.tries + 1
                self._outbox.tell(worker.number, b"run", _digits(job), *job.frames)
                self._log("started", job=job.number, worker=worker.number, waited=self._clock() - job.arrived)
            self._outbox.tell(worker.number, b"take", b" ".join(_digits(job) for job in jobs))

    def _let_go(self, job: Job, *, is_answered: bool) -> None:
        """Keeps nothing of a request; the worker that has it is told, and is busy until it has ended it."""
        self.book.remove(job, is_answered=is_answered)
        if job.worker is None:
            self.schedule.remove(job)
            return
        worker = self.roster.get(job.worker)
        if worker is None:
            return
        if job.number in worker.jobs:
            self._outbox.tell(worker.number, b"cancel", _digits(job))
        if worker.useless_since is None and not self._wanted(worker.jobs):
            worker.useless_since = self._clock()

    def _wanted(self, numbers: Sequence[int]) -> list[Job]:
        """The jobs of these numbers that somebody waits for."""
        return [job for job in map(self.book.numbered, numbers) if job is not None]

    # Workers

    def worker_message(self, number: int, frames: Sequence[Any]) -> None:
        """Carries out what a worker says; what it cannot mean is logged and left."""
        worker = self.roster.get(number)
        # One that is to be replaced has nothing to say: its requests were given to others.
        if worker is None or worker.state == "lost":
            return
        worker.heard = self._clock()
        try:
            self._carry_out(worker, bytes(frames[0]), frames[1:])
        except (ValueError, LookupError, TypeError, AttributeError, wire.WireError):
            self._log("worker-message-malformed", worker=number)

    def _carry_out(self, worker: Worker, kind: bytes, frames: Sequence[Any]) -> None:
        if kind == b"ready":
            self.roster.ready(worker, WorkerInfo.read(bytes(frames[0])))
            self._log("worker-ready", worker=worker.number, seconds=self._clock() - worker.started)
        elif kind == b"beat":
            worker.memory_bytes = int(json.loads(bytes(frames[0]))["memory_bytes"])
        elif kind == b"failed":
            self._note_load_failure(worker, json.loads(bytes(frames[0])))
        elif kind == b"progress":
            self._forward_progress(worker, int(bytes(frames[0])), frames[1:])
        elif kind in (b"result", b"error"):
            self._end(worker, kind, int(bytes(frames[0])), frames[1:])
        else:
            raise ValueError("a worker sent a message of no known kind")

    def _note_load_failure(self, worker: Worker, told: dict[str, Any]) -> None:
        self._log("worker-failed", worker=worker.number, problem=str(told["problem"]))
        if not self.roster.was_ever_ready and self.load_failure is None:
            self.load_failure = wire.Error(str(told["code"]), str(told["problem"]), str(told.get("remedy", "")))

    def _forward_progress(self, worker: Worker, number: int, frames: Sequence[Any]) -> None:
        job = self.book.numbered(number)
        if job is None or number not in worker.jobs:
            return
        message = wire.unpack(frames, (wire.Progress,), wire.ANSWER_LIMITS)
        progress: wire.Progress = message.body
        if message.id != job.message_id or not job.fraction <= progress.fraction <= 1.0:
            return
        job.stage, job.fraction = progress.stage, progress.fraction
        if job.request.progress:
            self._outbox.forward(job.route, job.message_id, frames, is_final=False)

    def _end(self, worker: Worker, kind: bytes, number: int, frames: Sequence[Any]) -> None:
        """A worker has ended a job; its client gets the answer, unless it had one already."""
        worker.note_ended(number, self._clock())
        worker.answered += 1
        job = self.book.numbered(number)
        if job is None:
            return
        if not frames:
            self.fail(job, InternalError("the answer of the worker was lost", "try again"))
        elif kind == b"error":
            self.fail(job, _error_in(frames))
        else:
            latency, work = self._clock() - job.arrived, self._clock() - job.started
            self._metrics.answered(latency, work)
            self._log("answered", job=number, worker=worker.number, seconds=latency, work=work)
            self._outbox.forward(job.route, job.message_id, frames, is_final=True)
            self._let_go(job, is_answered=True)

    def worker_lost(self, number: int) -> None:
        """A worker's process has died: its requests are tried again, or answered."""
        worker = self.roster.get(number)
        if worker is None:
            return
        if not worker.was_ready:
            self._note_early_death(worker)
        # It must not be told to stop what it had.
        jobs = self._wanted(worker.note_lost())
        if not self.is_closing:
            self._metrics.restarted()
        self._log("requests-lost", worker=number, jobs=len(jobs), delay=worker.restart_delay)
        self._try_again(jobs)

    def _note_early_death(self, worker: Worker) -> None:
        worker.note_early_death(self._clock())
        # Where none ever came up, waiting would not help.
        if worker.restart_delay and not self.roster.was_ever_ready and self.load_failure is None:
            self.load_failure = wire.Error(InternalError.code, "the workers die while they load", "see the lines above in the log")

    def _try_again(self, jobs: Sequence[Job]) -> None:
        for job in reversed(jobs):
            if self.is_closing:
                self.fail(job, ClosingError("the server is about to end", "try again when it runs anew"))
            elif job.tries >= _MOST_TRIES:
                self.fail(job, WorkerLostError("the process that worked on the request died, twice", "try another photo"))
            else:
                self._put_back(job)

    def _put_back(self, job: Job) -> None:
        job.worker, job.stage, job.fraction = None, "starting again", 0.0
        self.schedule.add_first(job)
        self._log("again", job=job.number)
        if job.request.progress:
            self._outbox.answer(job.route, job.message_id, wire.Progress(job.stage, job.fraction), is_final=False)

    def replace_stuck(self) -> None:
        """Has workers killed that do not say anything, or do not come to an end."""
        now = self._clock()
        for worker in self.roster:
            if worker.state == "starting" and now - worker.started > _LOADING_SECONDS:
                self._replace(worker, "it did not get ready")
            elif worker.state == "ready" and now - worker.heard > _SILENCE_SECONDS:
                self._replace(worker, "it does not answer")
            elif worker.useless_since is not None and worker.jobs and now - worker.useless_since >= _GIVE_UP_SECONDS:
                self._replace(worker, "it does not stop work that was given up")
            elif worker.jobs and now - worker.busy_since > self._work_seconds:
                self._replace_hung(worker)

    def _replace_hung(self, worker: Worker) -> None:
        jobs = self._wanted(worker.jobs)
        self._replace(worker, "its work takes too long", is_hung=len(jobs) == 1)

    def _replace(self, worker: Worker, reason: str, *, is_hung: bool = False) -> None:
        """Has a worker killed. Its requests go to others, but one that hangs alone would hang again."""
        self._outbox.replace(worker.number, reason)
        self._log("worker-replaced", worker=worker.number)
        jobs = self._wanted(worker.note_lost())
        if not is_hung:
            self._try_again(jobs)
            return
        for job in jobs:
            problem = f"the work on the request took longer than {self._work_seconds:g} s"
            self.fail(job, WorkerLostError(problem, "try another photo or ask the server's owner for more time"))


def _digits(job: Job) -> bytes:
    return b"%d" % job.number


def _error_in(frames: Sequence[Any]) -> FocusError:
    """What a worker says that went wrong. It goes out under the request's id, which the worker may not have been able to read."""
    try:
        body: wire.Error = wire.unpack(frames, (wire.Error,), wire.ANSWER_LIMITS).body
    except wire.WireError:
        return InternalError("the answer of the worker cannot be read", "try again")
    error = FocusError(body.problem, body.remedy)
    error.code = body.code
    return error
