# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a backend that ends again and again from being started again and again."""

from __future__ import annotations

import time
from collections.abc import Callable


class RestartBreaker:
    """Opens after several starts in a row that soon ended without a single answer.

    Args:
        most: so many such starts.
        soon_seconds: what ends within that time ended soon.
        clock: seconds.
    """

    def __init__(self, most: int = 3, soon_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._soon = soon_seconds
        self._clock = clock
        self._failures = 0
        self._started: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the backend is not to be started any more until the user asks for it."""
        return self._failures >= self._most

    def started(self) -> None:
        """A backend was started."""
        self._started = self._clock()

    def answered(self) -> None:
        """It has done some work: whatever ends it later, it can be started."""
        self._failures = 0
        self._started = None

    def ended(self, *, too_late: bool = False) -> None:
        """It ended without being asked to.

        Args:
            too_late: it was given up because it never listened.
        """
        if self._started is not None:
            self._failures = self._failures + 1 if too_late or self._clock() - self._started <= self._soon else 0
        self._started = None

    def reset(self) -> None:
        """The user asks for another try."""
        self._failures = 0
        self._started = None
