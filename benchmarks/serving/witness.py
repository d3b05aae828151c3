"""A well-behaved client in a process of its own: pings all the while, asks for one photo over and over, writes down what it sees."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.report import percentile
from focus_backend.errors import FocusError
from focus_backend.serving.client import Client

SECONDS_BETWEEN_PINGS = 0.05


@dataclass(frozen=True)
class Sight:
    """One answer the witness saw.

    Attributes:
        began, seconds: monotonic clock, which all processes of a machine share.
        kind: "ping" or "photo".
        outcome: "ok" or the error's code.
        digest: of a result's arrays; the same photo has to give the same.
    """

    began: float
    seconds: float
    kind: str
    outcome: str
    digest: str = ""


class Witness:
    """The process; a context manager.

    Args:
        target: as `Client.connect` takes it.
        photo: what it asks for; None to ping only.
        pause: seconds between an answer and the next photo.
    """

    def __init__(self, target: str, photo: bytes | None = None, pause: float = 0.2) -> None:
        context = multiprocessing.get_context("spawn")
        self._end = context.Event()
        self._ready = context.Event()
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_look_on, args=(target, photo, pause, self._ready, self._end, sender), daemon=True)
        self._sender = sender
        self._reader = threading.Thread(target=self._read, name="witness reader", daemon=True)
        self.sights: list[Sight] = []

    def __enter__(self) -> Witness:
        self._process.start()
        # Ours would keep the pipe from ending.
        self._sender.close()
        self._reader.start()
        if not self._ready.wait(60):
            raise SystemExit("the witness did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._reader.join(30)
        self._process.terminate()
        self._process.join()

    def since(self, moment: float) -> list[Sight]:
        """All answers to what was asked after that moment of the monotonic clock, so far."""
        return [sight for sight in list(self.sights) if sight.began >= moment]

    def _read(self) -> None:
        """All along, for a full pipe would stop the witness."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.sights.append(self._receiver.recv())


def _look_on(target: str, photo: bytes | None, pause: float, ready: Any, end: Any, sender: Any) -> None:
    lock = threading.Lock()

    def write_down(sight: Sight) -> None:
        with lock:
            sender.send(sight)

    asking = [threading.Thread(target=_repeat, args=("ping", _ping, target, SECONDS_BETWEEN_PINGS, end, write_down))]
    if photo is not None:
        asking.append(
            threading.Thread(target=_repeat, args=("photo", lambda client: _digest(client, photo), target, pause, end, write_down))
        )
    for thread in asking:
        thread.start()
    ready.set()
    for thread in asking:
        thread.join()
    sender.close()


def _repeat(kind: str, ask: Callable[[Client], str], target: str, pause: float, end: Any, write_down: Callable[[Sight], None]) -> None:
    client: Client | None = None
    while not end.is_set():
        began, digest = time.monotonic(), ""
        try:
            client = client or Client.connect(target)
            digest, outcome = ask(client), "ok"
        except FocusError as error:
            outcome = error.code
        write_down(Sight(began, time.monotonic() - began, kind, outcome, digest))
        end.wait(pause)
    if client is not None:
        client.close()


def _ping(client: Client) -> str:
    client.ping()
    return ""


def _digest(client: Client, photo: bytes) -> str:
    found = hashlib.sha256()
    for name, array in sorted(client.reconstruct(photo).arrays.items()):
        found.update(name.encode() + bytes(array.data))
    return found.hexdigest()


def are_fine(sights: list[Sight], digest: str) -> bool:
    """Whether there are answers at all, none of them an error and every photo's the right one."""
    return bool(sights) and all(sight.outcome == "ok" and sight.digest in ("", digest) for sight in sights)


def describe_sights(sights: list[Sight], digest: str = "") -> str:
    """What the others saw, in a line."""
    photos = [sight for sight in sights if sight.kind == "photo"]
    pings = [1e3 * sight.seconds for sight in sights if sight.kind == "ping" and sight.outcome == "ok"]
    errors = Counter(f"{sight.kind} {sight.outcome}" for sight in sights if sight.outcome != "ok")
    whole = [sight for sight in photos if sight.outcome == "ok"]
    wrong = sum(bool(digest) and sight.digest != digest for sight in whole)
    shown = f"{len(whole)} results"
    if whole:
        shown += f" (slowest {max(sight.seconds for sight in whole):.1f} s)"
    shown += f", {wrong} of them WRONG" if wrong else ""
    shown += f"; pings p50 {percentile(pings, 50):.0f} max {max(pings):.0f} ms" if pings else "; no pings"
    return shown + (f"; errors: {', '.join(f'{name} x{count}' for name, count in errors.items())}" if errors else "; no errors")
