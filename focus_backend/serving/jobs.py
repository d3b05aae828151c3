"""The book of requests: those under way, and the ids of those answered lately."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from focus_backend.serving.outbox import Route
from focus_backend.serving.parties import Party, User
from focus_backend.serving.wire import Reconstruct

REMEMBERED = 4096


@dataclass(eq=False)
class Job:
    """A request under way, from its arrival to its final answer.

    Attributes:
        number: of ours, never used twice.
        user: whose it is.
        party: in whose turn it is taken; stays when its user connects anew.
        route: where answers go.
        message_id: the client's id.
        request: what is wanted.
        frames: for the worker.
        size: bytes of the frames.
        arrived: seconds of the broker's clock, as all times here.
        deadline: when an answer is of no use any more.
        worker: that works on it; None while it waits.
        started: when that worker got it.
        tries: how often it was given to a worker.
        stage: last that was reported; "" for none.
        fraction: the same, 0 to 1.
    """

    number: int
    user: User
    party: Party
    route: Route
    message_id: str
    request: Reconstruct
    frames: list[Any] = field(repr=False)
    size: int
    arrived: float
    deadline: float
    worker: int | None = None
    started: float = 0.0
    tries: int = 0
    stage: str = ""
    fraction: float = 0.0

    @property
    def batch_key(self) -> tuple[str | None, bool]:
        """Jobs with equal keys may be worked on together."""
        return (self.request.options.method, self.request.options.misfit)


class Book:
    """All jobs under way by number and by id. Of an answered one nothing is kept but its id, of the last 4,096 of each user."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_number: dict[int, Job] = {}
        self._by_id: dict[tuple[User, str], Job] = {}
        self._answered: dict[User, OrderedDict[str, None]] = {}
        # Of all jobs under way.
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Job]:
        """Over a copy: jobs may be removed meanwhile."""
        return iter(list(self._by_number.values()))

    def next_number(self) -> int:
        """A number for a new job."""
        return next(self._numbers)

    def add(self, job: Job) -> None:
        """Takes in a new job."""
        self._by_number[job.number] = job
        self._by_id[job.user, job.message_id] = job
        self.total_bytes += job.size

    def remove(self, job: Job, *, is_answered: bool) -> None:
        """Lets go of a job; its id is remembered when it was answered."""
        del self._by_number[job.number]
        del self._by_id[job.user, job.message_id]
        self.total_bytes -= job.size
        if is_answered:
            self.remember(job.user, job.message_id)

    def remember(self, user: User, message_id: str) -> None:
        """Notes that an id got its final answer."""
        ids = self._answered.setdefault(user, OrderedDict())
        ids[message_id] = None
        if len(ids) > REMEMBERED:
            ids.popitem(last=False)

    def forget(self, user: User, message_id: str) -> None:
        """Notes that an id's final answer could not be delivered: it may be asked for again."""
        self._answered.get(user, OrderedDict()).pop(message_id, None)

    def was_answered(self, user: User, message_id: str) -> bool:
        """Whether an id had its final answer lately."""
        return message_id in self._answered.get(user, ())

    def find(self, user: User, message_id: str) -> Job | None:
        """The job under way with a user's id."""
        return self._by_id.get((user, message_id))

    def numbered(self, number: int) -> Job | None:
        """The job under way with a number of ours."""
        return self._by_number.get(number)

    def count(self, party: Party) -> int:
        """How many jobs of a party are under way."""
        return sum(job.party == party for job in self._by_number.values())

    def bytes_of(self, party: Party) -> int:
        """Bytes of a party's jobs under way."""
        return sum(job.size for job in self._by_number.values() if job.party == party)
