"""Turns between parties, and batches."""

from __future__ import annotations

import itertools

import pytest

from focus_backend.serving.jobs import Job
from focus_backend.serving.outbox import Route
from focus_backend.serving.parties import party_of, user_of
from focus_backend.serving.schedule import Schedule
from focus_backend.serving.wire import Options, Reconstruct

_numbers = itertools.count(1)


def _job(party: str, method: str | None = None, misfit: bool = True) -> Job:
    route = Route("remote", b"connection", party, 1)
    request = Reconstruct(options=Options(method=method, misfit=misfit))
    number = next(_numbers)
    return Job(number, user_of(route), party_of(route), route, f"{party}{number}", request, [b""], 0, 0.0, 1.0)


def _add(schedule: Schedule, *jobs: Job) -> list[Job]:
    for job in jobs:
        schedule.add(job)
    return list(jobs)


def _parties(jobs: list[Job]) -> str:
    return "".join(job.party[1] for job in jobs)


def test_parties_take_turns_however_much_one_sends() -> None:
    schedule = Schedule(100)
    _add(schedule, *[_job("a") for _ in range(5)], _job("b"), _job("b"), _job("c"))
    expected = list(schedule.in_order())
    taken = [schedule.take(1)[0] for _ in range(8)]
    assert _parties(taken) == "abcabaaa"
    assert taken == expected
    assert schedule.take(1) == []


def test_late_party_waits_for_one_job_of_a_flood() -> None:
    schedule = Schedule(100)
    _add(schedule, *[_job("a") for _ in range(50)])
    schedule.take(1)
    (late,) = _add(schedule, _job("b"))
    assert schedule.ahead_of(late) == 1
    assert [schedule.take(1)[0].party[1] for _ in range(2)] == ["a", "b"]


def test_places_count_down_as_jobs_are_taken() -> None:
    schedule = Schedule(100)
    jobs = _add(schedule, *[_job("a") for _ in range(3)], _job("b"))
    assert [schedule.ahead_of(job) for job in jobs] == [0, 2, 3, 1]
    schedule.take(1)
    assert [schedule.ahead_of(job) for job in jobs[1:]] == [1, 2, 0]


def test_lost_jobs_come_first_and_alone() -> None:
    schedule = Schedule(2)
    _add(schedule, _job("a"), _job("a"))
    again = [_job("b"), _job("b")]
    for job in reversed(again):
        schedule.add_first(job)
    assert len(schedule) == 4
    assert [schedule.take(8) for _ in range(2)] == [[again[0]], [again[1]]]
    assert len(schedule.take(8)) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_batches_are_as_large_as_asked_and_fair(count: int) -> None:
    schedule = Schedule(100)
    _add(schedule, *[_job("a") for _ in range(4)], _job("b"), _job("b"))
    assert _parties(schedule.take(count)) == "ababaa"[:count]


def test_batches_hold_what_can_be_done_together_and_the_passed_over_are_next() -> None:
    schedule = Schedule(100)
    _add(schedule, _job("a", "fit"), _job("a", "fit"), _job("b", "network"), _job("c", "fit"), _job("d", "fit", misfit=False))
    assert _parties(schedule.take(8)) == "aca"
    assert _parties(schedule.take(8)) == "b"
    assert _parties(schedule.take(8)) == "d"


def test_a_batch_does_not_change_the_order_within_a_party() -> None:
    schedule = Schedule(100)
    first, other, third = _add(schedule, _job("a", "fit"), _job("a", "network"), _job("a", "fit"))
    assert [schedule.take(8) for _ in range(3)] == [[first], [other], [third]]


def test_removed_jobs_leave_no_trace() -> None:
    schedule = Schedule(2)
    waiting, other = _add(schedule, _job("a"), _job("b"))
    again = _job("c")
    schedule.add_first(again)
    assert schedule.is_full
    for job in (waiting, again, other):
        schedule.remove(job)
    assert len(schedule) == 0
    assert schedule.take(1) == []
