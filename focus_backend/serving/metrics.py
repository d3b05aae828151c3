"""What the server counts: for `status`, and as Prometheus text."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable

import prometheus_client
import psutil

from focus_backend.serving.wire import StatusReport, WorkerReport

_KEPT_LATENCIES = 1024
_RATE_SECONDS = 60
_MOST_CODES = 64
_CODE = re.compile(r"[a-z][a-z-]{0,31}")
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 300.0, 600.0, math.inf)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """The values that 50, 95 and 99 % are not above, as "p50", "p95" and "p99"; nothing of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {f"p{percent}": ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in (50, 95, 99)}


class Rate:
    """Events a second over the last minute, or since the start where that is less.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        # [second, events], one entry a second, so that a busy server keeps no more than a quiet one.
        self._seconds: deque[list[int]] = deque()

    def count(self) -> None:
        """Counts an event."""
        second = math.floor(self._clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
        self._seconds[-1][1] += 1
        self._forget(second)

    def a_second(self) -> float:
        """Events a second."""
        now = self._clock()
        self._forget(math.floor(now))
        return sum(events for _, events in self._seconds) / min(max(now - self._start, 1.0), _RATE_SECONDS)

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - _RATE_SECONDS:
            self._seconds.popleft()


class Metrics:
    """Counts answers and times. Holds nothing of the requests themselves.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._process = psutil.Process()
        self._rate = Rate(clock)
        self._latencies: deque[float] = deque(maxlen=_KEPT_LATENCIES)
        self._works: deque[float] = deque(maxlen=_KEPT_LATENCIES)
        self._answered = 0
        self._failed: Counter[str] = Counter()
        self._restarts = 0
        self._make_series()

    def _make_series(self) -> None:
        # A registry of our own: the library's is global, and two servers in one process would share it.
        self._registry = prometheus_client.CollectorRegistry()
        own = self._registry
        self._answered_count = prometheus_client.Counter("focus_requests_answered", "Requests that got a result.", registry=own)
        self._failed_count = prometheus_client.Counter("focus_requests_failed", "Requests that got an error.", ["code"], registry=own)
        self._latency = prometheus_client.Histogram("focus_latency_seconds", "From arrival to the result.", buckets=_BUCKETS, registry=own)
        self._work = prometheus_client.Histogram("focus_work_seconds", "The same without the waiting.", buckets=_BUCKETS, registry=own)
        self._restart_count = prometheus_client.Counter("focus_worker_restarts", "Workers that died and were replaced.", registry=own)
        gauges = {
            "queued": "Requests waiting.",
            "running": "Requests being worked on.",
            "clients": "Connections heard of lately.",
            "uptime_seconds": "Since the server was started.",
            "memory_bytes": "Resident, of the server process.",
            "handles": "Open files and sockets of the server process.",
        }
        self._gauges = {name: prometheus_client.Gauge(f"focus_{name}", text, registry=own) for name, text in gauges.items()}
        self._workers = prometheus_client.Gauge("focus_workers", "Workers, by state.", ["state"], registry=own)
        self._worker_memory = prometheus_client.Gauge("focus_worker_memory_bytes", "Resident, of all workers.", registry=own)

    def answered(self, latency: float, work: float) -> None:
        """A request got its result, after so many seconds in all and of work."""
        self._answered += 1
        self._rate.count()
        self._latencies.append(latency)
        self._works.append(work)
        self._answered_count.inc()
        self._latency.observe(latency)
        self._work.observe(work)

    def failed(self, code: str) -> None:
        """A request got an error."""
        is_known = code in self._failed or (len(self._failed) < _MOST_CODES and _CODE.fullmatch(code) is not None)
        code = code if is_known else "other"
        self._failed[code] += 1
        self._failed_count.labels(code).inc()

    def restarted(self) -> None:
        """A worker died."""
        self._restarts += 1
        self._restart_count.inc()

    def report(self, *, queued: int, running: int, clients: int, workers: list[WorkerReport], prometheus: bool) -> StatusReport:
        """How the server is at this moment."""
        now = {
            "queued": queued,
            "running": running,
            "clients": clients,
            "uptime_seconds": self._clock() - self._start,
            "memory_bytes": self._process.memory_info().rss,
            "handles": self._handles(),
        }
        return StatusReport(
            **now,
            answered=self._answered,
            failed=dict(self._failed),
            requests_per_second=self._rate.a_second(),
            latency_seconds=percentiles(self._latencies),
            work_seconds=percentiles(self._works),
            worker_restarts=self._restarts,
            workers=workers,
            prometheus=self._text(now, workers) if prometheus else "",
        )

    def _handles(self) -> int:
        return self._process.num_handles() if psutil.WINDOWS else self._process.num_fds()

    def _text(self, now: dict[str, float], workers: list[WorkerReport]) -> str:
        for name, gauge in self._gauges.items():
            gauge.set(now[name])
        for state in ("starting", "idle", "busy", "lost"):
            self._workers.labels(state).set(sum(worker.state == state for worker in workers))
        self._worker_memory.set(sum(worker.memory_bytes for worker in workers))
        return prometheus_client.generate_latest(self._registry).decode("utf-8")
