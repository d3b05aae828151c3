"""The soak's clients: synchronous and asyncio ones that come and go, and some that are killed in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.ledger import Ledger
from benchmarks.serving.photos import Sample
from focus_backend.errors import CancelledError, FocusError
from focus_backend.serving.asyncio_client import AsyncClient
from focus_backend.serving.client import Client
from focus_backend.serving.wire import Options, Welcome

# After its deadline a request has to have ended; what has not after so much longer is lost.
PATIENCE_SECONDS = 60.0
USUAL_DEADLINE = 120.0


@dataclass(frozen=True)
class Whim:
    """What a client does with one request.

    Attributes:
        sample: the photo.
        wanted: keyword arguments of `submit`.
        cancel_after: seconds; None to wait for the end.
        extra: outcomes that are right besides those of the photo.
    """

    sample: Sample
    wanted: dict[str, Any]
    cancel_after: float | None
    extra: frozenset[str]

    @property
    def patience(self) -> float:
        """Seconds after which the request is lost."""
        return self.wanted["deadline"] + PATIENCE_SECONDS

    @classmethod
    def any(cls, chance: random.Random, samples: Sequence[Sample], welcome: Welcome) -> Whim:
        """A random one."""
        extra: frozenset[str] = frozenset()
        method = chance.choice([None, None, *welcome.methods])
        if chance.random() < 0.02:
            method, extra = "guess", frozenset({"config", "protocol"})
        options = Options(
            method=method,
            misfit=chance.random() < 0.5,
            faces=chance.choice([None, None, 1, 2]),
            texture_size=chance.choice([None, None, 64, 256]),
        )
        wanted = {
            "options": options,
            "parts": tuple(chance.sample(welcome.parts, chance.randint(0, len(welcome.parts)))),
            "deadline": chance.uniform(0.05, 2.0) if chance.random() < 0.1 else USUAL_DEADLINE,
            "preview_side": chance.choice([0, 0, 32, 128]),
            "progress": (lambda *_: None) if chance.random() < 0.5 else None,
        }
        cancel_after = chance.expovariate(1.0) if chance.random() < 0.15 else None
        return cls(chance.choice(samples), wanted, cancel_after, extra)


@dataclass
class Clients:
    """All that they share.

    Args:
        target: as `Client.connect` takes it.
        samples: photos to choose from.
        ledger: where outcomes go.
        end: set when no new request may be begun.
    """

    target: str
    samples: Sequence[Sample]
    ledger: Ledger
    end: threading.Event

    def keep_coming(self, seed: int) -> None:
        """A thread's synchronous clients, one after the other until the end."""
        chance = random.Random(seed)
        while not self.end.is_set():
            try:
                with Client.connect(self.target) as client:
                    self.ledger.note("synchronous clients")
                    welcome = client.hello()
                    for _ in range(chance.randint(1, 8)):
                        if not self.end.is_set():
                            self._ask_some(client, chance, welcome)
            except FocusError as error:
                self.ledger.wrong.append(f"synchronous client: {error}")
            self.end.wait(chance.expovariate(0.5))

    def _ask_some(self, client: Client, chance: random.Random, welcome: Welcome) -> None:
        """Up to three requests at once."""
        whims = [Whim.any(chance, self.samples, welcome) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
        threads = [threading.Thread(target=self._ask, args=(client, whim)) for whim in whims]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, client: Client, whim: Whim) -> None:
        with self.ledger.request(whim.sample, whim.extra):
            pending = client.submit(whim.sample.data, **whim.wanted)
            if whim.cancel_after is not None:
                threading.Timer(whim.cancel_after, pending.cancel).start()
            pending.result(whim.patience)

    def keep_coming_asynchronously(self, seed: int, count: int) -> None:
        """A thread's asyncio clients, so many at once, until the end."""

        async def all_clients() -> None:
            await asyncio.gather(*(self._come_and_go(random.Random(f"{seed} {number}")) for number in range(count)))

        asyncio.run(all_clients())

    async def _come_and_go(self, chance: random.Random) -> None:
        while not self.end.is_set():
            try:
                async with await AsyncClient.connect(self.target) as client:
                    self.ledger.note("asyncio clients")
                    welcome = await client.hello()
                    for _ in range(chance.randint(1, 8)):
                        if not self.end.is_set():
                            await self._ask_asynchronously(client, Whim.any(chance, self.samples, welcome))
            except FocusError as error:
                self.ledger.wrong.append(f"asyncio client: {error}")
            await asyncio.sleep(chance.expovariate(0.5))

    async def _ask_asynchronously(self, client: AsyncClient, whim: Whim) -> None:
        with self.ledger.request(whim.sample, whim.extra):
            asked = asyncio.ensure_future(client.reconstruct(whim.sample.data, **whim.wanted))
            if whim.cancel_after is not None:
                await asyncio.wait([asked], timeout=whim.cancel_after)
                if not asked.done():
                    asked.cancel()
                    self.ledger.note("asyncio requests cancelled")
            try:
                await asyncio.wait_for(asked, whim.patience)
            except asyncio.CancelledError:
                # What becomes of it at the server shows in the server's own counts.
                raise CancelledError("the request was cancelled") from None


def ask_until_killed(target: str, photo: Any) -> None:
    """A client in a process of its own, whose end is not its own choice."""
    with Client.connect(target) as client:
        while True:
            pending = [client.submit(photo, parts=("geometry",)) for _ in range(2)]
            for waiting in pending:
                with contextlib.suppress(FocusError):
                    waiting.result()
            time.sleep(0.05)


def start_doomed(target: str, photo: Any) -> Any:
    """That process; `kill` ends it."""
    process = multiprocessing.get_context("spawn").Process(target=ask_until_killed, args=(target, photo), daemon=True)
    process.start()
    return process
