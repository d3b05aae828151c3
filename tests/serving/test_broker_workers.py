"""What the broker does about workers: batches, deaths, hung work, restarts."""

from __future__ import annotations

import pytest

from focus_backend.serving import wire
from serving.broker_desk import Desk, owner, remote


def _restart(desk: Desk, number: int = 0) -> None:
    desk.start(number)
    desk.ready(number)


def test_requests_wait_while_no_worker_is_ready() -> None:
    desk = Desk(workers=0)
    desk.start(0)
    desk.ask(owner(), "r1")
    desk.send(owner(), "h", wire.Hello())
    assert (desk.last(owner(), "h").workers, desk.last(owner(), "h").workers_ready) == (1, 0)
    assert desk.workers[0].taken == []
    desk.ready(0)
    assert desk.ids_taken() == [["r1"]]


def test_idle_worker_gets_a_batch_of_what_goes_together() -> None:
    desk = Desk(batch=4)
    desk.ask(owner("z"), "first")
    for name, method in (("a1", "fit"), ("a2", "fit"), ("b1", "network"), ("c1", "fit")):
        desk.ask(owner(name[0]), name, options=wire.Options(method=method))
    assert desk.ids_taken() == [["first"]]
    desk.finish(0, desk.job())
    assert desk.ids_taken() == [["first"], ["a1", "c1", "a2"]]
    batch = desk.workers[0].taken[-1]
    for job in batch[::-1]:
        assert len(desk.workers[0].taken) == 2
        desk.finish(0, job)
    assert desk.ids_taken()[-1] == ["b1"]


def test_work_is_spread_over_workers_one_each() -> None:
    desk = Desk(workers=3)
    for number in range(4):
        desk.ask(owner(), f"r{number}")
    assert [desk.ids_taken(number) for number in range(3)] == [[["r0"]], [["r1"]], [["r2"]]]


def test_request_of_a_dead_worker_is_tried_once_more_and_the_client_told() -> None:
    desk = Desk()
    desk.ask(owner("a"), "r1")
    desk.ask(owner("b"), "r2")
    desk.progress(0, desk.job(), 0.75)
    desk.lose(0)
    assert desk.last(owner("a"), "r1") == wire.Progress("starting again", 0.0)
    _restart(desk)
    assert desk.ids_taken() == [["r1"]]
    desk.progress(0, desk.job(), 0.25)
    assert desk.last(owner("a"), "r1") == wire.Progress("fit", 0.25)
    desk.finish(0, desk.job())
    assert desk.last(owner("a"), "r1").kind == "result"
    assert desk.ids_taken() == [["r1"], ["r2"]]


def test_second_death_is_answered() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    desk.lose(0)
    assert desk.ids_taken(1) == [["r1"]]
    desk.lose(1)
    assert desk.code(owner(), "r1") == "worker-lost"
    desk.ask(owner(), "s", {}, parts=[])
    _restart(desk)
    assert desk.ids_taken(0) == []
    desk.send(owner(), "status", wire.Status())
    assert desk.last(owner(), "status").worker_restarts == 2


def test_batch_of_a_dead_worker_is_tried_again_one_by_one_in_order() -> None:
    desk = Desk(batch=8, workers=0)
    for name in "abc":
        desk.ask(owner(name), name)
    _restart(desk)
    assert desk.ids_taken() == [["a", "b", "c"]]
    desk.finish(0, desk.workers[0].taken[-1][1])
    desk.lose(0)
    desk.ask(owner("d"), "d")
    _restart(desk)
    assert desk.ids_taken() == [["a"]]
    desk.lose(0)
    _restart(desk)
    assert desk.ids_taken() == [["c"]]
    desk.finish(0, desk.job())
    assert desk.ids_taken() == [["c"], ["d"]]
    assert desk.code(owner("a"), "a") == "worker-lost"


def test_late_words_of_a_lost_worker_are_not_heard() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    job = desk.job(0)
    desk.lose(0)
    desk.finish(0, job)
    desk.ready(0)
    desk.ask(owner(), "r2")
    assert desk.ids_taken(0) == [["r1"]]
    assert desk.of(owner(), "r1")[-1] == wire.Progress("starting again", 0.0)
    desk.finish(1, job)
    assert desk.last(owner(), "r1").kind == "result"
    desk.tell(1, b"result", b"%d" % job, b"again")
    assert [body.kind for body in desk.of(owner(), "r1")].count("result") == 1


