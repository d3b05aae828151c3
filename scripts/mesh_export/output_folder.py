"""The folder that everything goes to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .outcome import Failure, PhotoOutcome
from .worker_process import BatchStoppedError

# A head in one format has more.
_PROBE_BYTES = 2**20


def make_folder(out: Path) -> None:
    """Makes the folder where it is missing, before anybody waits for what cannot be kept.

    Raises:
        BatchStoppedError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BatchStoppedError(Failure("output", f"{out} cannot be written ({error.strerror})", "choose another folder")) from error


def is_usable(out: Path, outcome: PhotoOutcome) -> bool:
    """Whether other photos' files may fare better than this one's; looked into only where these could not be written."""
    if outcome.failure is None or outcome.failure.code not in ("output", "internal"):
        return True
    try:
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError:
        return False
    return True
