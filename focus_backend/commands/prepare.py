"""`focus-backend train prepare`: photos to stored crops, with progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focus_backend.commands.report import error_document, error_line
from focus_backend.errors import ConfigError
from focus_backend.photo_paths import printable

if TYPE_CHECKING:
    from train.data.photos import PhotoSource
    from train.data.prepare import PhotoReport, PrepareSummary

KINDS = ("folder", "celebamask", "ar")


def prepare_command(
    kind: str,
    source: Path,
    out: Path,
    model: str = "anny",
    landmarks: str = "mediapipe",
    workers: int = 1,
    as_json: bool = False,
    *,
    size: int = 224,
    resume: bool = True,
    all_faces: bool = False,
) -> int:
    """Prepare the photos of a data set for training and report on it.

    Returns:
        The exit code: 0 when there are faces to train with, though some photos may be bad; 130 when interrupted.

    Raises:
        ConfigError: there is no such kind of source, it is not laid out like one, or `out` was prepared for something else.
        FocusError: the model or the detector cannot be used, no photo has a face, or `out` cannot be written.
    """
    from focus_backend.morphable.store import load_model
    from train.data.prepare import prepare

    photos, face_model = photo_source(kind, source), load_model(model)
    try:
        with _reporting(as_json) as report:
            options: dict[str, Any] = {"size": size, "workers": workers, "resume": resume, "all_faces": all_faces}
            summary = prepare(photos, out, face_model, landmarks, report=report, **options)
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept, run the command again to go on", file=sys.stderr)
        return 130
    print(json.dumps(_document(summary, out), ensure_ascii=False) if as_json else _text(summary, out), flush=True)
    return 0


def photo_source(kind: str, root: Path) -> PhotoSource:
    """The data set of that kind in a folder.

    Raises:
        ConfigError: there is no such kind.
    """
    from train.data.ar import MaskedPhotos
    from train.data.celebamask import CelebAMaskHQ
    from train.data.folder import PhotoFolder

    sources: dict[str, Callable[[Path], PhotoSource]] = {"folder": PhotoFolder, "celebamask": CelebAMaskHQ, "ar": MaskedPhotos}
    if kind not in sources:
        raise ConfigError(f"there is no kind of photos {kind!r}", f"choose one of {', '.join(KINDS)}")
    return sources[kind](root)


@contextmanager
def _reporting(as_json: bool) -> Iterator[Callable[[PhotoReport], None]]:
    """What is told of each photo: bad ones on a line; a bar on a terminal; for programs a line each."""
    if as_json:
        yield _say_json
    elif not sys.stderr.isatty():
        yield lambda report: _say_bad(report, lambda line: print(line, file=sys.stderr, flush=True))
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        # Names of photos are not markup: "me [1].jpg" must come out as it is.
        console = Console(stderr=True, markup=False, emoji=False)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("preparing", total=None, speed="")

            def show(report: PhotoReport) -> None:
                _say_bad(report, lambda line: bar.console.print(line, soft_wrap=True, highlight=False))
                speed = bar.tasks[task].speed
                bar.update(task, completed=report.number, total=report.total, speed=f"{speed:.1f} photos/s" if speed else "")

            yield show


def _say_bad(report: PhotoReport, say: Callable[[str], None]) -> None:
    if report.error is not None:
        line = error_line(report.error)
        say(line if report.photo in line else f"{printable(report.photo)}: {line}")


def _say_json(report: PhotoReport) -> None:
    line: dict[str, Any] = {"photo": printable(report.photo), "number": report.number, "photos": report.total, "faces": report.faces}
    if report.error is not None:
        line["error"] = error_document(report.error)
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _text(summary: PrepareSummary, out: Path) -> str:
    faces = ", ".join(f"{count} {split}" for split, count in sorted(summary.faces.items()))
    counts = f"{summary.done} prepared, {summary.known} known, {summary.bad} bad"
    bad = f"; the bad ones and why: {printable(str(out / 'bad.jsonl'))}" if summary.bad else ""
    return f"{summary.photos} photos: {counts}, {summary.seconds:.1f} s; faces in {printable(str(out))}: {faces}{bad}"


def _document(summary: PrepareSummary, out: Path) -> dict[str, Any]:
    return {"summary": vars(summary) | {"seconds": round(summary.seconds, 3), "out": printable(str(out))}}
