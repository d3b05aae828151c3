"""Whatever the bytes, `unpack` gives a message or raises `WireError`, at once."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

from focus_backend.serving.wire import ANSWER_LIMITS, ANSWERS, REQUESTS, Message, WireError, pack, unpack

ROUNDS = 10_000
SEED = 4
# A message of these sizes takes far less than a millisecond; this is for a machine that does something else meanwhile.
SECONDS_A_MESSAGE = 5.0
NASTY_BYTES = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"',
    b"\\u",
    b"\\ud800",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"-",
    b"\x80\x04",
)
NUMBERS = (0, -1, 1, 2**31, 2**53, 10**300, -(10**399), 0.5, 1e308, True, False)
TEXTS = ("", "\ud800", "\x00", "ping", "../../x", "a" * 5000, "object", "__class__", "float32")
SHAPES = ([], [2**31 - 1] * 4, [0, 2**31 - 1, 2**31 - 1], [None] * 100)
ENTRIES = ({}, {"name": "x"}, {"name": "photo", "dtype": "uint8", "shape": [2**31 - 1] * 4})
NASTY_VALUES: tuple[Any, ...] = (None, *NUMBERS, *TEXTS, *SHAPES, *ENTRIES)
KEYS = (
    "focus",
    "type",
    "id",
    "secret",
    "body",
    "arrays",
    "name",
    "dtype",
    "shape",
    "options",
    "landmarks",
    "points",
    "faces",
    "document",
    "kind",
    "__init__",
)


def golden() -> list[tuple[list[bytes], bool]]:
    """Frames of every vector, good ones thrice, and whether they are a request."""
    found = []
    for path in sorted((Path(__file__).parent / "vectors").glob("*.json")):
        vector = json.loads(path.read_text("utf-8"))
        header = bytes.fromhex(vector["header_hex"]) if "header_hex" in vector else vector["header"].encode("utf-8")
        if len(header) < 10_000:
            message = [header, *(bytes.fromhex(data) for data in vector["arrays"])], vector["direction"] == "request"
            found += [message] * (1 if vector["use"] == "refused" else 3)
    return found


def check_refusal(error: WireError) -> None:
    """It can be sent and logged as it is."""
    assert error.code in {"malformed", "version", "unknown-type", "too-large"}
    assert f"{error.problem}{error.remedy}".isprintable()
    assert len(str(error)) < 1000


def outcome(frames: list[bytes], is_request: bool) -> str:
    """Code of the refusal, or "read"; what was read can be packed and read again."""
    allowed, limits = (REQUESTS, None) if is_request else (ANSWERS, ANSWER_LIMITS)
    start = time.monotonic()
    try:
        message = unpack(frames, allowed, limits)
    except WireError as error:
        check_refusal(error)
        return error.code
    finally:
        assert time.monotonic() - start < SECONDS_A_MESSAGE
    assert isinstance(message, Message)
    assert unpack(pack(message), allowed, limits) == message
    return "read"


def random_value(chance: random.Random, depth: int = 0) -> Any:
    """A JSON value, often one that fits somewhere in a header."""
    pick = chance.random()
    if depth > 4 or pick < 0.4:
        return chance.choice(NASTY_VALUES)
    if pick < 0.6:
        return [random_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(KEYS): random_value(chance, depth + 1) for _ in range(chance.randrange(5))}


def random_frames(chance: random.Random) -> list[bytes]:
    """Plain noise, or a header whose members are of any kind."""
    noise = [chance.randbytes(chance.choice((0, 1, 7, 100, 2000))) for _ in range(chance.randrange(10))]
    if chance.random() < 0.3:
        return noise
    kinds = [body.kind for body in (*REQUESTS, *ANSWERS)]  # type: ignore[attr-defined]
    header = {"focus": 1, "type": chance.choice(kinds), "id": "f-1", "body": random_value(chance), "arrays": random_value(chance)}
    if chance.random() < 0.5:
        header["arrays"] = []
        noise = []
    if chance.random() < 0.3:
        header[chance.choice(KEYS)] = random_value(chance)
    return [json.dumps(header).encode("ascii"), *noise]


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """A byte turned, a stretch gone, doubled, or something nasty put in."""
    at, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    pick = chance.randrange(4)
    if pick == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    if pick == 1:
        return data[:at] + data[min(end, at + 20) :]
    if pick == 2:
        return data[:end] + data[at:]
    return data[:at] + chance.choice(NASTY_BYTES) + data[at:]


def mutated_tree(value: Any, chance: random.Random) -> Any:
    """The value with one member, somewhere inside, replaced, gone or added."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        changed = dict(value)
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            del changed[key]
        elif chance.random() < 0.1:
            changed[chance.choice(KEYS)] = chance.choice(NASTY_VALUES)
        else:
            changed[key] = mutated_tree(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], mutated_tree(value[at], chance), *value[at + chance.randrange(2) :]]
    return chance.choice(NASTY_VALUES)


def mutated_frames(frames: list[bytes], chance: random.Random) -> list[bytes]:
    """A golden message with one to three faults."""
    frames = list(frames)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        pick = chance.random()
        at = chance.randrange(len(frames)) if frames else 0
        if pick < 0.15 and frames:
            frames.pop(at)
        elif pick < 0.25:
            frames.insert(at, chance.choice([b"", *frames]))
        elif pick < 0.6 and frames:
            frames[at] = mutated_bytes(frames[at], chance)
        elif frames:
            try:
                frames[0] = json.dumps(mutated_tree(json.loads(frames[0]), chance)).encode("ascii")
            except (ValueError, RecursionError):
                frames[0] = mutated_bytes(frames[0], chance)
    return frames


def test_ten_thousand_random_messages() -> None:
    chance = random.Random(SEED)
    outcomes = {outcome(random_frames(chance), is_request=chance.random() < 0.5) for _ in range(ROUNDS)}
    # All of these, or it was not the reader that was tried.
    assert outcomes == {"read", "malformed", "version", "unknown-type", "too-large"}


def test_ten_thousand_mutated_messages() -> None:
    chance = random.Random(SEED)
    vectors = golden()
    assert len(vectors) > 50
    outcomes = []
    for _ in range(ROUNDS):
        frames, is_request = chance.choice(vectors)
        outcomes.append(outcome(mutated_frames(frames, chance), is_request))
    assert set(outcomes) >= {"read", "malformed", "version", "unknown-type"}
    # Enough of them come past the JSON to try what follows.
    assert outcomes.count("read") > ROUNDS // 50
