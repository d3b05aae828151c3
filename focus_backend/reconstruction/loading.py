"""How a process starts: what has to be settled before torch is imported for the first time, and what makes importing quicker."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def use_threads(count: int) -> None:
    """Lets every numeric library of this process use so many threads; torch is imported here.

    To be called before anything that imports one of them.
    """
    # Libraries that read these do so when they are first imported.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(count)
    import torch

    torch.set_num_threads(count)


@contextmanager
def collection_paused() -> Iterator[None]:
    """Python's search for unreachable objects stands still, and never looks at what was made meanwhile.

    Importing torch and numba makes a million objects that all stay; looking through them again and again is a tenth of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
