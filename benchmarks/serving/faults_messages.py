"""Faults a client can bring about with what it sends, or does not read."""

from __future__ import annotations

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable

from benchmarks.serving.connection import NOT_FINAL, Connection, NoAnswerError, describe_answer
from benchmarks.serving.faults import Fault, Scene, SkippedError
from benchmarks.serving.fuzz import Frames, mutated, random_message, right_message
from benchmarks.serving.memory import MEGABYTE
from focus_backend.errors import FocusError
from focus_backend.serving.client import Client
from focus_backend.serving.credentials import Credentials
from focus_backend.serving.keys import KeyFolder
from focus_backend.serving.wire import Array, Message, Ping, Reconstruct, Status, pack

MESSAGES = 10_000
# So many are sent before their answers are read, no more than a server admits of one client.
_AT_ONCE = 16
_PATIENCE_SECONDS = 10.0
_HALF_OPEN = 1000
_GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE" + bytes(47)


def _send_many(scene: Scene, make: Callable[[random.Random], Frames]) -> str:
    """Send so many messages on one connection and wait for the end of each; then the same connection has to work still."""
    answers: Counter[str] = Counter()
    missing = 0
    with Connection(scene.server.credentials) as connection:
        for sent in range(0, MESSAGES, _AT_ONCE):
            count = min(_AT_ONCE, MESSAGES - sent)
            for _ in range(count):
                if not connection.send_frames(make(scene.chance)):
                    raise AssertionError(f"the server took no more than {sent} messages")
            missing += _read_finals(connection, answers, count)
        connection.ask(Ping(), seconds=20.0)
    shown = ", ".join(f"{name} x{count}" for name, count in answers.most_common(6))
    # Two changed ids may become the same one, which is answered once.
    assert missing <= MESSAGES // 1000, f"{missing} messages were not answered"
    return f"{MESSAGES} sent, {MESSAGES - missing} answered: {shown}; the connection still works"


def _read_finals(connection: Connection, answers: Counter[str], count: int) -> int:
    """Read so many final answers; how many did not come."""
    until = connection.finals.total() + count
    try:
        while connection.finals.total() < until:
            body = connection.receive(_PATIENCE_SECONDS).body
            if not isinstance(body, NOT_FINAL):
                answers[f"error {body.code}" if hasattr(body, "code") else body.kind] += 1
    except NoAnswerError:
        return until - connection.finals.total()
    return 0


def random_messages(scene: Scene) -> str:
    """Random frames over an authenticated connection."""
    return _send_many(scene, random_message)


def mutated_messages(scene: Scene) -> str:
    """Right messages, with the right secret, and something changed."""
    secret, photo = scene.server.credentials.secret, scene.samples[-1].data
    content = photo if isinstance(photo, bytes) and photo else b"no photo"
    numbers = iter(range(10**9))
    prefix = scene.chance.randbytes(4).hex()

    def make(chance: random.Random) -> Frames:
        return mutated(chance, right_message(chance, f"{prefix}-{next(numbers)}", secret, content))

    return _send_many(scene, make)