def test_worker_that_does_not_stop_cancelled_work_is_replaced() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.send(owner(), "c", wire.Cancel("r1"))
    desk.wait(4.9, 0.1, beats=[0])
    assert desk.to_replace == []
    desk.wait(2, 0.1, beats=[0])
    assert desk.to_replace == [0]
    desk.ask(owner(), "r2")
    assert desk.ids_taken() == [["r1"]]
    desk.lose(0)
    _restart(desk)
    assert desk.ids_taken() == [["r2"]]


def test_worker_is_not_replaced_while_others_want_the_rest_of_its_batch() -> None:
    desk = Desk(batch=2, workers=0)
    desk.ask(owner("a"), "a")
    desk.ask(owner("b"), "b")
    _restart(desk)
    first, second = desk.workers[0].taken[-1]
    desk.send(owner("a"), "c", wire.Cancel("a"))
    desk.wait(10, beats=[0])
    assert desk.to_replace == []
    desk.finish(0, second)
    desk.wait(3, beats=[0])
    assert desk.last(owner("b"), "b").kind == "result"
    assert desk.workers[0].cancelled == [first]


def test_worker_that_never_ends_a_cancelled_job_of_a_batch_is_replaced() -> None:
    desk = Desk(batch=2, workers=0)
    desk.ask(owner("a"), "a")
    desk.ask(owner("b"), "b")
    _restart(desk)
    desk.send(owner("a"), "c", wire.Cancel("a"))
    desk.finish(0, desk.workers[0].taken[-1][1])
    desk.wait(6, 0.5, beats=[0])
    assert desk.to_replace == [0]


def test_hung_work_is_answered_without_another_try() -> None:
    desk = Desk(work_seconds=20.0)
    desk.ask(owner(), "r1")
    desk.wait(19, beats=[0])
    assert desk.to_replace == []
    desk.wait(3, beats=[0])
    assert desk.to_replace == [0]
    assert desk.code(owner(), "r1") == "worker-lost"
    desk.lose(0)
    _restart(desk)
    assert desk.ids_taken() == []


def test_company_of_hung_work_is_tried_alone() -> None:
    desk = Desk(batch=2, workers=0, work_seconds=20.0)
    desk.ask(owner("a"), "a")
    desk.ask(owner("b"), "b")
    _restart(desk)
    desk.wait(22, beats=[0])
    desk.lose(0)
    _restart(desk)
    assert desk.ids_taken() == [["a"]]
    desk.finish(0, desk.job())
    assert desk.ids_taken() == [["a"], ["b"]]


def test_silent_worker_is_replaced_and_its_request_tried_again() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    desk.wait(29, beats=[1])
    assert desk.to_replace == []
    desk.wait(3, beats=[1])
    assert desk.to_replace == [0]
    assert desk.ids_taken(1) == [["r1"]]


def test_worker_that_does_not_get_ready_is_replaced() -> None:
    desk = Desk(workers=0)
    desk.start(0)
    desk.wait(602, 2.0)
    assert desk.to_replace == [0]


def test_standstill_of_the_server_is_not_held_against_workers() -> None:
    desk = Desk(workers=2, work_seconds=20.0)
    desk.ask(owner(), "r1")
    desk.ask(owner(), "r2")
    desk.send(owner(), "c", wire.Cancel("r2"))
    desk.wait(500, 500.0)
    desk.finish(0, desk.job(0))
    assert desk.to_replace == []
    assert desk.last(owner(), "r1").kind == "result"


def test_early_deaths_wait_longer_and_longer() -> None:
    # Of the second worker: where none ever came up the server ends.
    desk = Desk(workers=1)
    desk.start(1)
    desk.ready(1)
    delays = []
    for _ in range(11):
        desk.start(0)
        desk.now += 5
        desk.lose(0)
        delays.append(desk.broker.restart_delay(0))
        desk.now += delays[-1]
    assert delays == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    _restart(desk)
    desk.lose(0)
    assert desk.broker.restart_delay(0) == 0
    assert desk.broker.restart_delay(7) == 0


