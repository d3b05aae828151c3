"""How work tells how far it is, and how it is given up: whoever is told may raise, and the work ends there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

Preview = Callable[[], UInt8[np.ndarray, "height width 3"]]
# Called from within long steps, every few tens of milliseconds; what it raises ends the work.
Beat = Callable[[], None]


@runtime_checkable
class Progress(Protocol):
    """Is told how far the work is; what it raises ends the work.

    At least some ten times a second, but while a photo is decoded or a network runs.
    """

    def __call__(self, stage: str, fraction: float, preview: Preview | None = None) -> None:
        """Takes note.

        Args:
            stage: what is being done, in words.
            fraction: of the whole that is done, 0 to 1; never goes back.
            preview: draws how the face looks so far, sRGB; costs nothing unless it is called, which has to be before this returns.
        """
        ...


class Reporter:
    """Tells of a part of the work as of the share that it makes up of the whole.

    Args:
        progress: is told; None for nobody.
        begin, end: fractions of the whole between which the part lies.
    """

    def __init__(self, progress: Progress | None = None, begin: float = 0.0, end: float = 1.0) -> None:
        self._progress = progress
        self._begin, self._end = begin, end
        self._stage, self._fraction = "", begin

    def __call__(self, stage: str, fraction: float, preview: Preview | None = None) -> None:
        """Tells the stage and the fraction of this part that is done."""
        self._stage = stage
        self._fraction = max(self._fraction, self._begin + (self._end - self._begin) * min(fraction, 1.0))
        self._tell(preview)

    def beat(self) -> None:
        """Tells the same once more: the work goes on."""
        self._tell(None)

    def part(self, begin: float, end: float) -> Reporter:
        """The reporter of a part of this part."""
        return Reporter(self, begin, end)

    def _tell(self, preview: Preview | None) -> None:
        if self._progress is not None:
            self._progress(self._stage, self._fraction, preview)


def quiet() -> None:
    """The beat that nobody hears."""
