"""Processes that work for this one: Ctrl-C ends them and none is left behind."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import torch

# Seconds between looks at whether the user wants to stop.
PATIENCE = 0.2


@contextmanager
def process_pool(workers: int, start: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes begin with `start(*arguments)`, which calls `begin_worker`. What they do when it is left ends first."""
    # Forking a process that runs torch's threads can hang the child.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start, arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and SIGTERM back until the function that this gives is called, which then raises KeyboardInterrupt.

    An interruption just anywhere can leave a pool's locks in a state in which it never ends.
    """
    stopped = threading.Event()

    def check_stop() -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    older: dict[signal.Signals, Any] = {}
    # In other threads signals are somebody else's.
    if threading.current_thread() is threading.main_thread():
        older = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check_stop
    finally:
        for number, handler in older.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits while processes are started; they inherit that, so that none is hit before it ignores it. Windows has no such mask."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    older = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, older)


def begin_worker() -> None:
    """In a new process of a pool: one thread, deaf to Ctrl-C, and gone when its parent is."""
    # The parent decides what Ctrl-C means, and the terminal sends it to all. SIGTERM is the pool's own way to end a worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for the next task of a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
