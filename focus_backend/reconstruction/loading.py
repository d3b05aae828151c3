"""What has to be settled before torch is imported for the first time."""

from __future__ import annotations

import os


def use_threads(count: int) -> None:
    """Lets every numeric library of this process use so many threads; torch is imported here.

    To be called before anything that imports one of them.
    """
    # Libraries that read these do so when they are first imported.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(count)
    import torch

    torch.set_num_threads(count)
