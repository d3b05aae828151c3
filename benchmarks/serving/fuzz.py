"""Messages that no client would send: random ones, and right ones with something changed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from focus_backend.serving.wire import Array, Cancel, Hello, Message, Options, Ping, Reconstruct, Status, pack

Frames = list[bytes]
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, -(2**70), 1e300, 0.5, "", "x" * 5000, "\ud800", "\0", "../../etc/passwd"),
    *([], [[[[]]]], {}, {"a": {"b": {}}}),
)


def random_message(chance: random.Random) -> Frames:
    """Some frames of random bytes, mostly short."""
    return [chance.randbytes(chance.choice([0, 1, 7, 64, 1000, 20_000])) for _ in range(chance.choice([1, 1, 1, 2, 3, 9, 40]))]


def right_message(chance: random.Random, message_id: str, secret: str, photo: bytes) -> Frames:
    """Any request but the one to end the server."""
    requests = [
        Hello("fuzz"),
        Ping(),
        Status(prometheus=chance.random() < 0.5),
        Cancel("nobody"),
        Reconstruct(options=Options(faces=1), parts=["geometry"], deadline_seconds=20.0),
        Reconstruct(preview_side=32),
    ]
    body = chance.choice(requests)
    arrays = {"photo": Array.of(photo)} if isinstance(body, Reconstruct) else {}
    return [bytes(frame) for frame in pack(Message(message_id, body, arrays, secret))]


def mutated(chance: random.Random, frames: Frames) -> Frames:
    """The same message with one to four changes."""
    for _ in range(chance.randint(1, 4)):
        frames = chance.choice(_MUTATIONS)(chance, list(frames))
    return frames


def _flip_bits(chance: random.Random, frames: Frames) -> Frames:
    index = chance.randrange(len(frames)) if frames else 0
    changed = bytearray(frames[index]) if frames else bytearray(b"x")
    for _ in range(chance.randint(1, 5)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return [*frames[:index], bytes(changed), *frames[index + 1 :]]


def _cut(chance: random.Random, frames: Frames) -> Frames:
    if not frames:
        return frames
    index = chance.randrange(len(frames))
    return [*frames[:index], frames[index][: chance.randint(0, len(frames[index]))], *frames[index + 1 :]]


def _drop_frame(chance: random.Random, frames: Frames) -> Frames:
    return frames[: chance.randint(1, max(1, len(frames)))]


def _repeat_frame(chance: random.Random, frames: Frames) -> Frames:
    return [*frames, *frames[-1:] * chance.randint(1, 20)]


def _swap_frames(chance: random.Random, frames: Frames) -> Frames:
    chance.shuffle(frames)
    return frames


def _change_value(chance: random.Random, frames: Frames) -> Frames:
    """One value of the header becomes something odd, or goes, or is there under another name."""
    try:
        header = json.loads(frames[0])
    except (ValueError, IndexError, RecursionError):
        return frames
    place = header
    while isinstance(place, dict) and place:
        key = chance.choice(sorted(place))
        inside = place[key]
        if isinstance(inside, list) and inside and isinstance(inside[0], dict) and chance.random() < 0.5:
            place = inside[0]
        elif isinstance(inside, dict) and inside and chance.random() < 0.7:
            place = inside
        else:
            _replace(chance, place, key)
            break
    return [json.dumps(header).encode("ascii"), *frames[1:]]


def _replace(chance: random.Random, place: dict[str, Any], key: str) -> None:
    way = chance.random()
    if way < 0.15:
        del place[key]
    elif way < 0.3:
        place[key + "x"] = place.pop(key)
    else:
        place[key] = chance.choice(_ODD_VALUES)


def _nest(chance: random.Random, frames: Frames) -> Frames:
    depth = chance.choice([10, 1000, 100_000])
    return [b"[" * depth + b"]" * chance.choice([0, depth]), *frames[1:]]


_MUTATIONS: tuple[Callable[[random.Random, Frames], Frames], ...] = (
    *(_flip_bits, _cut, _drop_frame, _repeat_frame, _swap_frames, _nest),
    *(_change_value, _change_value, _change_value, _change_value),
)
