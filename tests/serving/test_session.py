"""The client's side of the protocol without sockets, by a clock that the tests turn."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest

from focus_backend import errors
from focus_backend.errors import (
    BusyError,
    CancelledError,
    ConfigError,
    ConnectionLostError,
    DeadlineError,
    FocusError,
    NoFaceError,
    PhotoError,
    ProtocolError,
    RefusedError,
    ServerError,
)
from focus_backend.serving import wire
from focus_backend.serving.session import PING_SECONDS, Finished, Session, Update, error_of
from serving.scripted_server import packed, result, welcome

PHOTO = {"photo": wire.Array("uint8", (3,), b"abc")}


class Bench:
    """A session with a clock of its own, and what it has sent."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.now = 100.0
        self.session = Session("tcp://127.0.0.1:1", "ab" * 32, timeout, clock=lambda: self.now)

    def sent(self) -> list[wire.Message]:
        """What it wants to send since the last look."""
        return [wire.unpack(frames, wire.REQUESTS) for frames in self.session.take_outgoing()]

    def greet(self, **limits: Any) -> Bench:
        """The server's answer to the hello."""
        (hello,) = self.sent()
        self.session.receive(packed(hello, welcome(**limits)))
        return self

    def answer(self, request_id: str, body: Any, arrays: dict[str, wire.Array] | None = None) -> None:
        """A message of the server."""
        self.session.receive(wire.pack(wire.Message(request_id, body, arrays or {})))

    def wait(self, seconds: float) -> list[wire.Message]:
        """Time passes in steps, as the socket's thread takes them; what was sent meanwhile."""
        sent = []
        end = self.now + seconds
        while self.now < end:
            self.now += min(0.5, end - self.now)
            self.session.tick()
            sent += self.sent()
        return sent

    def outcomes(self) -> dict[str, Any]:
        """How requests ended since the last look."""
        return {event.id: event.outcome for event in self.session.take_events() if isinstance(event, Finished)}


def test_first_message_is_a_hello_with_the_secret():
    (hello,) = Bench().sent()
    assert hello.body == wire.Hello()
    assert hello.secret == "ab" * 32


def test_requests_wait_for_the_welcome_and_keep_their_order():
    bench = Bench()
    (hello,) = bench.sent()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.session.submit("b", wire.Status())
    assert bench.sent() == []
    bench.session.receive(packed(hello, welcome()))
    assert [message.id for message in bench.sent()] == ["a", "b"]


def test_answers_become_events_in_order():
    bench = Bench().greet()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    preview = wire.Array("uint8", (1, 1, 3), b"rgb")
    bench.answer("a", wire.Accepted(2))
    bench.answer("a", wire.Accepted(2))
    bench.answer("a", wire.Accepted(0))
    bench.answer("a", wire.Progress("fit", 0.5), {"preview": preview})
    bench.answer("a", wire.Progress("fit", 0.5))
    bench.answer("a", wire.Accepted(0))
    bench.answer("a", result())
    events = bench.session.take_events()
    assert events[:3] == [Update("a", "waiting, 2 ahead", 0.0), Update("a", "waiting", 0.0), Update("a", "fit", 0.5, events[2].preview)]
    assert bytes(events[2].preview.data) == b"rgb"
    assert [event.id for event in events[3:]] == ["a"]
    assert events[3].outcome.body == result()


def test_duplicate_finals_and_strangers_are_ignored():
    bench = Bench().greet()
    bench.session.submit("a", wire.Status())
    bench.answer("nobody", result())
    bench.answer("a", wire.Error("busy", "full"))
    bench.answer("a", wire.Error("busy", "full"))
    assert isinstance(bench.outcomes()["a"], BusyError)
    assert bench.outcomes() == {}
    assert bench.session.failure is None


def test_an_answer_of_the_wrong_kind_ends_its_request_only():
    bench = Bench().greet()
    bench.session.submit("a", wire.Status())
    bench.session.submit("b", wire.Status())
    bench.answer("a", wire.Progress("fit", 0.5))
    bench.answer("a", result())
    outcomes = bench.outcomes()
    assert list(outcomes) == ["a"]
    assert isinstance(outcomes["a"], ProtocolError)
    assert "answered a status with a result" in str(outcomes["a"])


@pytest.mark.parametrize("frames", [[b"garbage"], [b""], [], [b"{}"], [b"\xff" * 100, b"x"]])
def test_garbage_ends_everything_with_a_line(frames: list[bytes]):
    bench = Bench().greet()
    bench.session.submit("a", wire.Status())
    bench.session.receive(frames)
    error = bench.outcomes()["a"]
    assert isinstance(error, ProtocolError)
    assert "cannot be read" in error.problem
    assert bench.session.failure is not None


