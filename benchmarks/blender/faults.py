"""Faults, one after another, in a real Blender: what the user sees of each, how soon, and whether the next photo works."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.blender.faults_stage import Case, Seen, Stage
from benchmarks.blender.played_blender import SkippedError
from benchmarks.serving.report import console, table
from scripts.window_test.screen import WindowTestError

COLUMNS = ("case", "what the user sees (problem / remedy)", "after, s", "the next good photo", "orphans", "as documented")


@dataclass(frozen=True)
class Row:
    """A case that was played.

    Attributes:
        name: of the case.
        seen: what came of it; None where it failed or was not played.
        orphans: processes that were left.
        trouble: why it failed; "" where it did not.
        skipped: why it was not played; "" where it was.
    """

    name: str
    seen: Seen | None = None
    orphans: tuple[str, ...] = ()
    trouble: str = ""
    skipped: str = ""

    @property
    def is_well(self) -> bool:
        """Whether all was as documented, or nothing was played."""
        return not self.trouble and not self.orphans

    def cells(self) -> list[str]:
        """As the table shows it."""
        if self.skipped:
            return [self.name, f"not played: {self.skipped}", "-", "-", "-", "-"]
        left = "; ".join(self.orphans) or "none"
        if self.seen is None:
            return [self.name, self.trouble, "-", "-", left, "NO"]
        took = "-" if self.seen.seconds is None else f"{self.seen.seconds:.2f}"
        return [self.name, self.seen.text, took, self.seen.next_photo, left, "yes" if self.is_well else "NO"]


def run_faults(stage: Stage, only: Sequence[str], markdown: Path | None) -> bool:
    """Print a table; whether every case was as documented.

    Args:
        stage: where; the path of its folder short, for sockets lie there.
        only: cases whose name contains one of these; all without any.
        markdown: a file for the table; None for none.
    """
    from benchmarks.blender.faults_backends import BACKEND_CASES
    from benchmarks.blender.faults_photos import PHOTO_CASES
    from benchmarks.blender.faults_sessions import SESSION_CASES

    cases = {name: case for name, case in (BACKEND_CASES | PHOTO_CASES | SESSION_CASES).items() if not only or any(o in name for o in only)}
    if not cases:
        raise WindowTestError(f"no case has a name with {', '.join(only)}")
    rows, screen = [], console()
    try:
        stands = stage.ordinary.stands
        title = f"faults in Blender {stands['blender']}, Python {stands['python']}"
        for name, case in cases.items():
            rows.append(play(stage, name, case))
            screen.print(f"{'ok' if rows[-1].is_well else 'BAD':4}" + " | ".join(rows[-1].cells()), markup=False)
    finally:
        left = stage.close()
    screen.print(table(title, COLUMNS, [[cell.replace("[", "\\[") for cell in row.cells()] for row in rows]))
    if left:
        screen.print(f"left behind: {', '.join(left)}", markup=False)
    if markdown is not None:
        markdown.write_text(as_markdown(title, rows, str(stage.folder)), encoding="utf-8")
    return all(row.is_well for row in rows) and not left


def play(stage: Stage, name: str, case: Case) -> Row:
    """One case."""
    begun = time.monotonic()
    try:
        seen, trouble = case(stage), ""
    except SkippedError as reason:
        return Row(name, orphans=tuple(stage.orphans()), skipped=str(reason))
    except Exception as error:
        seen, trouble = None, f"FAILED after {time.monotonic() - begun:.0f} s, {type(error).__name__}: {error}"
    return Row(name, seen, tuple(stage.orphans()), trouble)


def as_markdown(title: str, rows: Sequence[Row], folder: str) -> str:
    """The table for a document; paths of this run are shortened."""
    lines = [f"**{title}**", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = [" ".join(cell.replace(folder, "...").split()).replace("|", "\\|") for cell in row.cells()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def installed_backend() -> Path:
    """That of this Python's environment, or on the PATH."""
    beside = Path(sys.executable).with_name("focus-backend")
    found = str(beside) if beside.exists() else shutil.which("focus-backend")
    if found is None:
        raise WindowTestError("there is no focus-backend: give it with --backend")
    return Path(found)
