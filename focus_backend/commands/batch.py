"""A batch of photos, one after the other; a bad one is noted and the rest is done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from focus_backend.commands.inputs import PhotoInput
from focus_backend.errors import FocusError, OutputError
from focus_backend.export.folder import TakenError, check_replaceable, face_folders, plan_folders, read_result
from focus_backend.landmarks.detector import Detection
from focus_backend.photo import Photo, photo_hash, read_photo

Progress = Callable[[str, float], None]


@runtime_checkable
class FaceReconstructor(Protocol):
    """The part of `Reconstructor` that a batch needs."""

    def reconstruct(
        self, photo: Photo, *, landmarks: Detection | None = None, max_faces: int | None = None, progress: Progress | None = None
    ) -> list[Any]:
        """The faces of the photo, largest first."""
        ...


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
) -> Iterator[PhotoOutcome]:
    """Reconstruct photos in order, yielding how each ended.

    Args:
        photos: what to do.
        load_reconstructor: called once, for the first photo that can be read: bad input is told without waiting for it.
        options: for all of them.
        progress: gives the progress callback of a photo.

    Raises:
        OutputError: results cannot be written at all, so going on would be in vain; its photo was yielded as failed.
        FocusError: `load_reconstructor` failed.
    """
    names = plan_folders([photo.path for photo in photos if photo.error is None])
    reserved = {name.casefold() for name in names.values()}
    load = _once(load_reconstructor)
    for photo in photos:
        if photo.error is not None:
            yield PhotoOutcome(photo.path, "failed", error=photo.error)
            continue
        outcome = _one_photo(photo.path, names[photo.path], reserved, load, options, progress)
        yield outcome
        if isinstance(outcome.error, OutputError) and not isinstance(outcome.error, TakenError):
            raise outcome.error


class _LoadError(Exception):
    """Carries a failure to load past the handling of single photos."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _once(load: Callable[[], FaceReconstructor]) -> Callable[[], FaceReconstructor]:
    kept: list[FaceReconstructor] = []

    def loaded() -> FaceReconstructor:
        if not kept:
            try:
                kept.append(load())
            except Exception as error:
                raise _LoadError(error) from error
        return kept[0]

    return loaded


def _one_photo(
    path: Path,
    name: str,
    reserved: set[str],
    load: Callable[[], FaceReconstructor],
    options: BatchOptions,
    progress: Callable[[Path], Progress | None],
) -> PhotoOutcome:
    started = time.perf_counter()
    folder = options.out / name
    try:
        if options.skip_existing and _is_done(path, folder):
            return PhotoOutcome(path, "skipped", (FaceOutcome(folder, 0, ()),))
        # Before the work, so that nobody waits for a result that cannot be kept.
        check_replaceable(folder)
        photo = read_photo(path)
        landmarks = _landmarks_in(photo, options.landmarks) if options.landmarks is not None else None
        faces = load().reconstruct(photo, landmarks=landmarks, max_faces=options.max_faces, progress=progress(path))
        written = _write_faces(faces, photo, name, reserved, options)
    except _LoadError as error:
        raise error.error from None
    except Exception as error:  # one photo's failure, even our own fault, must not cost the others
        return PhotoOutcome(path, "failed", seconds=time.perf_counter() - started, error=error)
    return PhotoOutcome(path, "done", written, time.perf_counter() - started)


def _landmarks_in(photo: Photo, landmarks: Detection) -> Detection:
    """The user's landmarks, measured in the upright file, in pixels of the photo as it was scaled down.

    Raises:
        LandmarkError: one lies outside the photo.
    """
    from focus_backend.landmarks.user import check_inside

    check_inside(landmarks, *photo.original_size)
    left, top, right, bottom = (edge * photo.scale for edge in landmarks.box)
    return dataclasses.replace(
        landmarks,
        points=landmarks.points * photo.scale,
        five_points=landmarks.five_points * photo.scale,
        box=(left, top, right, bottom),
    )


def _is_done(path: Path, folder: Path) -> bool:
    """Whether `folder` holds the result of this very photo, not of another one of its name."""
    document = read_result(folder)
    if document is None or not isinstance(document.get("photo"), dict):
        return False
    digest = photo_hash(path)
    return digest is not None and document["photo"].get("sha256") == digest


def _write_faces(faces: list[Any], photo: Photo, name: str, reserved: set[str], options: BatchOptions) -> tuple[FaceOutcome, ...]:
    """Write every face, the largest last: once its folder is there, all of them are."""
    from focus_backend.export.bundle import with_texture_size, write_reconstruction

    written = []
    for face, folder_name in reversed(list(zip(faces, face_folders(name, len(faces), reserved), strict=True))):
        folder = options.out / folder_name
        warnings = face.warnings + _replaced(folder, photo)
        write_reconstruction(with_texture_size(face, options.texture_size), folder)
        written.append(FaceOutcome(folder, face.face_index, warnings))
    return tuple(reversed(written))


def _replaced(folder: Path, photo: Photo) -> tuple[str, ...]:
    """A word on the older result, when it was not of this photo."""
    older = read_result(folder)
    source = older.get("photo") if older else None
    if not isinstance(source, dict) or source.get("sha256") == photo.sha256:
        return ()
    return ("replaced an older result that was of another photo",)
