"""`focus-backend reconstruct`: from checked options to results and an exit code."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from focus_backend.commands.batch import BatchOptions, BatchSummary, work_through
from focus_backend.commands.inputs import find_photos, in_results_below
from focus_backend.commands.local_work import FaceReconstructor, LocalWork
from focus_backend.commands.photo_work import PhotoWork
from focus_backend.commands.report import JsonReport, TextReport
from focus_backend.errors import ConfigError, OutputError
from focus_backend.export.folder import check_writable
from focus_backend.landmarks.user_points import read_landmarks
from focus_backend.reconstruction.loading import collection_paused, use_threads

# Options that choose what a reconstructor loads: the server has loaded its own.
SERVER_OPTIONS = ("model", "weights", "device", "landmarks", "threads")


@dataclass(frozen=True)
class ReconstructOptions:
    """The command's options; `None` leaves a choice to the program."""

    photos: list[str]
    out: Path
    model: str = "anny"
    landmarks: str = "mediapipe"
    landmarks_file: Path | None = None
    method: str = "auto"
    weights: str | None = None
    misfit: bool = True
    faces: str = "all"
    recursive: bool = False
    skip_existing: bool = False
    device: str = "auto"
    threads: int = 1
    texture_size: int | None = None
    json: bool = False
    debug: bool = False
    # "auto", a ready file, a key file or an address; None for this process.
    server: str | None = None
    key: Path | None = None
    # Names of the options that were given, for some of them are the server's to choose.
    given: frozenset[str] = frozenset()


def reconstruct_photos(options: ReconstructOptions, load: Callable[[], FaceReconstructor] | None = None) -> int:
    """Reconstruct all photos and report each; the exit code.

    Args:
        options: from the command line.
        load: gives the reconstructor; the default loads the one the options name.

    Raises:
        ConfigError: options that contradict each other.
        OutputError: the output folder cannot be used at all.
        FocusError: the reconstructor cannot be loaded, or the server cannot be used.
    """
    _check_server_options(options)
    started = time.perf_counter()
    photos = find_photos(options.photos, options.recursive, in_results_below(options.out))
    max_faces = parse_faces(options.faces)
    if options.landmarks_file is not None and len(photos) != 1:
        raise ConfigError(f"--landmarks-file belongs to one photo, but {len(photos)} were given", "give one photo")
    landmarks = read_landmarks(options.landmarks_file) if options.landmarks_file is not None else None
    batch = BatchOptions(options.out, max_faces, options.skip_existing, landmarks, options.texture_size)
    report = (JsonReport if options.json else TextReport)(len(photos), options.debug)
    summary = BatchSummary()
    with _usable_folder(options.out), _terminable():
        try:
            with report.running():
                work = _local_work(options, batch, load) if options.server is None else _server_work(options, batch, report.note)
                with closing(work_through(photos, work, batch, report.progress)) as outcomes:
                    for outcome in outcomes:
                        summary.outcomes.append(outcome)
                        report.outcome(outcome)
        except KeyboardInterrupt:
            summary.interrupted = True
        except OutputError:
            # Reported with its photo already; the rest would end the same way.
            pass
        except Exception as error:
            summary.error = error
            raise
        finally:
            summary.not_tried = len(photos) - len(summary.outcomes)
            report.finish(summary, time.perf_counter() - started, options.out)
    return summary.exit_code


def parse_faces(value: str) -> int | None:
    """How many faces of a photo; None for "all".

    Raises:
        ConfigError: neither "all" nor a positive whole number.
    """
    if value.strip().lower() == "all":
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise ConfigError(f"--faces {value!r} is not a number of faces", "give a whole number from 1, or all")


def _check_server_options(options: ReconstructOptions) -> None:
    if options.server is None:
        if options.key is not None:
            raise ConfigError("--key is of use with a server only", "give --server too")
        return
    of_server = [f"--{name}" for name in SERVER_OPTIONS if name in options.given]
    if of_server:
        raise ConfigError(
            f"{', '.join(of_server)} cannot go with --server", "these are given to `focus-backend serve`; leave them out here"
        )


def _local_work(options: ReconstructOptions, batch: BatchOptions, load: Callable[[], FaceReconstructor] | None) -> PhotoWork:
    return LocalWork(load or (lambda: _load(options)), batch.max_faces, batch.landmarks, batch.texture_size)


def _server_work(options: ReconstructOptions, batch: BatchOptions, note: Callable[[str], None]) -> PhotoWork:
    """Photos of this batch at a server; torch is never imported."""
    from focus_backend.commands.server_work import ServerWork
    from focus_backend.serving.client import Client
    from focus_backend.serving.wire import Landmarks, Options

    assert options.server is not None
    server, key = options.server, options.key
    points = batch.landmarks
    wanted = Options(
        method=None if options.method == "auto" else options.method,
        misfit=options.misfit,
        faces=batch.max_faces,
        texture_size=batch.texture_size,
        landmarks=None if points is None else Landmarks(dict(zip(points.names, points.points.tolist(), strict=True))),
    )
    return ServerWork(lambda: Client.connect(server, key), wanted, note)


def _load(options: ReconstructOptions) -> FaceReconstructor:
    """The reconstructor of the options; torch and the networks are imported here and not before."""
    with collection_paused():
        use_threads(options.threads)
        from focus_backend.reconstruction.method import choose_device
        from focus_backend.reconstruction.reconstructor import Reconstructor

        device = options.device if options.device == "auto" else choose_device(options.device)
        return Reconstructor.load(
            model=options.model,
            landmarks=options.landmarks,
            device=device,
            method=options.method,
            weights=options.weights,
            misfit=options.misfit,
        )


@contextmanager
def _usable_folder(out: Path) -> Iterator[None]:
    """The output folder, made where it is missing and taken away again if nothing came into it."""
    is_new = not out.exists()
    check_writable(out)
    try:
        yield
    finally:
        if is_new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _terminable() -> Iterator[None]:
    """A polite kill ends the batch as Ctrl-C does: nothing half-written stays behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        older = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, older)
