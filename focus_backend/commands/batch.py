"""A batch of photos, told in their order; a bad one is noted and the rest is done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from focus_backend.commands.inputs import PhotoInput
from focus_backend.commands.local_work import FaceReconstructor, LocalWork
from focus_backend.commands.photo_work import BatchError, PhotoResult, PhotoUnderWay, PhotoWork
from focus_backend.errors import FocusError, OutputError
from focus_backend.export.folder import TakenError, check_replaceable, read_result, write_folder
from focus_backend.export.names import face_names, plan_names
from focus_backend.landmarks.detector import Detection
from focus_backend.photo_paths import photo_hash
from focus_backend.progress import Progress


@dataclass(frozen=True)
class BatchOptions:
    """What holds for every photo of a batch.

    Attributes:
        out: where the results' folders go.
        max_faces: how many faces of a photo, largest first; None for all.
        skip_existing: leave photos alone whose result is there.
        landmarks: the user's own, replacing detection.
        texture_size: textures are written no larger than this; None leaves them as they are.
    """

    out: Path
    max_faces: int | None = None
    skip_existing: bool = False
    landmarks: Detection | None = None
    texture_size: int | None = None


@dataclass(frozen=True)
class FaceOutcome:
    """A result that was written."""

    folder: Path
    face_index: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PhotoOutcome:
    """How one photo ended.

    Attributes:
        status: "done", "skipped" or "failed".
        error: why it failed: a `FocusError` for bad input, anything else is our fault.
    """

    photo: Path
    status: str
    faces: tuple[FaceOutcome, ...] = ()
    seconds: float = 0.0
    error: Exception | None = None


@dataclass
class BatchSummary:
    """Counts and failures of a batch, growing while it runs.

    Attributes:
        outcomes: of the photos so far, in order.
        not_tried: photos left when the batch had to stop.
        interrupted: by Ctrl-C or a polite kill.
        error: what stopped the batch apart from its photos.
    """

    outcomes: list[PhotoOutcome] = field(default_factory=list)
    not_tried: int = 0
    interrupted: bool = False
    error: Exception | None = None

    def count(self, status: str) -> int:
        """Photos that ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """130 interrupted, 1 our fault, 2 bad input, 0 all fine."""
        if self.interrupted:
            return 130
        errors = [error for error in (self.error, *(outcome.error for outcome in self.outcomes)) if error]
        codes = {error.exit_code if isinstance(error, FocusError) else 1 for error in errors}
        return min(codes, default=0)


def run_batch(
    photos: list[PhotoInput],
    load_reconstructor: Callable[[], FaceReconstructor],
    options: BatchOptions,
    progress: Callable[[Path], Progress | None] = lambda path: None,
) -> Generator[PhotoOutcome, None, None]:
    """Reconstruct photos in this process, in order, yielding how each ended.

    Args:
        photos: what to do.
        load_reconstructor: called once, for the first photo that can be read: bad input is told without waiting for it.
        options: for all of them.
        progress: gives the progress callback of a photo.

    Raises:
        OutputError: results cannot be written at all, so going on would be in vain; its photo was yielded as failed.
        FocusError: `load_reconstructor` failed.
    """
    work = LocalWork(load_reconstructor, options.max_faces, options.landmarks, options.texture_size)
    return work_through(photos, work, options, progress)


def work_through(
    photos: list[PhotoInput],
    work: PhotoWork,
    options: BatchOptions,
    progress: Callable[[Path], Progress | None] = lambda path: None,
) -> Generator[PhotoOutcome, None, None]:
    """Have photos worked on, as many at once as `work` takes, yielding how each ended in their order.

    Args:
        photos: what to do.
        work: who does it; closed at the end.
        options: for all of them.
        progress: gives the progress callback of a photo.

    Raises:
        OutputError: results cannot be written at all, so going on would be in vain; its photo was yielded as failed.
        FocusError: `work` cannot go on.
    """
    names = plan_names([photo.path for photo in photos if photo.error is None])
    batch = _Batch(work, options, progress, {name.casefold() for name in names.values()})
    under_way: deque[PhotoOutcome | _Started] = deque()
    try:
        for photo in photos:
            under_way.append(batch.begin(photo, names.get(photo.path, "")))
            while under_way and (len(under_way) >= work.window or isinstance(under_way[0], PhotoOutcome)):
                yield from batch.end(under_way.popleft())
        while under_way:
            yield from batch.end(under_way.popleft())
    except BatchError as error:
        raise error.error from None
    finally:
        work.close()