def test_a_malformed_answer_with_an_id_ends_that_request_only():
    bench = Bench().greet()
    bench.session.submit("a", wire.Status())
    bench.session.submit("b", wire.Status())
    header = {"focus": 1, "type": "status-report", "id": "a", "body": {"uptime_seconds": "long"}}
    bench.session.receive([json.dumps(header).encode()])
    assert list(bench.outcomes()) == ["a"]
    assert bench.session.failure is None


def test_another_version_is_said_so():
    bench = Bench()
    (hello,) = bench.sent()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    header = {"focus": 7, "type": "welcome", "id": hello.id, "body": {}}
    bench.session.receive([json.dumps(header).encode()])
    error = bench.outcomes()["a"]
    assert isinstance(error, ProtocolError)
    assert "version" in error.problem
    assert "7" in error.problem
    assert "same FOCUS version" in error.remedy


def test_refusal_of_the_hello_ends_everything():
    bench = Bench()
    (hello,) = bench.sent()
    bench.session.submit("a", wire.Status())
    bench.session.receive(packed(hello, wire.Error("refused", "wrong secret", "read the ready file again")))
    bench.session.submit("b", wire.Status())
    outcomes = bench.outcomes()
    assert isinstance(outcomes["a"], RefusedError)
    assert isinstance(outcomes["b"], RefusedError)
    assert outcomes["a"] is not outcomes["b"]


def test_an_error_without_an_id_leaves_nobody_waiting():
    bench = Bench().greet()
    bench.session.submit("a", wire.Status())
    bench.answer("unknown", wire.Error("protocol", "the header is not JSON"))
    assert isinstance(bench.outcomes()["a"], ProtocolError)


def test_pings_only_while_something_is_under_way():
    bench = Bench().greet()
    assert bench.wait(60) == []
    assert bench.session.seconds_to_tick() is None
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.sent()
    assert bench.wait(PING_SECONDS - 0.5) == []
    (ping,) = bench.wait(0.5)
    assert ping.body == wire.Ping()
    assert bench.wait(PING_SECONDS) == []
    bench.answer(ping.id, wire.Pong())
    assert [message.body for message in bench.wait(PING_SECONDS)] == [wire.Ping()]


def test_silence_is_loss_and_an_idle_hour_is_not():
    bench = Bench(timeout=10).greet()
    bench.wait(3600)
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.wait(10)
    assert bench.outcomes() == {}
    bench.wait(0.5)
    error = bench.outcomes()["a"]
    assert isinstance(error, ConnectionLostError)
    assert "10 s" in error.problem
    assert bench.session.failure is not None


def test_any_message_is_a_sign_of_life():
    bench = Bench(timeout=10).greet()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    for _ in range(10):
        bench.wait(9)
        bench.answer("a", wire.Accepted(1))
    assert bench.outcomes() == {}


def test_no_answer_to_the_hello_names_the_address():
    bench = Bench(timeout=3)
    bench.session.submit("a", wire.Status())
    bench.wait(3.5)
    assert bench.outcomes()["a"].problem == "no server answers at tcp://127.0.0.1:1"


def test_a_sleep_of_the_machine_is_not_blamed_on_the_server():
    bench = Bench(timeout=10).greet()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.wait(1)
    bench.now += 3000
    bench.session.tick()
    assert bench.outcomes() == {}
    bench.wait(10.5)
    assert isinstance(bench.outcomes()["a"], ConnectionLostError)


def test_cancel_ends_at_once_and_tells_the_server():
    bench = Bench().greet()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.sent()
    bench.session.cancel("a")
    (cancel,) = bench.sent()
    assert cancel.body == wire.Cancel("a")
    assert isinstance(bench.outcomes()["a"], CancelledError)
    bench.session.cancel("a")
    bench.answer(cancel.id, wire.Done())
    bench.answer("a", wire.Error("cancelled", "cancelled"))
    assert bench.sent() == []
    assert bench.outcomes() == {}
    assert not bench.session.is_waiting


def test_cancel_before_the_welcome_sends_nothing():
    bench = Bench()
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    bench.session.cancel("a")
    bench.greet()
    assert bench.sent() == []


def test_a_request_the_server_forgot_ends_after_its_deadline():
    bench = Bench(timeout=10).greet(deadline_seconds=30)
    bench.session.submit("short", wire.Reconstruct(deadline_seconds=5), PHOTO)
    bench.session.submit("long", wire.Reconstruct(deadline_seconds=500), PHOTO)
    bench.session.submit("status", wire.Status())

    def live(seconds: float) -> dict[str, Any]:
        for _ in range(int(seconds)):
            for message in bench.wait(1):
                if isinstance(message.body, wire.Ping):
                    bench.answer(message.id, wire.Pong())
        return bench.outcomes()

    outcomes = live(18)
    assert isinstance(outcomes["short"], DeadlineError)
    assert isinstance(outcomes["status"], ServerError)
    assert len(outcomes) == 2
    assert isinstance(live(25)["long"], DeadlineError)


