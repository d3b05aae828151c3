"""How photos end, as plain data that goes from process to process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from focus_backend.photo_paths import printable

OUR_FAULT, BAD_INPUT, INTERRUPTED = 1, 2, 130
_OUR_CODES = ("internal", "worker-lost")


@dataclass(frozen=True)
class Failure:
    """Why a photo failed.

    Attributes:
        code: for programs.
        problem: what was wrong, one line.
        remedy: what to do about it, one line, may be empty.
        trace: the traceback, for --debug.
    """

    code: str
    problem: str
    remedy: str = ""
    trace: str = ""

    @property
    def exit_code(self) -> int:
        """What the program ends with because of it."""
        return OUR_FAULT if self.code in _OUR_CODES else BAD_INPUT

    @property
    def line(self) -> str:
        """Problem and remedy."""
        return f"{self.problem}: {self.remedy}" if self.remedy else self.problem


class PhotoFailedError(Exception):
    """Carries a failure up to where the photo's outcome is noted."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.line)
        self.failure = failure


def failure_of(error: BaseException, trace: str = "") -> Failure:
    """An error as a failure: those with problem and remedy tell the user, all others are our fault."""
    if isinstance(error, PhotoFailedError):
        return error.failure
    problem = getattr(error, "problem", None)
    if isinstance(problem, str):
        return Failure(str(getattr(error, "code", "error")), problem, str(getattr(error, "remedy", "")), trace)
    first_line = (str(error).splitlines() or [""])[0][:200]
    detail = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
    return Failure("internal", f"unexpected failure, please report it (--debug shows where): {detail}", "", trace)


@dataclass(frozen=True)
class FaceFiles:
    """What was written of a face.

    Attributes:
        name: of the face's files, without endings.
        files: by format, names in the output folder; the format's own file first, then its pictures.
        warnings: what the user should know.
    """

    name: str
    files: dict[str, list[str]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhotoOutcome:
    """How one photo ended.

    Attributes:
        photo: as it was found.
        status: "done", "skipped" or "failed".
        seconds: from its beginning.
    """

    photo: Path
    status: str
    faces: tuple[FaceFiles, ...] = ()
    seconds: float = 0.0
    failure: Failure | None = None

    def document(self) -> dict[str, Any]:
        """For the report."""
        told: dict[str, Any] = {"photo": printable(str(self.photo)), "status": self.status, "seconds": round(self.seconds, 3)}
        if self.failure is not None:
            told["error"] = {"code": self.failure.code, "problem": self.failure.problem, "remedy": self.failure.remedy}
        return told | {"faces": [asdict(face) for face in self.faces]}
