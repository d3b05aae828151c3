# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for photos while nothing else happens: for scripts and background mode."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import AddonError
from ..session.job import FINISHED, Job
from . import runtime

_PAUSE_SECONDS = 0.02
# Nothing has to be drawn meanwhile.
_BUDGET_SECONDS = 1.0


def wait_for(jobs: Sequence[Job]) -> list[AddonError]:
    """Waits until all have landed in the scene or failed.

    Returns:
        Why those failed that did.

    Raises:
        AddonError: Ctrl-C was pressed; everything was given up.
    """
    try:
        with _interruptible():
            while not all(_is_done(job) for job in jobs):
                runtime.advance(_BUDGET_SECONDS)
                _end_standstill()
                time.sleep(_PAUSE_SECONDS)
    except KeyboardInterrupt:
        runtime.cancel(0)
        raise AddonError("cancelled by Ctrl-C", "", "cancelled") from None
    return [_error_of(job) for job in jobs if job.state != FINISHED]


def _is_done(job: Job) -> bool:
    return job.has_ended and runtime.running().delivery.job is not job


def _error_of(job: Job) -> AddonError:
    return job.error or AddonError(f"{job.name} was cancelled", "", "cancelled")


def _end_standstill() -> None:
    """While a script waits for us, nobody can leave the mode that we wait for."""
    now = runtime.running()
    job = now.delivery.job
    if job is not None and now.delivery.waits_for_user():
        problem = f"the head of {job.name} is being edited or rendered"
        now.delivery.give_up(runtime.session(), AddonError(problem, "go back to Object Mode first", "mode"))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as in any Python; Blender's own handler lets no script know."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or (before is None and sys.platform == "win32"):
        yield
        return
    blenders = _handler_of_blender()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if blenders is not None:
            _swap_handler(blenders)


def _handler_of_blender() -> int | None:
    """The function in C that hears Ctrl-C now, which Python could not put back; None where that is Python's own, or none."""
    if sys.platform == "win32":
        return None
    present = _swap_handler(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pythons = _swap_handler(present)
    # 0 and 1 stand for what the system does by itself.
    return None if present in (0, 1, pythons) else present


def _swap_handler(handler: int) -> int:
    """Makes this C function the handler of Ctrl-C; returns the one it was."""
    swap = ctypes.CDLL(None).signal
    swap.restype, swap.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    return swap(signal.SIGINT, handler) or 0
