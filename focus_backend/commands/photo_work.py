"""What a batch asks of whoever works on its photos: this process, or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from focus_backend.progress import Progress


class BatchError(Exception):
    """Carries a failure that is not one photo's past the handling of single photos.

    Attributes:
        error: what to tell the user.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@runtime_checkable
class FaceFiles(Protocol):
    """A face whose files can be written."""

    @property
    def face_index(self) -> int:
        """0 for the largest of the photo."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about it."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """Content of every file of its folder, by name.

        Raises:
            FitError: the result is not finite.
        """
        ...


@dataclass(frozen=True)
class PhotoResult:
    """What became of a photo.

    Attributes:
        faces: largest first.
        sha256: of the photo's file.
        seconds: that the work took; None where it is what passed between start and end.
    """

    faces: Sequence[FaceFiles]
    sha256: str
    seconds: float | None = None


@runtime_checkable
class PhotoUnderWay(Protocol):
    """A photo that was started."""

    def finish(self) -> PhotoResult:
        """Its faces, once they are there.

        Raises:
            BatchError: no photo can be worked on any more.
            Exception: this photo failed.
        """
        ...


@runtime_checkable
class PhotoWork(Protocol):
    """Works on photos.

    Attributes:
        window: how many photos may be under way at once; known for certain when the first was started.
    """

    window: int

    def start(self, path: Path, progress: Progress | None) -> PhotoUnderWay:
        """Take up a photo.

        Raises:
            BatchError: no photo can be worked on.
            Exception: this photo failed.
        """
        ...

    def close(self) -> None:
        """Give up what is under way; may be called at any time, and twice."""
        ...