def raw_bytes(scene: Scene) -> str:
    """Bytes that are no ZeroMQ at all, on 300 connections."""
    beginnings = (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", _GREETING, _GREETING[:12])
    ends: Counter[str] = Counter()
    for number in range(300):
        with socket.create_connection(scene.server.address, timeout=5) as connection:
            try:
                connection.sendall(beginnings[number % len(beginnings)] + scene.chance.randbytes(scene.chance.randint(0, 5000)))
                connection.settimeout(0.02)
                connection.recv(100)
                ends["greeted or closed"] += 1
            except TimeoutError:
                ends["still open"] += 1
            except OSError:
                ends["reset"] += 1
    return f"300 connections: {dict(ends)}"


def oversize_frames(scene: Scene) -> str:
    """A frame, a message and a header beyond the published limits."""
    with Client.connect(scene.server.target) as client:
        limits = client.hello().limits
    seen = []
    with Connection(scene.server.credentials) as connection:
        padding = {"pad": "x" * limits.header_bytes}
        header = json.dumps({"focus": 1, "type": "ping", "id": "x", "secret": connection.credentials.secret} | padding)
        connection.send_frames([header.encode()])
        seen.append(f"header of {len(header) / MEGABYTE:.1f} MB: {describe_answer(connection.receive(10.0).body)}")
        connection.send_frames([b"{}"] * (limits.frames + 1))
        seen.append(f"{limits.frames + 1} frames: {describe_answer(connection.receive(10.0).body)}")
    too_large = Array("uint8", (limits.frame_bytes + 1,), bytes(limits.frame_bytes + 1))
    with Connection(scene.server.credentials) as connection:
        request = connection.send(Reconstruct(), {"photo": too_large})
        try:
            seen.append(f"frame of {limits.frame_bytes / MEGABYTE:.0f} MB + 1: {describe_answer(connection.final(request, 5.0).body)}")
        except NoAnswerError:
            seen.append(f"frame of {limits.frame_bytes / MEGABYTE:.0f} MB + 1: disconnected")
    with Client.connect(scene.server.target) as client:
        try:
            client.reconstruct(bytes(limits.frame_bytes + 1))
            raise AssertionError("a photo beyond the limit was taken")
        except FocusError as error:
            seen.append(f"the same through the client: {error.code}")
    return "; ".join(seen)


def half_open(scene: Scene) -> str:
    """A thousand connections that are silent, or stop in the middle of the greeting."""
    before, opened = scene.server.status().handles, []
    for number in range(_HALF_OPEN):
        connection = socket.create_connection(scene.server.address, timeout=10)
        connection.sendall(_GREETING[: scene.chance.randint(1, len(_GREETING) - 1)] if number % 2 else b"")
        opened.append(connection)
    time.sleep(1.0)
    during = scene.server.status().handles
    # The handshake has to be over within 5 s; afterwards the server hangs up.
    handles = _wait_for_handles(scene, before + 20, 20.0)
    for connection in opened:
        connection.close()
    after = _wait_for_handles(scene, before + 20, 10.0)
    assert after <= before + 20, f"{after} handles remain of {before} before"
    return f"{_HALF_OPEN} opened; the server's handles: {before} before, {during} during, {handles} after its patience, {after} at the end"


def _wait_for_handles(scene: Scene, enough: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    while (handles := scene.server.status().handles) > enough and time.monotonic() < until:
        time.sleep(0.5)
    return handles


def never_reads(scene: Scene) -> str:
    """A client that asks and asks, photos and status reports, and never reads an answer."""
    good = scene.samples[0].data
    assert isinstance(good, bytes)
    before, sent = scene.server.status(), 0
    with Connection(scene.server.credentials, receive_limit=1) as connection:
        for _ in range(20):
            sent += connection.send_frames(_packed(connection, Reconstruct(parts=["geometry"]), good), 0.2)
        until = time.monotonic() + 10.0
        while time.monotonic() < until and sent < 20_000:
            sent += connection.send_frames(_packed(connection, Status(prometheus=True)), 0.2)
        during = scene.server.status()
    time.sleep(3.0)
    after = scene.server.status()
    sizes = " -> ".join(f"{status.memory_bytes / MEGABYTE:.0f}" for status in (before, during, after))
    assert after.memory_bytes < before.memory_bytes + 200 * MEGABYTE, f"the server grew: {sizes} MB"
    return f"{sent} requests sent, none read; the server's memory before, during, after: {sizes} MB"


def _packed(connection: Connection, body: object, photo: bytes | None = None) -> Frames:
    arrays = {"photo": Array.of(photo)} if photo is not None else {}
    number = f"{time.monotonic_ns():x}"
    return [bytes(frame) for frame in pack(Message(number, body, arrays, connection.credentials.secret))]


def old_version(scene: Scene) -> str:
    """A client of another protocol version."""
    seen = []
    for version in (0, 2):
        with Connection(scene.server.credentials) as connection:
            header: dict[str, object] = {
                "focus": version,
                "type": "hello",
                "id": "old",
                "secret": scene.server.credentials.secret,
                "body": {},
                "arrays": [],
            }
            connection.send_frames([json.dumps(header).encode()])
            answer = connection.receive(10.0)
            assert getattr(answer.body, "code", "") == "protocol", describe_answer(answer.body)
            seen.append(f"version {version}: {describe_answer(answer.body)}")
    return "; ".join(seen)


def wrong_key(scene: Scene) -> str:
    """A wrong secret, a wrong key of the server, and a remote client whose key nobody let in."""
    right, seen = scene.server.credentials, []
    for secret in ("", "0" * 64, right.secret[:-1]):
        with Connection(right) as connection:
            answer = connection.ask(Ping(), secret=secret)
            assert getattr(answer, "code", "") == "refused", describe_answer(answer)
    seen.append(f"wrong, missing or cut secret: {describe_answer(answer)}")
    stranger = KeyFolder(scene.folder / "strangers-keys")
    pair = stranger.new("stranger")
    seen.append(f"wrong key of the server: {_refusal(Credentials(right.address, pair['server_key'], right.secret))}")
    if scene.remote:
        server_key = scene.keys.server_keys()[0]
        unknown = Credentials(scene.remote, server_key, "", pair["public_key"], pair["secret_key"])
        seen.append(f"unknown client key from elsewhere: {_refusal(unknown)}")
        seen.append(f"no client key from elsewhere: {_refusal(Credentials(scene.remote, server_key, right.secret))}")
    return "; ".join(seen)


def _refusal(credentials: Credentials) -> str:
    try:
        with Client(credentials, timeout=5.0) as client:
            client.hello()
    except FocusError as error:
        return f"{error.code}: {error.problem}"
    raise AssertionError("it was let in")


def revoked_key(scene: Scene) -> str:
    """A remote client whose key is revoked while it is connected and has a request under way."""
    if not scene.remote:
        raise SkippedError("this machine has no address but loopback")
    with Client.connect(scene.client_key(f"leaver{time.monotonic_ns()}")) as client:
        assert not client.hello().is_owner, "a remote client is taken for the owner"
        try:
            client.shutdown()
            raise AssertionError("a remote client may end the server")
        except FocusError as error:
            seen = [f"asks for shutdown: {error.code}"]
        client.reconstruct(scene.samples[0].data)
        scene.keys.revoke(next(entry.name for entry in scene.keys.list() if entry.name.startswith("leaver") and not entry.revoked))
        try:
            client.ping()
            raise AssertionError("a revoked client is still answered")
        except FocusError as error:
            seen.append(f"one result, then revoked; its next message: {error.code}: {error.problem}")
    return "; ".join(seen)


MESSAGE_FAULTS: dict[str, Fault] = {
    "10,000 random messages": random_messages,
    "10,000 mutated messages": mutated_messages,
    "raw bytes on the port": raw_bytes,
    "oversize frames": oversize_frames,
    "1,000 half-open connections": half_open,
    "a client that never reads": never_reads,
    "old version": old_version,
    "wrong key": wrong_key,
    "revoked key": revoked_key,
}
