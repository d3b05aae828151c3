"""The exact bytes of every message, which clients in other languages rely on: files in vectors/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from focus_backend.serving.wire import (
    ANSWER_LIMITS,
    ANSWERS,
    REQUESTS,
    Accepted,
    Array,
    Cancel,
    Done,
    Error,
    Face,
    Hello,
    Landmarks,
    Limits,
    Message,
    ModelInfo,
    Options,
    Ping,
    Pong,
    Progress,
    Reconstruct,
    Result,
    Shutdown,
    Status,
    StatusReport,
    Welcome,
    WireError,
    WorkerReport,
    pack,
    unpack,
)

VECTORS = Path(__file__).parent / "vectors"
SECRET = "5f" * 32
ANNY = ModelInfo("anny", "ab" * 32, 4, ["jawOpen", "mouthSmileLeft"])
LIMITS = Limits(65536, 8, 67108864, 67174400, 64000000, 16384, 16, 16, 64, 536870912, 600.0, 256, 8192)
# One dark red and one white pixel; a whole PNG file of one grey pixel.
PIXELS = Array("uint8", (1, 2, 3), bytes([128, 0, 0, 255, 255, 255]))
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
OPTIONS = Options("refine", False, 1, 512, Landmarks({"right_eye": [212.0, 180.5], "left_eye": [271.5, 181.0]}))
TRIANGLE = Array(
    "float32",
    (4, 3),
    b"".join(
        bytes.fromhex(h)
        for h in ("000000000000803f0000803f", "0000803f0000004000004040", "0000c0bf0000000000000000", "000080bf0000000000000000")
    ),
)
# The message of every vector that `pack` writes byte for byte.
MESSAGES = {
    "hello": Message("c1-1", Hello("focus-csharp 0.3"), {}, SECRET),
    "reconstruct-pixels": Message("c1-2", Reconstruct(), {"pixels": PIXELS}, SECRET),
    "reconstruct-file": Message(
        "c1-3", Reconstruct("J\u00fcrgen.png", OPTIONS, ["geometry", "model", "files"], 30.0, False, 128), {"photo": Array.of(PNG)}, SECRET
    ),
    "cancel": Message("c1-4", Cancel("c1-3"), {}, SECRET),
    "ping": Message("c1-5", Ping(), {}, SECRET),
    "status": Message("c1-6", Status(True), {}, SECRET),
    "shutdown": Message("c1-7", Shutdown(2.5), {}, SECRET),
    "ping-remote": Message("remote:1", Ping()),
    "welcome": Message(
        "c1-1",
        Welcome("focus-backend 0.1.0", [1], LIMITS, [ANNY], ["refine", "fit"], ["geometry", "texture"], "cpu", 2, 1, True),
    ),
    "accepted": Message("c1-2", Accepted(3)),
    "progress": Message("c1-2", Progress("fitting the face", 0.25)),
    "progress-preview": Message("c1-2", Progress("fitting the face", 0.5), {"preview": PIXELS}),
    "result": Message(
        "c1-2",
        Result(
            [Face(0, ["the mouth is hidden"], {"version": 1, "lighting": [[0.5, 0.5, 0.5]], "weights": None})], ANNY, ["geometry"], 1.25
        ),
        {"face0/neutral": TRIANGLE, "face0/expression": Array("float32", (0, 3), b"")},
    ),
    "error": Message("c1-3", Error("busy", "the server holds 64 requests", "try again later", 64)),
    "done": Message("c1-4", Done(False)),
    "pong": Message("c1-5", Pong()),
    "status-report": Message(
        "c1-6",
        StatusReport(
            12.5,
            1,
            2,
            3,
            40,
            {"no-face": 2},
            0.75,
            {"p50": 1.5, "p95": 2.0, "p99": 2.5},
            {"p50": 1.25, "p95": 1.5, "p99": 1.75},
            1,
            52428800,
            31,
            [WorkerReport(4711, "busy", 40, 1073741824)],
            "focus_requests_total 40\n",
        ),
    ),
}
# Written by others: more fields, other spacing and order, whole numbers where ours have a point.
FOREIGN = {
    "future-request": Message("f-1", Reconstruct("a.jpg", Options(faces=2), deadline_seconds=5.0), {"photo": Array.of(b"\x01\x02")}),
    "future-answer": Message("f-2", Error("no-face", "there is no face", "")),
    "javascript-progress": Message("js-1", Progress("done", 1.0)),
}


def read(name: str) -> tuple[dict, list[bytes]]:
    """A vector and its frames."""
    vector = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
    header = bytes.fromhex(vector["header_hex"]) if "header_hex" in vector else vector["header"].encode("utf-8")
    return vector, [header, *(bytes.fromhex(data) for data in vector["arrays"])]


def names_of(use: str) -> list[str]:
    """The vectors whose member "use" says so."""
    return sorted(path.stem for path in VECTORS.glob("*.json") if json.loads(path.read_text("utf-8"))["use"] == use)


def read_as(frames: list[bytes], direction: str) -> Message:
    """The message in frames from a client ("request") or a server ("answer")."""
    return unpack(frames, REQUESTS) if direction == "request" else unpack(frames, ANSWERS, ANSWER_LIMITS)


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_have_exactly_these_bytes(name: str) -> None:
    vector, frames = read(name)
    assert [bytes(frame) for frame in pack(MESSAGES[name])] == frames
    assert read_as(frames, vector["direction"]) == MESSAGES[name]


@pytest.mark.parametrize("name", FOREIGN)
def test_other_writers_are_understood(name: str) -> None:
    vector, frames = read(name)
    assert read_as(frames, vector["direction"]) == FOREIGN[name]


@pytest.mark.parametrize("name", names_of("refused"))
def test_wrong_messages_are_refused_with_their_code_and_id(name: str) -> None:
    vector, frames = read(name)
    with pytest.raises(WireError) as caught:
        read_as(frames, vector["direction"])
    assert (caught.value.code, caught.value.message_id) == (vector["code"], vector["id"])
    assert caught.value.problem
    assert (caught.value.problem + caught.value.remedy).isprintable()


def test_every_message_type_has_a_vector_and_every_vector_is_used() -> None:
    assert {type(message.body) for message in MESSAGES.values()} == {*REQUESTS, *ANSWERS}
    assert names_of("exact") == sorted(MESSAGES)
    assert names_of("foreign") == sorted(FOREIGN)
    assert len(names_of("refused")) >= 20
