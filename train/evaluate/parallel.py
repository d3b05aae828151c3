"""Work shared among processes; the answers come in the order of the questions."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from train.evaluate.errors import EvaluationError

Question = TypeVar("Question")
Answer = TypeVar("Answer")
# Each process is one thread: many small problems share better among processes than inside one.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "IGL_NUM_THREADS")


def map_processes(work: Callable[[Question], Answer], questions: Sequence[Question], jobs: int) -> list[Answer]:
    """`work` of every question, in up to `jobs` processes; with one job, or one question, right here.

    Args:
        work: a function of a module, which new processes can import.
        questions: what can be pickled.
        jobs: how many processes at most; 0 for as many as there are processors.

    Raises:
        EvaluationError: a process died, most often of too little memory.
        Exception: what `work` raises.
    """
    jobs = min(jobs if jobs > 0 else os.cpu_count() or 1, len(questions))
    if jobs <= 1:
        return [work(question) for question in questions]
    # Not forked: torch's and libigl's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    try:
        with _one_thread_each(), ProcessPoolExecutor(jobs, mp_context=context) as pool:
            return list(pool.map(work, questions))
    except BrokenProcessPool as error:
        raise EvaluationError("a worker process died, perhaps of too little memory", "use fewer with --jobs") from error


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children inherit the variables; libraries read them when they are first loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