@dataclass(frozen=True)
class _Started:
    """A photo under way."""

    path: Path
    name: str
    since: float
    work: PhotoUnderWay

    def failed(self, error: Exception) -> PhotoOutcome:
        return _failed(self.path, self.since, error)


def _failed(path: Path, since: float, error: Exception) -> PhotoOutcome:
    return PhotoOutcome(path, "failed", seconds=time.perf_counter() - since, error=error)


@dataclass(frozen=True)
class _Batch:
    """What beginning and ending a photo need to know of all of them.

    Attributes:
        reserved: folded names of all photos' folders.
    """

    work: PhotoWork
    options: BatchOptions
    progress: Callable[[Path], Progress | None]
    reserved: set[str]

    def begin(self, photo: PhotoInput, name: str) -> PhotoOutcome | _Started:
        """The photo under way, or how it ended where there is nothing to wait for."""
        path, since = photo.path, time.perf_counter()
        if photo.error is not None:
            return PhotoOutcome(path, "failed", error=photo.error)
        folder = self.options.out / name
        try:
            if self.options.skip_existing and _is_done(path, folder):
                return PhotoOutcome(path, "skipped", (FaceOutcome(folder, 0, ()),))
            # Before the work, so that nobody waits for a result that cannot be kept.
            check_replaceable(folder)
            return _Started(path, name, since, self.work.start(path, self.progress(path)))
        except BatchError:
            raise
        except Exception as error:  # one photo's failure, even our own fault, must not cost the others
            return _failed(path, since, error)

    def end(self, started: PhotoOutcome | _Started) -> Iterator[PhotoOutcome]:
        """How the photo ended.

        Raises:
            OutputError: going on would be in vain.
        """
        outcome = started if isinstance(started, PhotoOutcome) else self._finish(started)
        yield outcome
        if isinstance(outcome.error, OutputError) and not isinstance(outcome.error, TakenError):
            raise outcome.error

    def _finish(self, started: _Started) -> PhotoOutcome:
        try:
            result = started.work.finish()
            written = _write_faces(result, started.name, self.reserved, self.options)
        except BatchError:
            raise
        except Exception as error:  # one photo's failure, even our own fault, must not cost the others
            return started.failed(error)
        seconds = time.perf_counter() - started.since if result.seconds is None else result.seconds
        return PhotoOutcome(started.path, "done", written, seconds)


def _is_done(path: Path, folder: Path) -> bool:
    """Whether `folder` holds the result of this very photo, not of another one of its name."""
    document = read_result(folder)
    if document is None or not isinstance(document.get("photo"), dict):
        return False
    digest = photo_hash(path)
    return digest is not None and document["photo"].get("sha256") == digest


def _write_faces(result: PhotoResult, name: str, reserved: set[str], options: BatchOptions) -> tuple[FaceOutcome, ...]:
    """Write every face, the largest last: once its folder is there, all of them are."""
    written = []
    for face, folder_name in reversed(list(zip(result.faces, face_names(name, len(result.faces), reserved), strict=True))):
        folder = options.out / folder_name
        warnings = face.warnings + _replaced(folder, result.sha256)
        write_folder(face.files(), folder)
        written.append(FaceOutcome(folder, face.face_index, warnings))
    return tuple(reversed(written))


def _replaced(folder: Path, sha256: str) -> tuple[str, ...]:
    """A word on the older result, when it was not of this photo."""
    older = read_result(folder)
    source = older.get("photo") if older else None
    if not isinstance(source, dict) or source.get("sha256") == sha256:
        return ()
    return ("replaced an older result that was of another photo",)
