"""Counts, percentiles, rates, and the text for Prometheus."""

from __future__ import annotations

import itertools

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from focus_backend.serving.metrics import Metrics, percentiles
from focus_backend.serving.wire import StatusReport, WorkerReport


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _report(metrics: Metrics, *, prometheus: bool = False) -> StatusReport:
    workers = [WorkerReport(7, "busy", 3, 1000), WorkerReport(8, "lost", 0, 0)]
    return metrics.report(queued=4, running=1, clients=2, workers=workers, prometheus=prometheus)


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([]) == {}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles(float(i) for i in range(100, 0, -1)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_percentiles_are_of_the_last_requests_only() -> None:
    metrics = Metrics(_Clock())
    for _ in range(10):
        metrics.answered(99.0, 98.0)
    for _ in range(1024):
        metrics.answered(2.0, 1.0)
    report = _report(metrics)
    assert report.latency_seconds == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert report.work_seconds == {"p50": 1.0, "p95": 1.0, "p99": 1.0}
    assert report.answered == 1034


def test_rate_is_of_the_last_minute() -> None:
    clock = _Clock()
    metrics = Metrics(clock)
    for _ in range(30):
        clock.now += 0.5
        metrics.answered(1.0, 1.0)
    assert _report(metrics).requests_per_second == pytest.approx(2.0)
    clock.now += 45
    assert _report(metrics).requests_per_second == pytest.approx(0.5, abs=0.02)
    clock.now += 60
    assert _report(metrics).requests_per_second == 0.0


def test_report_tells_of_this_process() -> None:
    clock = _Clock()
    metrics = Metrics(clock)
    clock.now += 12.5
    metrics.failed("busy")
    metrics.failed("busy")
    metrics.restarted()
    report = _report(metrics)
    assert report.uptime_seconds == 12.5
    assert report.failed == {"busy": 2}
    assert (report.queued, report.running, report.clients, report.worker_restarts) == (4, 1, 2, 1)
    assert report.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert report.handles > 0
    assert report.prometheus == ""


def test_codes_that_are_none_do_not_pile_up() -> None:
    metrics = Metrics(_Clock())
    letters = "abcdefghij"
    for pair in itertools.product(letters, repeat=2):
        metrics.failed("".join(pair))
    metrics.failed('no"code\n')
    failed = _report(metrics).failed
    assert len(failed) == 65
    assert failed["other"] == 100 - 64 + 1


def test_text_for_prometheus_says_the_same() -> None:
    metrics = Metrics(_Clock())
    metrics.answered(0.3, 0.2)
    metrics.failed("photo")
    metrics.restarted()
    text = _report(metrics, prometheus=True).prometheus
    samples = {
        (sample.name, *sample.labels.values()): sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert samples["focus_requests_answered_total",] == 1
    assert samples["focus_requests_failed_total", "photo"] == 1
    assert samples["focus_worker_restarts_total",] == 1
    assert samples["focus_latency_seconds_sum",] == pytest.approx(0.3)
    assert samples["focus_latency_seconds_bucket", "0.25"] == 0
    assert samples["focus_work_seconds_bucket", "0.25"] == 1
    assert samples["focus_queued",] == 4
    assert samples["focus_workers", "busy"] == 1
    assert samples["focus_workers", "idle"] == 0
    assert samples["focus_worker_memory_bytes",] == 1000


def test_two_servers_in_a_process_do_not_share_counts() -> None:
    first, second = Metrics(_Clock()), Metrics(_Clock())
    first.answered(1.0, 1.0)
    assert "focus_requests_answered_total 0.0" in _report(second, prometheus=True).prometheus
