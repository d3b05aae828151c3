# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that must not hold up Blender's window: reading files, planning."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

# What is called in Blender's thread with the outcome: what the task returned, or the exception that ended it.
Taker = Callable[[Any], None]


class BackgroundWorker:
    """Does tasks one after the other in a thread of its own, which the first task starts.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Taker] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Taker, Any]] = queue.SimpleQueue()

    def do(self, task: Callable[[], Any], taker: Taker) -> None:
        """Puts a task in line; `take_outcomes` hands what comes of it to the taker."""
        if self._thread is None:
            # A daemon: a network drive that does not answer must not keep Blender from quitting.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._tasks.put((task, taker))

    def do_apart(self, task: Callable[[], Any], taker: Taker) -> None:
        """Does a task at once in a thread of its own, for one that may hang."""
        threading.Thread(target=self._do, args=(task, taker), name=f"{self._name}-apart", daemon=True).start()

    def take_outcomes(self) -> None:
        """Calls the takers of all tasks that have ended since the last time."""
        while not self._outcomes.empty():
            taker, outcome = self._outcomes.get_nowait()
            taker(outcome)

    def close(self) -> None:
        """Lets the thread end after the task that it is at; its outcome and further tasks are dropped."""
        self._is_closed = True
        self._tasks.put(None)

    def join(self, seconds: float) -> None:
        """Waits for the thread's end, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while (entry := self._tasks.get()) is not None and not self._is_closed:
            self._do(*entry)
            # A photo or a plan must not live on until the next task comes.
            del entry

    def _do(self, task: Callable[[], Any], taker: Taker) -> None:
        try:
            outcome: Any = task()
        except Exception as error:  # whatever it is, the taker has to hear of it
            outcome = error
        self._outcomes.put((taker, outcome))