def test_server_ends_when_its_first_workers_die_while_they_load() -> None:
    desk = Desk(workers=0)
    for _ in range(3):
        assert desk.broker.failure is None
        desk.start(0)
        desk.lose(0)
    assert desk.broker.failure is not None
    assert desk.broker.failure.code == "internal"
    assert desk.broker.is_finished


def test_seldom_deaths_are_followed_by_a_start_at_once() -> None:
    desk = Desk(workers=1)
    for _ in range(10):
        desk.start(0)
        desk.now += 31
        desk.lose(0)
        assert desk.broker.restart_delay(0) == 0


def test_first_failure_to_load_ends_the_server_with_its_reason() -> None:
    desk = Desk(workers=0)
    desk.start(0)
    desk.ask(owner(), "r1")
    desk.tell(0, b"failed", b'{"code": "weights", "problem": "there are none", "remedy": "train some"}')
    assert desk.broker.failure == wire.Error("weights", "there are none", "train some")
    assert desk.code(owner(), "r1") == "closing"
    assert desk.broker.is_finished


def test_later_failure_to_load_does_not_end_the_server() -> None:
    desk = Desk(workers=2)
    desk.lose(1)
    desk.start(1)
    desk.tell(1, b"failed", b'{"code": "memory", "problem": "none left", "remedy": ""}')
    desk.lose(1)
    assert desk.broker.failure is None
    assert not desk.broker.is_closing


def test_beats_are_shown_in_the_status() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    desk.tell(0, b"beat", b'{"memory_bytes": 123}')
    desk.finish(0, desk.job())
    desk.lose(1)
    desk.send(owner(), "s", wire.Status())
    assert desk.last(owner(), "s").workers == [wire.WorkerReport(100, "idle", 1, 123), wire.WorkerReport(101, "lost", 0, 0)]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"nonsense"],
        [b"beat"],
        [b"beat", b"[]"],
        [b"ready", b"{"],
        [b"ready", b"{}"],
        [b"failed"],
        [b"progress", b"x", b"{}"],
        [b"progress", b"1", b"{}"],
        [b"result", b"99", b"{}"],
        [b"result"],
        [b"error", b"\xff"],
    ],
)
def test_malformed_words_of_a_worker_change_nothing(frames: list[bytes]) -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.tell(0, *frames)
    assert desk.events[-1][0] == "worker-message-malformed"
    desk.finish(0, desk.job())
    assert desk.last(owner(), "r1").kind == "result"


@pytest.mark.parametrize("frames", [[b"result"], [b"error"], [b"error", b"{}"]])
def test_answers_that_are_none_are_errors_of_ours(frames: list[bytes]) -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.tell(0, frames[0], b"%d" % desk.job(), *frames[1:])
    assert desk.code(owner(), "r1") == "internal"


def test_error_of_a_worker_that_could_not_read_the_id_reaches_the_client() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    refusal = wire.pack(wire.Message("unknown", wire.Error("protocol", "it cannot be read", "send another")))
    desk.tell(0, b"error", b"%d" % desk.job(), *refusal)
    assert desk.last(owner(), "r1") == wire.Error("protocol", "it cannot be read", "send another")


def test_death_while_closing_is_answered_and_not_tried_again() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    desk.broker.close(10.0)
    desk.lose(0)
    assert desk.code(owner(), "r1") == "closing"
    assert desk.broker.is_finished


def test_flood_of_one_party_does_not_hold_up_another() -> None:
    desk = Desk(requests_in_flight=30)
    for number in range(20):
        desk.ask(remote("flood", str(number % 3)), f"f{number}")
    for number in range(3):
        desk.ask(remote("kim"), f"k{number}")
        desk.finish(0, desk.job())
        desk.finish(0, desk.job())
        desk.finish(0, desk.job())
        assert desk.last(remote("kim"), f"k{number}").kind == "result"
    assert desk.ids_taken()[:7] == [["f0"], ["f1"], ["k0"], ["f2"], ["f3"], ["k1"], ["f4"]]
