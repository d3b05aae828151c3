"""Whose turn it is: parties in turn, each party's jobs in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import zip_longest

from focus_backend.serving.jobs import Job
from focus_backend.serving.parties import Party


class Schedule:
    """Jobs that wait.

    Parties take turns, one job a turn; one that was passed over in a batch keeps its turn. A new party comes last, so no
    party waits longer than one job of each other party. Jobs that a worker lost go before all others.

    Args:
        most: jobs that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # In the order of turns; a party without jobs is not listed.
        self._waiting: dict[Party, deque[Job]] = {}
        self._again: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._again) + sum(len(jobs) for jobs in self._waiting.values())

    @property
    def is_full(self) -> bool:
        """Whether no more jobs may be added."""
        return len(self) >= self._most

    def add(self, job: Job) -> None:
        """Lets a job wait for its party's turn."""
        self._waiting.setdefault(job.party, deque()).append(job)

    def add_first(self, job: Job) -> None:
        """Puts a job before all others; it was admitted before, so the bound does not count."""
        self._again.appendleft(job)

    def remove(self, job: Job) -> None:
        """Takes out a job that waits."""
        if job in self._again:
            self._again.remove(job)
            return
        jobs = self._waiting[job.party]
        jobs.remove(job)
        if not jobs:
            del self._waiting[job.party]

    def take(self, count: int) -> list[Job]:
        """The next job, with up to `count` - 1 that may be worked on together with it.

        A job that was lost with a worker comes alone: were it the cause, its company would be lost a second time.
        """
        if self._again:
            return [self._again.popleft()]
        if not self._waiting:
            return []
        taken = [self._take_from(next(iter(self._waiting)))]
        taken_before = 0
        while taken_before < len(taken) < count:
            taken_before = len(taken)
            for party in list(self._waiting):
                if len(taken) < count and self._waiting[party][0].batch_key == taken[0].batch_key:
                    taken.append(self._take_from(party))
        return taken

    def in_order(self) -> Iterator[Job]:
        """All jobs in the order in which they will be started, if no more come."""
        yield from list(self._again)
        for turn in zip_longest(*self._waiting.values()):
            yield from (job for job in turn if job is not None)

    def ahead_of(self, job: Job) -> int:
        """How many jobs will be started before one that waits; 0 for one that does not."""
        return next((place for place, other in enumerate(self.in_order()) if other is job), 0)

    def _take_from(self, party: Party) -> Job:
        jobs = self._waiting.pop(party)
        job = jobs.popleft()
        if jobs:
            self._waiting[party] = jobs
        return job
