"""What a batch says: lines for people, JSON lines for machines, a progress bar for a terminal."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focus_backend.commands.batch import BatchSummary, PhotoOutcome
from focus_backend.errors import FocusError
from focus_backend.photo_paths import printable
from focus_backend.progress import Preview, Progress


def error_line(error: BaseException) -> str:
    """One line on an error: what was wrong and what to do."""
    if isinstance(error, FocusError):
        return f"{error.problem}: {error.remedy}" if error.remedy else error.problem
    first_line = (str(error).splitlines() or [""])[0][:200]
    detail = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return f"unexpected failure, please report it (--debug shows where): {printable(detail)}"


def error_document(error: BaseException) -> dict[str, str]:
    """An error for machines."""
    if isinstance(error, FocusError):
        return {"code": error.code, "problem": error.problem, "remedy": error.remedy}
    return {"code": "internal", "problem": error_line(error), "remedy": ""}


class TextReport:
    """Lines for people: results to stdout, errors to stderr, a progress bar when stderr is a terminal."""

    def __init__(self, photos: int, debug: bool) -> None:
        self._photos = photos
        self._debug = debug
        self._finished = 0
        self._under_way: dict[Path, float] = {}
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the bar, on a terminal only, and take it away whatever happens."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # Names of photos are not markup: "me [1].jpg" must come out as it is.
        console = Console(stderr=True, markup=False, emoji=False)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as self._bar:
            self._task = self._bar.add_task("starting", total=self._photos)
            try:
                yield
            finally:
                self._bar = None

    def progress(self, path: Path) -> Progress | None:
        """The callback that moves the bar within one photo."""
        if self._bar is None:
            return None
        name = printable(path.name)
        self._under_way[path] = 0.0

        def show(stage: str, fraction: float, preview: Preview | None = None) -> None:
            # A word on a photo may come after its outcome.
            if path in self._under_way and self._bar is not None:
                self._under_way[path] = min(max(fraction, 0.0), 1.0)
                self._bar.update(self._task, description=f"{name}: {stage}", completed=self._completed())

        return show

    def note(self, line: str) -> None:
        """What the user should know about the batch while it runs."""
        self._say(f"note: {line}", error=True)

    def outcome(self, outcome: PhotoOutcome) -> None:
        """One line for each result, or one for the failure."""
        name = printable(str(outcome.photo))
        if outcome.status == "skipped":
            self._say(f"{name}: skipped, {printable(str(outcome.faces[0].folder))} is there")
        for face in outcome.faces if outcome.status == "done" else ():
            which = f", face {face.face_index + 1} of {len(outcome.faces)}" if len(outcome.faces) > 1 else ""
            self._say(f"{name}: {printable(str(face.folder))}{which} ({outcome.seconds:.1f} s)")
            for warning in face.warnings:
                self._say(f"  note: {warning}", error=True)
        if outcome.error is not None:
            self._say(f"error: {_with_name(name, outcome)}", error=True)
            if self._debug:
                self._say("".join(traceback.format_exception(outcome.error)), error=True)
        self._finished += 1
        self._under_way.pop(outcome.photo, None)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._completed())

    def finish(self, summary: BatchSummary, seconds: float, out: Path) -> None:
        """Totals, and the failures once more, for they may have scrolled away."""
        failures = [outcome for outcome in summary.outcomes if outcome.status == "failed"]
        if summary.interrupted:
            self._say("interrupted: what was finished is kept, nothing is half-written", error=True)
        if self._photos > 1:
            faces = sum(len(outcome.faces) for outcome in summary.outcomes if outcome.status == "done")
            counts = f"{summary.count('done')} done ({faces} faces), {summary.count('skipped')} skipped, {len(failures)} failed"
            rest = f", {summary.not_tried} not tried" if summary.not_tried else ""
            self._say(f"{self._photos} photos: {counts}{rest}, {seconds:.1f} s, results in {printable(str(out))}")
            for outcome in failures:
                self._say(f"failed: {_with_name(printable(str(outcome.photo)), outcome)}", error=True)

    def _completed(self) -> float:
        """Photos that are done, with the parts of those under way."""
        return self._finished + sum(list(self._under_way.values()))

    def _say(self, line: str, error: bool = False) -> None:
        # A line for the same terminal must go through the bar, which steps aside; one for a file or a pipe must not.
        if self._bar is not None and (error or sys.stdout.isatty()):
            self._bar.console.print(line, soft_wrap=True, highlight=False)
        else:
            print(line, file=sys.stderr if error else sys.stdout, flush=True)


class JsonReport:
    """One JSON object a line on stdout: each face, each skipped or failed photo, a summary at the end."""

    def __init__(self, photos: int, debug: bool) -> None:
        self._photos = photos
        self._debug = debug

    @contextmanager
    def running(self) -> Iterator[None]:
        """Nothing to show meanwhile."""
        yield

    def progress(self, path: Path) -> Progress | None:
        """Machines read lines, not bars."""
        return None

    def note(self, line: str) -> None:
        """To stderr, for stdout holds results only."""
        print(f"note: {line}", file=sys.stderr, flush=True)

    def outcome(self, outcome: PhotoOutcome) -> None:
        """A line a face, or one for the photo."""
        common = {"photo": printable(str(outcome.photo)), "status": outcome.status}
        if outcome.error is not None:
            self._say(common | {"error": error_document(outcome.error)})
            if self._debug:
                traceback.print_exception(outcome.error)
        for face in outcome.faces:
            line = common | {"folder": printable(str(face.folder)), "face": face.face_index, "faces": len(outcome.faces)}
            self._say(line | {"seconds": round(outcome.seconds, 3), "warnings": list(face.warnings)})

    def finish(self, summary: BatchSummary, seconds: float, out: Path) -> None:
        """The summary's line."""
        counts = {status: summary.count(status) for status in ("done", "skipped", "failed")}
        faces = sum(len(outcome.faces) for outcome in summary.outcomes if outcome.status == "done")
        totals = {"photos": self._photos, **counts, "not_tried": summary.not_tried, "faces": faces}
        more = {"interrupted": summary.interrupted, "exit_code": summary.exit_code, "seconds": round(seconds, 3)}
        error = {"error": error_document(summary.error)} if summary.error else {}
        self._say({"summary": totals | more | error | {"out": printable(str(out))}})

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line, ensure_ascii=False), flush=True)


def _with_name(name: str, outcome: PhotoOutcome) -> str:
    """The error's line, led by the photo's path where the line does not name it already."""
    assert outcome.error is not None
    line = error_line(outcome.error)
    return line if name in line else f"{name}: {line}"
