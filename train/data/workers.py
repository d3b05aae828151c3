"""The work of `prepare` in several processes. A photo that brings its process down costs that photo only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import FocusError, NoFaceError, PhotoError
from focus_backend.files import write_whole
from focus_backend.landmarks import LandmarkDetector, create_detector
from focus_backend.photo_paths import printable
from train.data.crops import CropSettings, FaceCut, PhotoBytes, cut_photo
from train.data.index import FaceRecord, crop_path, mask_path
from train.data.photos import SourcePhoto
from train.data.processes import PATIENCE, begin_worker, interrupts_held, process_pool, stoppable


class UnexpectedError(FocusError):
    """A photo met a fault of ours, or brought its process down."""

    code = "internal"
    exit_code = 1


@dataclass(frozen=True)
class Job:
    """What all workers do.

    Attributes:
        settings: of the crops.
        detector: its name.
        folder: where crops go.
        known: hashes of photos and of their masks that are done.
    """

    settings: CropSettings
    detector: str
    folder: Path
    known: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """How a photo ended: with faces, with an error, or, with neither, because the same photo is done already."""

    sha256: str = ""
    mask_sha256: str = ""
    width: int = 0
    height: int = 0
    faces: tuple[FaceRecord, ...] | None = None
    error: FocusError | None = None

    @property
    def is_known(self) -> bool:
        """The same photo was done under another name."""
        return self.faces is None and self.error is None


def answers(photos: list[SourcePhoto], job: Job, workers: int) -> Iterator[tuple[SourcePhoto, Answer]]:
    """How each photo ended, in any order.

    Raises:
        KeyboardInterrupt: on Ctrl-C or a polite kill, when what was begun has ended.
        OutputError: crops cannot be written.
        LandmarkError, MissingDependencyError: the detector cannot be used.
    """
    with stoppable() as check_stop:
        if min(workers, len(photos)) > 1:
            yield from _in_processes(photos, job, workers, 2 * workers, check_stop)
            return
        worker = _Worker(job)
        for photo in photos:
            check_stop()
            yield photo, worker.work(photo)


class _Worker:
    """Does one photo after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._detector: LandmarkDetector = create_detector(job.detector)

    def work(self, photo: SourcePhoto) -> Answer:
        """One photo; its crops are written when this returns."""
        try:
            return self._try(photo)
        except (PhotoError, NoFaceError) as error:
            return Answer(error=error)
        except FocusError:
            raise
        except Exception as error:  # one photo's failure, even our own fault, must not cost the others
            first_line = (str(error).splitlines() or [""])[0][:200]
            problem = f"unexpected failure with {photo.name}: {type(error).__name__}: {printable(first_line)}"
            return Answer(error=UnexpectedError(problem, "please report it"))

    def _try(self, photo: SourcePhoto) -> Answer:
        data = PhotoBytes.read(photo)
        hashes = (data.sha256, data.mask_sha256)
        if hashes in self._job.known:
            return Answer(*hashes)
        cut = cut_photo(data, photo.name, self._detector, self._job.settings)
        for number, face in enumerate(cut.faces):
            write_whole(crop_path(self._job.folder, data.sha256, number), face.jpeg)
            if face.mask_png is not None:
                write_whole(mask_path(self._job.folder, data.sha256, number), face.mask_png)
        return Answer(*hashes, cut.width, cut.height, tuple(_record(face) for face in cut.faces))


def _record(face: FaceCut) -> FaceRecord:
    """A thousandth of a pixel is enough."""
    landmarks = tuple((round(x, 3), round(y, 3)) for x, y in face.landmarks.tolist())
    a, b, c, d, e, f = face.to_photo.flatten().tolist()
    return FaceRecord(landmarks=landmarks, to_photo=(a, b, c, d, e, f), score=round(face.score, 4), has_mask=face.mask_png is not None)


def _in_processes(
    photos: Iterable[SourcePhoto], job: Job, workers: int, limit: int, check_stop: Callable[[], None]
) -> Iterator[tuple[SourcePhoto, Answer]]:
    """As `answers`, with up to `limit` photos handed out at a time."""
    waiting = deque(photos)
    while waiting:
        handed_out: dict[Future[Answer], SourcePhoto] = {}
        with process_pool(workers, _start_worker, job) as pool:
            try:
                while waiting or handed_out:
                    with interrupts_held():
                        while waiting and len(handed_out) < limit:
                            handed_out[pool.submit(_work, waiting[0])] = waiting[0]
                            waiting.popleft()
                    check_stop()
                    for future in wait(handed_out, PATIENCE, FIRST_COMPLETED).done:
                        answer = future.result()
                        yield handed_out.pop(future), answer
            except BrokenProcessPool:
                # Unless the user has ended them all.
                check_stop()
                # One of them did it: each alone, the guilty one betrays itself.
                if limit > 1:
                    yield from _in_processes(list(handed_out.values()), job, 1, 1, check_stop)
                    continue
                for photo in handed_out.values():
                    yield photo, Answer(error=UnexpectedError(f"{photo.name} ends the program that reads it", "leave the photo out"))


_worker: _Worker | None = None


def _start_worker(job: Job) -> None:
    """In a new process."""
    global _worker  # the only way that a pool keeps something for its tasks
    begin_worker()
    _worker = _Worker(job)


def _work(photo: SourcePhoto) -> Answer:
    assert _worker is not None
    return _worker.work(photo)
