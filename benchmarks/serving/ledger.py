"""The soak's ledger: every request that was begun, how each ended, and what is wrong with that."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.serving.photos import Sample
from focus_backend.errors import FocusError

# What a soak brings about by itself, and is a right end of any request.
ALWAYS_RIGHT = frozenset({"cancelled", "deadline", "busy", "worker-lost"})
# Three classes until Python 3.11.
TIMEOUTS = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)


@dataclass
class Ticket:
    """A request under way; `expected` are the right ends of it besides those that always are."""

    kind: str
    expected: frozenset[str]
    began: float = field(default_factory=time.monotonic)


class Ledger:
    """Written by many threads.

    Attributes:
        outcomes: (kind of photo, outcome) -> how many.
        seconds: of the requests with results.
        wrong: ends that should not be, one line each.
        events: what else was done: connections, kills, garbage.
        finals: final answers received, by id.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self.events: Counter[str] = Counter()
        self.finals: Counter[str] = Counter()
        self._open: dict[int, Ticket] = {}
        self._lock = threading.Lock()

    @contextmanager
    def request(self, sample: Sample, extra: frozenset[str] = frozenset()) -> Iterator[None]:
        """Around a request: its end is what comes out of it."""
        ticket = Ticket(sample.kind, sample.expected | extra | ALWAYS_RIGHT)
        with self._lock:
            self._open[id(ticket)] = ticket
        outcome, problem = "result", ""
        try:
            yield
        except FocusError as error:
            outcome, problem = error.code, str(error)
        except TIMEOUTS:
            outcome, problem = "lost", "no answer at all"
        except Exception as error:
            outcome, problem = "exception", repr(error)
        finally:
            self._end(ticket, outcome, problem)

    def note(self, event: str) -> None:
        """Count something that was done."""
        with self._lock:
            self.events[event] += 1

    def under_way(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    def total(self) -> int:
        """Requests that have ended."""
        return self.outcomes.total()

    def of_outcome(self, outcome: str) -> int:
        """Requests that ended so."""
        with self._lock:
            return sum(count for (_, ended), count in self.outcomes.items() if ended == outcome)

    def lost(self) -> int:
        """Requests without an end."""
        return self.of_outcome("lost") + self.under_way()

    def answered_twice(self) -> int:
        """Ids with more than one final answer."""
        return sum(count > 1 for count in list(self.finals.values()))

    def by_outcome(self) -> dict[str, int]:
        """Requests by how they ended."""
        found: Counter[str] = Counter()
        with self._lock:
            for (_, outcome), count in self.outcomes.items():
                found[outcome] += count
        return dict(found.most_common())

    def _end(self, ticket: Ticket, outcome: str, problem: str) -> None:
        seconds = time.monotonic() - ticket.began
        with self._lock:
            del self._open[id(ticket)]
            self.outcomes[ticket.kind, outcome] += 1
            if outcome == "result":
                self.seconds.append(seconds)
            if outcome not in ticket.expected:
                self.wrong.append(f"{ticket.kind}: {outcome} after {seconds:.1f} s: {problem}")
