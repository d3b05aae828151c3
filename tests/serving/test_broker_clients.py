"""What the broker answers to clients: one rule after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from focus_backend.serving import wire
from focus_backend.serving.jobs import REMEMBERED
from serving.broker_desk import MODEL, PHOTO, SECRET, Desk, owner, remote


def _pixels(*shape: int) -> dict[str, wire.Array]:
    data = bytes(shape[0] * shape[1] * shape[2])
    return {"pixels": wire.Array("uint8", shape, data)}


def test_request_goes_to_a_worker_and_its_answer_back() -> None:
    desk = Desk()
    desk.ask(owner(), "r1", name="someone.jpg")
    desk.progress(0, desk.job(), 0.5)
    desk.finish(0, desk.job())
    assert [body.kind for body in desk.of(owner(), "r1")] == ["accepted", "progress", "result"]
    assert [is_final for _, _, is_final in desk.answers] == [False, False, True]
    assert desk.answers[-1][1].body.model == MODEL


def test_worker_gets_the_checked_request_without_the_secret() -> None:
    desk = Desk(preview_side=64, faces=2, deadline_seconds=50.0)
    options = wire.Options(method="fit", faces=9)
    desk.ask(owner(), "r1", options=options, preview_side=9999, deadline_seconds=1e9)
    message = desk.workers[0].messages[desk.job()]
    assert message.secret == ""
    assert message.id == "r1"
    assert bytes(message.arrays["photo"].data) == b"a photo"
    assert message.body == wire.Reconstruct(options=wire.Options(method="fit", faces=2), preview_side=64, deadline_seconds=50.0)


@pytest.mark.parametrize("secret", ["", "other", SECRET + "0", SECRET[:-1]])
@pytest.mark.parametrize("body", [wire.Reconstruct(), wire.Hello(), wire.Status(), wire.Shutdown(), wire.Cancel("r0"), wire.Ping()])
def test_owner_without_the_secret_is_refused_and_nothing_else_done(secret: str, body: Any) -> None:
    desk = Desk()
    desk.ask(owner(), "r0")
    desk.send(owner("b"), "r1", body, PHOTO if isinstance(body, wire.Reconstruct) else None, secret=secret)
    assert desk.code(owner("b"), "r1") == "refused"
    assert len(desk.of(owner("b"), "r1")) == 1
    assert not desk.broker.is_closing
    assert len(desk.workers[0].messages) == 1
    assert desk.workers[0].cancelled == []


def test_revoked_key_is_refused_and_its_requests_are_ended() -> None:
    desk = Desk()
    desk.ask(remote("kim"), "r1")
    desk.ask(remote("kim"), "r2")
    desk.ask(remote("ann"), "r1")
    desk.revoked.add("kim")
    desk.send(remote("kim"), "p", wire.Ping())
    desk.wait(2.5, beats=[0])
    assert [desk.code(remote("kim"), name) for name in ("p", "r1", "r2")] == ["refused"] * 3
    assert len(desk.workers[0].cancelled) == 1
    assert all(body.kind == "accepted" for body in desk.of(remote("ann"), "r1"))


def test_control_messages_are_answered_at_once_while_all_work() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.ask(owner(), "r2")
    desk.send(owner("b"), "h", wire.Hello())
    desk.send(owner("b"), "p", wire.Ping())
    desk.send(owner("b"), "s", wire.Status(prometheus=True))
    welcome = desk.last(owner("b"), "h")
    assert welcome.models == [MODEL]
    assert (welcome.methods, welcome.device, welcome.workers, welcome.workers_ready) == (["fit", "network"], "cpu", 1, 1)
    assert welcome.is_owner
    assert welcome.protocols == [1]
    assert desk.last(owner("b"), "p") == wire.Pong()
    report = desk.last(owner("b"), "s")
    assert (report.running, report.queued, report.clients) == (1, 1, 2)
    assert report.workers == [wire.WorkerReport(100, "busy", 0, 0)]
    assert "focus_queued 1.0" in report.prometheus


def test_remote_clients_see_no_processes_and_cannot_end_the_server() -> None:
    desk = Desk()
    desk.send(remote("kim"), "s", wire.Status())
    desk.send(remote("kim"), "h", wire.Hello())
    desk.send(remote("kim"), "e", wire.Shutdown())
    assert [worker.pid for worker in desk.last(remote("kim"), "s").workers] == [0]
    assert not desk.last(remote("kim"), "h").is_owner
    assert desk.code(remote("kim"), "e") == "refused"
    assert not desk.broker.is_closing


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        PHOTO | _pixels(2, 2, 3),
        PHOTO | {"other": wire.Array.of(b"x")},
        {"picture": wire.Array.of(b"x")},
        {"photo": wire.Array.of(b"")},
        {"photo": wire.Array("uint8", (1, 2), b"xy")},
        {"photo": wire.Array("float32", (1,), b"0000")},
        _pixels(2, 2, 4),
        _pixels(0, 2, 3),
        _pixels(101, 1, 3),
        _pixels(70, 70, 3),
        {"pixels": wire.Array("int32", (1, 1, 3), bytes(12))},
        {"pixels": wire.Array("uint8", (3,), bytes(3))},
    ],
)
def test_requests_without_one_good_photo_are_refused(arrays: dict[str, wire.Array]) -> None:
    desk = Desk(side=100, pixels=4096)
    desk.ask(owner(), "r1", arrays)
    assert desk.code(owner(), "r1") == "protocol"
    assert desk.workers[0].messages == {}


def test_pixels_within_the_limits_are_taken() -> None:
    desk = Desk(side=100, pixels=4096)
    desk.ask(owner(), "r1", _pixels(64, 64, 3))
    desk.finish(0, desk.job())
    assert desk.last(owner(), "r1").kind == "result"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "n" * 256}, "protocol"),
        ({"parts": ["geometry", "everything"]}, "config"),
        ({"preview_side": -1}, "config"),
        ({"deadline_seconds": 0.0}, "config"),
        ({"deadline_seconds": -1.0}, "config"),
        ({"options": wire.Options(method="magic")}, "config"),
        ({"options": wire.Options(faces=0)}, "config"),
        ({"options": wire.Options(texture_size=15)}, "config"),
        ({"options": wire.Options(texture_size=8193)}, "config"),
        ({"options": wire.Options(landmarks=wire.Landmarks({"nose": [1.0]}))}, "protocol"),
    ],
)
def test_options_out_of_range_are_refused_with_a_remedy(fields: dict[str, Any], code: str) -> None:
    desk = Desk()
    desk.ask(owner(), "r1", **fields)
    error = desk.last(owner(), "r1")
    assert error.code == code
    assert error.remedy
    assert "\n" not in error.problem + error.remedy
    assert desk.workers[0].messages == {}


def test_header_that_grows_beyond_the_limit_as_ascii_is_refused() -> None:
    desk = Desk()
    header = json.loads(bytes(wire.pack(wire.Message("r1", wire.Reconstruct(), PHOTO, SECRET))[0]))
    header["body"]["options"] = {"landmarks": {"points": {"é" * 20_000: [1.0, 2.0]}}}
    desk.broker.client_message(owner(), [json.dumps(header, ensure_ascii=False).encode(), b"a photo"])
    desk.collect()
    assert desk.code(owner(), "r1") == "protocol"


def test_parts_and_methods_are_taken_as_they_are_until_a_worker_has_told_them() -> None:
    desk = Desk(workers=0)
    desk.ask(owner(), "r1", parts=["later"], options=wire.Options(method="later"))
    assert desk.last(owner(), "r1") == wire.Accepted(0)


@pytest.mark.parametrize(
    ("frames", "message_id"),
    [
        ([], "unknown"),
        ([b""], "unknown"),
        ([b"\x80\x04pickle"], "unknown"),
        ([b"[" * 30_000], "unknown"),
        ([b'{"focus": 1, "type": "ping"}'], "unknown"),
        ([b'{"focus": 2, "type": "ping", "id": "x1"}'], "x1"),
        ([b'{"focus": 1, "type": "result", "id": "x1"}'], "x1"),
        ([b'{"focus": 1, "type": "ping", "id": "x1"}', b"frame"], "x1"),
        ([b'{"focus": 1, "type": "cancel", "id": "x1", "body": {"target": 5}}'], "x1"),
        ([b"{}"] * 9, "unknown"),
    ],
)
def test_what_is_no_message_is_refused_and_harms_nobody(frames: list[bytes], message_id: str) -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.broker.client_message(owner("b"), frames)
    desk.collect()
    assert desk.code(owner("b"), message_id) == "protocol"
    desk.finish(0, desk.job())
    assert desk.last(owner(), "r1").kind == "result"


def test_garbage_with_the_id_of_a_request_does_not_end_it() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.broker.client_message(owner(), [b'{"focus": 2, "type": "reconstruct", "id": "r1"}'])
    desk.collect()
    assert desk.code(owner(), "unknown") == "protocol"
    assert desk.of(owner(), "r1") == [wire.Accepted(0)]


def test_frames_that_are_no_bytes_are_a_fault_that_ends_nothing() -> None:
    desk = Desk()
    desk.broker.client_message(owner(), ["text"])
    desk.collect()
    assert desk.code(owner(), "unknown") == "internal"
    assert desk.events[-1] == ("fault", {"kind": "TypeError"})


def test_request_sent_twice_is_worked_on_and_answered_once() -> None:
    desk = Desk()
    desk.ask(remote("kim"), "r1")
    desk.ask(remote("kim"), "r1")
    desk.ask(remote("kim", "new connection"), "r1")
    desk.finish(0, desk.job())
    assert desk.of(remote("kim"), "r1") == [wire.Accepted(0), wire.Accepted(0)]
    assert [body.kind for body in desk.of(remote("kim", "new connection"), "r1")] == ["accepted", "result"]
    desk.ask(remote("kim"), "r1")
    assert desk.code(remote("kim"), "r1") == "duplicate"
    assert len(desk.workers[0].messages) == 1


def test_ids_belong_to_their_user() -> None:
    desk = Desk(workers=2)
    desk.ask(remote("kim"), "r1")
    desk.ask(remote("owner"), "r1")
    desk.ask(owner(), "r1")
    desk.send(remote("ann"), "c", wire.Cancel("r1"))
    assert desk.last(remote("ann"), "c") == wire.Done(found=False)
    desk.send(remote("owner"), "c", wire.Cancel("r1"))
    assert desk.code(remote("owner"), "r1") == "cancelled"
    assert [desk.last(route, "r1").kind for route in (remote("kim"), owner())] == ["accepted"] * 2


def test_only_the_last_ids_are_remembered() -> None:
    desk = Desk()
    desk.ask(owner(), "r0")
    desk.finish(0, desk.job())
    desk.ask(owner(), "r1", parts=["none"])
    # Straight into the book, for 4,096 requests take seconds.
    book = desk.broker._workshop.book
    for number in range(2, REMEMBERED + 1):
        book.remember(("owner", "owner"), f"r{number}")
    desk.answers.clear()
    desk.ask(owner(), "r1")
    assert desk.code(owner(), "r1") == "duplicate"
    desk.ask(owner(), "r0")
    assert desk.last(owner(), "r0") == wire.Accepted(0)


def test_full_queue_says_how_many_it_holds() -> None:
    desk = Desk(queue=2)
    for name in "abcd":
        desk.ask(owner(name), name)
    error = desk.last(owner("d"), "d")
    assert (error.code, error.ahead) == ("busy", 3)
    assert [desk.last(owner(name), name) for name in "abc"] == [wire.Accepted(0), wire.Accepted(0), wire.Accepted(1)]
    desk.finish(0, desk.job())
    desk.ask(owner("d"), "again")
    assert desk.last(owner("d"), "again") == wire.Accepted(1)


def test_one_party_cannot_take_all_places() -> None:
    desk = Desk(requests_in_flight=2)
    for number in range(3):
        desk.ask(remote("kim", f"connection {number}"), f"r{number}")
    assert desk.code(remote("kim", "connection 2"), "r2") == "busy"
    desk.ask(remote("ann"), "r2")
    assert desk.last(remote("ann"), "r2").kind == "accepted"


def test_bytes_of_all_requests_are_bounded() -> None:
    desk = Desk(queue_bytes=100_000)
    photo = {"photo": wire.Array.of(bytes(40_000))}
    for name in "abc":
        desk.ask(owner(name), name, photo)
    assert desk.code(owner("c"), "c") == "busy"
    desk.ask(owner("d"), "d", {"photo": wire.Array.of(bytes(100_000))})
    assert desk.code(owner("d"), "d") == "protocol"
    desk.finish(0, desk.job())
    desk.ask(owner("c"), "c2", photo)
    assert desk.last(owner("c"), "c2").kind == "accepted"


def test_large_photos_of_one_client_leave_room_for_others() -> None:
    desk = Desk(queue_bytes=400_000)
    photo = {"photo": wire.Array.of(bytes(40_000))}
    for name in ("a1", "a2", "a3"):
        desk.ask(owner("a"), name, photo)
    assert [desk.last(owner("a"), name).kind for name in ("a1", "a2")] == ["accepted", "accepted"]
    assert desk.code(owner("a"), "a3") == "busy"
    desk.ask(owner("b"), "b1", {"photo": wire.Array.of(bytes(150_000))})
    assert desk.last(owner("b"), "b1").kind == "accepted"


def test_one_user_cannot_make_the_server_forget_what_it_answered_another() -> None:
    desk = Desk()
    desk.ask(remote("anna"), "r1")
    desk.finish(0, desk.job())
    for number in range(5000):
        desk.ask(remote("bert"), f"bad{number}", {})
    desk.ask(remote("anna"), "r1")
    assert desk.code(remote("anna"), "r1") == "duplicate"


def test_an_answer_that_never_left_may_be_asked_for_again() -> None:
    desk = Desk()
    desk.ask(owner("a"), "r1")
    desk.finish(0, desk.job())
    desk.broker.undelivered(owner("a"), "r1")
    desk.ask(owner("b"), "r1")
    assert desk.last(owner("b"), "r1").kind == "accepted"


def test_cancel_answers_at_once_and_tells_the_worker() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.ask(owner(), "r2")
    job = desk.job()
    desk.send(owner(), "c1", wire.Cancel("r1"))
    desk.send(owner(), "c2", wire.Cancel("r2"))
    desk.send(owner(), "c3", wire.Cancel("r2"))
    assert [desk.code(owner(), name) for name in ("r1", "r2")] == ["cancelled"] * 2
    assert [desk.last(owner(), name).found for name in ("c1", "c2", "c3")] == [True, True, False]
    assert desk.workers[0].cancelled == [job]
    desk.ask(owner(), "r3")
    assert desk.ids_taken() == [["r1"]]
    desk.progress(0, job, 0.9)
    desk.finish(0, job, wire.Error("cancelled", "the request was cancelled"))
    assert desk.ids_taken() == [["r1"], ["r3"]]
    assert [body.kind for body in desk.of(owner(), "r1")] == ["accepted", "error"]


def test_late_result_of_a_cancelled_request_is_dropped() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.send(owner(), "c1", wire.Cancel("r1"))
    desk.finish(0, desk.job())
    assert [body.kind for body in desk.of(owner(), "r1")] == ["accepted", "error"]
    desk.wait(5, beats=[0])
    assert desk.to_replace == []


@pytest.mark.parametrize("is_running", [True, False])
def test_deadline_ends_a_request_wherever_it_is(is_running: bool) -> None:
    desk = Desk()
    if not is_running:
        desk.ask(owner("b"), "other")
    desk.ask(owner(), "r1", deadline_seconds=3.0)
    desk.wait(2.9, 0.05, beats=[0])
    assert desk.last(owner(), "r1").kind == "accepted"
    desk.wait(0.2, 0.05, beats=[0])
    assert desk.code(owner(), "r1") == "deadline"
    assert len(desk.workers[0].cancelled) == is_running


def test_deadline_is_the_servers_longest_when_none_is_given() -> None:
    desk = Desk(deadline_seconds=5.0)
    desk.ask(owner(), "r1")
    desk.wait(6, beats=[0])
    assert desk.code(owner(), "r1") == "deadline"


def test_requests_of_a_client_that_went_away_are_given_up() -> None:
    desk = Desk()
    desk.ask(owner("b"), "r1")
    desk.ask(owner("b"), "r2")
    desk.ask(owner("a"), "r3")
    job = desk.job()
    desk.broker.client_gone(owner("b"))
    desk.collect()
    assert desk.workers[0].cancelled == [job]
    desk.finish(0, job)
    assert desk.ids_taken() == [["r1"], ["r3"]]
    assert [body.kind for body in desk.of(owner("b"), "r1") + desk.of(owner("b"), "r2")] == ["accepted"] * 2
    desk.ask(owner("c"), "r2")
    assert desk.last(owner("c"), "r2").kind == "accepted"


def test_request_stays_when_its_client_came_back_before_the_old_connection_was_found_dead() -> None:
    desk = Desk()
    desk.ask(owner("old"), "r1")
    desk.ask(owner("new"), "r1")
    desk.broker.client_gone(owner("old"))
    desk.finish(0, desk.job())
    assert desk.last(owner("new"), "r1").kind == "result"


def test_waiting_clients_hear_their_place_and_running_ones_their_stage() -> None:
    desk = Desk()
    desk.ask(owner("a"), "r1")
    desk.ask(owner("b"), "r2")
    desk.ask(owner("c"), "r3")
    desk.answers.clear()
    desk.wait(2, beats=[0])
    assert desk.of(owner("a"), "r1") == [wire.Accepted(0)]
    assert (desk.of(owner("b"), "r2"), desk.of(owner("c"), "r3")) == ([wire.Accepted(0)], [wire.Accepted(1)])
    desk.progress(0, desk.job(), 0.25, "landmarks")
    desk.answers.clear()
    desk.wait(2, beats=[0])
    assert desk.of(owner("a"), "r1") == [wire.Progress("landmarks", 0.25)]


def test_progress_never_goes_back_nor_to_those_who_do_not_want_it() -> None:
    desk = Desk(workers=2)
    desk.ask(owner(), "r1")
    desk.ask(owner(), "r2", progress=False)
    first, second = desk.job(0), desk.job(1)
    for fraction in (0.2, 0.5, 0.4, 0.5, 1.5, 0.9):
        desk.progress(0, first, fraction)
    desk.progress(1, second, 0.5)
    desk.wait(2, beats=[0, 1])
    assert [body.fraction for body in desk.of(owner(), "r1") if body.kind == "progress"] == [0.2, 0.5, 0.5, 0.9, 0.9]
    assert {body.kind for body in desk.of(owner(), "r2")} == {"accepted"}


def test_closing_ends_what_waits_and_lets_go_on_what_runs() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.ask(owner(), "r2")
    desk.send(owner(), "e", wire.Shutdown(grace_seconds=5.0))
    assert desk.last(owner(), "e") == wire.Done()
    assert desk.code(owner(), "r2") == "closing"
    assert desk.broker.is_closing
    assert not desk.broker.is_finished
    desk.ask(owner(), "r3")
    assert desk.code(owner(), "r3") == "closing"
    desk.wait(4, beats=[0])
    desk.finish(0, desk.job())
    assert desk.last(owner(), "r1").kind == "result"
    assert desk.broker.is_finished


def test_grace_is_not_endless_and_a_second_call_shortens_it() -> None:
    desk = Desk()
    desk.ask(owner(), "r1")
    desk.broker.close(100.0)
    desk.broker.close(3.0)
    desk.broker.close(50.0)
    desk.wait(2.5, 0.5, beats=[0])
    assert not desk.broker.is_finished
    desk.wait(1, 0.5, beats=[0])
    assert desk.code(owner(), "r1") == "closing"
    assert desk.workers[0].cancelled == [desk.job()]
    assert desk.broker.is_finished


def test_log_and_status_hold_nothing_that_clients_sent() -> None:
    desk = Desk()
    desk.ask(owner(), "private-id", {"photo": wire.Array.of(b"private photo")}, name="private-name.jpg")
    desk.ask(owner(), "private-id-2", parts=["private-part"])
    desk.finish(0, desk.job(), wire.Error("photo", "private-problem"))
    desk.send(owner(), "s", wire.Status(prometheus=True))
    shown = repr(desk.events) + repr(desk.last(owner(), "s"))
    assert "private" not in shown
    assert SECRET not in shown
    assert desk.last(owner(), "s").failed == {"config": 1, "photo": 1}


def test_connections_are_counted_while_they_are_heard_of() -> None:
    desk = Desk()
    for name in "abc":
        desk.send(owner(name), "p", wire.Ping())
    desk.send(owner("d"), "p", wire.Ping(), secret="wrong")
    desk.broker.client_gone(owner("c"))
    desk.wait(29, beats=[0])
    desk.send(owner("a"), "s", wire.Status())
    assert desk.last(owner("a"), "s").clients == 2
    desk.wait(10, beats=[0])
    desk.send(owner("a"), "s", wire.Status())
    assert desk.last(owner("a"), "s").clients == 1
