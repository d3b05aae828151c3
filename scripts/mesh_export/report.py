"""What a batch says: a line a photo, a table of failures at the end, and report.json."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from focus_backend.photo_paths import printable

from .manifest import write_json
from .outcome import INTERRUPTED, Failure, PhotoOutcome


@dataclass
class Report:
    """Counts and failures of a batch, growing while it runs.

    Attributes:
        photos: how many there are.
        out: folder of the files.
        debug: show tracebacks.
        outcomes: of the photos so far, in the order in which they ended.
        interrupted: by Ctrl-C or a polite kill.
        stopped: what ended the batch apart from its photos.
    """

    photos: int
    out: Path
    debug: bool = False
    outcomes: list[PhotoOutcome] = field(default_factory=list)
    interrupted: bool = False
    stopped: Failure | None = None

    @property
    def exit_code(self) -> int:
        """130 interrupted, 1 our fault, 2 bad input, 0 all fine."""
        if self.interrupted:
            return INTERRUPTED
        failures = [self.stopped, *(outcome.failure for outcome in self.outcomes)]
        return min((failure.exit_code for failure in failures if failure is not None), default=0)

    def add(self, outcome: PhotoOutcome) -> None:
        """Takes note of a photo's end and tells it."""
        self.outcomes.append(outcome)
        name = printable(str(outcome.photo))
        for face in outcome.faces:
            files = ", ".join(group[0] for group in face.files.values())
            how = "skipped, there already" if outcome.status == "skipped" else f"{outcome.seconds:.1f} s"
            _say(f"{name}: {printable(files)} ({how})")
            for warning in face.warnings:
                _say(f"  note: {printable(warning)}", error=True)
        if outcome.failure is not None:
            _say(f"error: {_named(name, outcome.failure)}", error=True)
            if self.debug and outcome.failure.trace:
                _say(outcome.failure.trace, error=True)

    def finish(self, seconds: float) -> None:
        """Totals, the failures once more, and report.json in the output folder, if that can be written."""
        counts = {status: sum(outcome.status == status for outcome in self.outcomes) for status in ("done", "skipped", "failed")}
        counts["not_tried"] = self.photos - len(self.outcomes)
        if self.interrupted:
            _say("interrupted: what was finished is kept, nothing is half-written", error=True)
        if self.stopped is not None:
            _say(f"error: {printable(self.stopped.line)}", error=True)
            if self.debug and self.stopped.trace:
                _say(self.stopped.trace, error=True)
        told = ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in counts.items() if number or status == "done")
        _say(f"{self.photos} photo{'s' if self.photos != 1 else ''}: {told}, {seconds:.1f} s, files in {printable(str(self.out))}")
        self._show_failures()
        summary = {"photos": self.photos, **counts, "seconds": round(seconds, 3), "exit_code": self.exit_code}
        document = {"summary": summary, "photos": [outcome.document() for outcome in self.outcomes]}
        if self.stopped is not None:
            document["error"] = {"code": self.stopped.code, "problem": self.stopped.problem, "remedy": self.stopped.remedy}
        try:
            write_json(self.out / "report.json", document)
        except OSError as error:
            _say(f"report.json could not be written: {error.strerror}", error=True)

    def _show_failures(self) -> None:
        failed = [(outcome.photo, outcome.failure) for outcome in self.outcomes if outcome.failure is not None]
        rows = [(printable(photo.name), failure.code, printable(failure.line)) for photo, failure in failed]
        if not rows:
            return
        rows.insert(0, ("photo", "error", "what was wrong, and what to do"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, code, line in rows:
            _say(f"  {name:<{widths[0]}}  {code:<{widths[1]}}  {line}", error=True)


def _named(name: str, failure: Failure) -> str:
    """The failure's line, led by the photo's path where it does not name it already."""
    line = printable(failure.line)
    return line if name in line else f"{name}: {line}"


def _say(line: str, error: bool = False) -> None:
    print(line, file=sys.stderr if error else sys.stdout, flush=True)