def pixels(height: int, width: int) -> dict[str, wire.Array]:
    return {"pixels": wire.Array("uint8", (height, width, 3), bytes(height * width * 3))}


@pytest.mark.parametrize(
    ("limits", "request_body", "arrays", "kind", "words"),
    [
        ({"frame_bytes": 1024}, wire.Reconstruct("a.jpg"), {"photo": wire.Array("uint8", (1025,), bytes(1025))}, PhotoError, "a.jpg has"),
        ({"side": 64}, wire.Reconstruct(), pixels(1, 65), PhotoError, "65 x 1 pixels"),
        ({"pixels": 4096}, wire.Reconstruct(), pixels(65, 64), PhotoError, "megapixels"),
        ({"texture_size": 64}, wire.Reconstruct(options=wire.Options(texture_size=65)), PHOTO, ConfigError, "texture of 65"),
        ({}, wire.Reconstruct(name="n" * 2**20), PHOTO, ProtocolError, "options have"),
        ({}, wire.Reconstruct(options=wire.Options(landmarks=wire.Landmarks({"nose": [float("nan"), 0]}))), PHOTO, ProtocolError, "sent"),
    ],
)
def test_limits_are_checked_before_sending(limits: dict, request_body: Any, arrays: dict, kind: type, words: str):
    bench = Bench().greet(**limits)
    bench.session.submit("a", request_body, arrays)
    error = bench.outcomes()["a"]
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)
    assert bench.sent() == []
    assert bench.session.failure is None


def test_what_is_just_within_the_limits_is_sent():
    bench = Bench().greet(frame_bytes=64 * 64 * 3, side=64, pixels=4096, preview_side=16)
    bench.session.submit("a", wire.Reconstruct(preview_side=100), pixels(64, 64))
    (sent,) = bench.sent()
    assert sent.body.preview_side == 16
    assert sent.arrays["pixels"].shape == (64, 64, 3)


def test_every_code_becomes_its_error():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FocusError)]
    assert len(kinds) > 20
    for kind in kinds:
        assert type(error_of(wire.Error(kind.code, "what", "how"))) is kind
    error = error_of(wire.Error("no-face", "no face in it", "another"))
    assert isinstance(error, NoFaceError)
    assert (error.problem, error.remedy) == ("no face in it", "another")
    assert type(error_of(wire.Error("of-the-future", "what"))) is ServerError


def test_events_do_not_share_memory_with_what_is_sent_later():
    bench = Bench().greet()
    data = array("f", [1.0, 2.0])
    bench.session.submit("a", wire.Reconstruct(), PHOTO)
    frames = wire.pack(wire.Message("a", result(), {"face0/neutral": wire.Array.of(data)}))
    bench.session.receive(frames)
    message = bench.outcomes()["a"]
    assert message.arrays["face0/neutral"].data.obj is data


@pytest.mark.parametrize(("field", "value"), [("options", None), ("deadline_seconds", "5"), ("parts", {1}), ("preview_side", None)])
def test_a_caller_s_wrong_types_cost_no_other_request(field, value):
    body = wire.Reconstruct()
    # Past the checks that only tests have.
    object.__setattr__(body, field, value)
    bench = Bench().greet()
    bench.session.submit("good", wire.Reconstruct(), PHOTO)
    bench.session.submit("bad", body, PHOTO)
    bench.answer("good", result())
    ended = {event.id: event.outcome for event in bench.session.take_events() if isinstance(event, Finished)}
    assert isinstance(ended["good"], wire.Message)
    assert isinstance(ended["bad"], FocusError)
    assert bench.session.failure is None


def test_after_a_standstill_a_silent_server_is_noticed_as_soon_as_ever():
    bench = Bench().greet()
    bench.session.submit("r1", wire.Reconstruct(), PHOTO)
    bench.now += 3600
    bench.answer("r1", wire.Accepted(0))
    bench.session.tick()
    bench.wait(12)
    assert isinstance(bench.session.failure, ConnectionLostError)


def test_a_server_s_words_are_fit_for_a_terminal():
    error = error_of(wire.Error("photo", "bad\x1b]0;title\x07\nerror: forged", "\ud83d"))
    assert error.problem == "bad?]0;title? error: forged"
    assert error.remedy == "?"


def test_an_unknown_code_is_kept():
    error = error_of(wire.Error("tired", "no", ""))
    assert (type(error), error.code, ServerError.code) == (ServerError, "tired", "server")
