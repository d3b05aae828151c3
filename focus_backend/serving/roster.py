"""The state of the workers: what they hold, when they were heard of, how soon a dead one may be started again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from focus_backend.serving.wire import ModelInfo, WorkerReport

# So many deaths before "ready" within that time, and the next start waits.
_EARLY_DEATHS = 3
_EARLY_DEATHS_SECONDS = 60.0
_LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker told of itself when it was ready.

    Attributes:
        models: face models it holds.
        methods: the first is the default.
        parts: that results may have.
        device: where the networks run.
    """

    models: list[ModelInfo] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    device: str = ""

    @classmethod
    def read(cls, data: bytes) -> WorkerInfo:
        """From a worker's JSON.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        told = json.loads(data)
        models = [ModelInfo(**model) for model in told["models"]]
        return cls(models, [str(name) for name in told["methods"]], [str(name) for name in told["parts"]], str(told["device"]))


@dataclass(eq=False)
class Worker:
    """One place for a worker process; a process that died is followed by another with the same number.

    Attributes:
        number: of the place.
        pid: of the process.
        state: "starting", "ready" or "lost".
        was_ready: whether this process ever had everything loaded.
        started: when the process was started; seconds of the broker's clock, as all times here.
        heard: when it last said anything.
        jobs: numbers it was given and has not ended, given up ones included.
        busy_since: when it got its jobs or ended the last of them.
        useless_since: when the last of its jobs was given up; None while one is wanted.
        answered: jobs of this process that got a result or an error.
        memory_bytes: resident.
    """

    number: int
    pid: int = 0
    state: str = "lost"
    was_ready: bool = False
    started: float = 0.0
    heard: float = 0.0
    jobs: list[int] = field(default_factory=list)
    busy_since: float = 0.0
    useless_since: float | None = None
    answered: int = 0
    memory_bytes: int = 0
    _early_deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_EARLY_DEATHS))
    _delays: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether it may be given work."""
        return self.state == "ready" and not self.jobs

    @property
    def restart_delay(self) -> float:
        """Seconds to wait before its process is started again."""
        return min(2.0 ** (self._delays - 1), _LONGEST_DELAY_SECONDS) if self._delays else 0.0

    def note_started(self, pid: int, now: float) -> None:
        """A new process was started in its place."""
        self.pid, self.state, self.started, self.heard = pid, "starting", now, now
        self.was_ready, self.jobs, self.useless_since, self.answered, self.memory_bytes = False, [], None, 0, 0

    def note_ready(self) -> None:
        """It has everything loaded."""
        self.state, self.was_ready = "ready", True
        self._early_deaths.clear()
        self._delays = 0

    def note_lost(self) -> list[int]:
        """It is not to be used any more. Returns the jobs it had."""
        jobs, self.jobs, self.useless_since = self.jobs, [], None
        self.state, self.memory_bytes = "lost", 0
        return jobs

    def note_early_death(self, now: float) -> None:
        """Its process died before it was ready."""
        self._early_deaths.append(now)
        is_frequent = len(self._early_deaths) == _EARLY_DEATHS and now - self._early_deaths[0] <= _EARLY_DEATHS_SECONDS
        if self._delays or is_frequent:
            self._delays = min(self._delays + 1, 16)

    def note_given(self, jobs: list[int], now: float) -> None:
        """It was given work."""
        self.jobs, self.busy_since, self.useless_since = jobs, now, None

    def note_ended(self, job: int, now: float) -> None:
        """It has ended one of its jobs."""
        self.jobs.remove(job)
        self.busy_since = now

    def report(self, *, with_pid: bool) -> WorkerReport:
        """As clients see it."""
        state = ("busy" if self.jobs else "idle") if self.state == "ready" else self.state
        return WorkerReport(self.pid if with_pid else 0, state, self.answered, self.memory_bytes)


class Roster:
    """All workers by number.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._workers: dict[int, Worker] = {}
        # Of the last worker that became ready.
        self.info = WorkerInfo()
        self.was_ever_ready = False

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def get(self, number: int) -> Worker | None:
        """The worker with a number, if it was ever started."""
        return self._workers.get(number)

    def start(self, number: int, pid: int) -> None:
        """A process was started."""
        self._workers.setdefault(number, Worker(number)).note_started(pid, self._clock())

    def ready(self, worker: Worker, info: WorkerInfo) -> None:
        """A worker has everything loaded."""
        self.info = info
        self.was_ever_ready = True
        worker.note_ready()

    @property
    def ready_count(self) -> int:
        """Workers with everything loaded."""
        return sum(worker.state == "ready" for worker in self)

    def idle(self) -> Iterator[Worker]:
        """Workers that may be given work."""
        return (worker for worker in self if worker.is_idle)

    def forgive(self, seconds: float) -> None:
        """The server itself stood still so long: what workers said meanwhile is not read yet."""
        for worker in self:
            worker.started += seconds
            worker.heard += seconds
            worker.busy_since += seconds
            if worker.useless_since is not None:
                worker.useless_since += seconds
