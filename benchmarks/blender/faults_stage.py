"""What the cases of `faults` have to do with: Blenders, a good photo, and what the documentation promises."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.blender.played_blender import PlayedBlender, Setting, open_blender
from scripts.window_test.screen import Screen, WindowTestError, opened_screen

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "blender.md"
ALL_PREFERENCES = {"backend_mode": "AUTOMATIC", "executable": "", "address": "", "key_file": ""}


@dataclass(frozen=True)
class Seen:
    """What came of a case.

    Attributes:
        text: what the user saw.
        seconds: from the fault, or from the button, until it was said; None where nothing was.
        next_photo: how the next good photo went.
    """

    text: str
    seconds: float | None
    next_photo: str


@dataclass
class Stage:
    """Where cases are played.

    Attributes:
        command: that starts Blender.
        extension: the zip.
        backend: focus-backend.
        photo: with a face.
        folder: for all files.
        left: processes that Blenders have left behind, since somebody last looked.
    """

    command: Sequence[str]
    extension: Path
    backend: Path
    photo: Path
    folder: Path
    left: list[str] = field(default_factory=list)
    _ordinary: PlayedBlender | None = None
    _number: int = 0
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _screen: Screen | None = None

    @property
    def ordinary(self) -> PlayedBlender:
        """A Blender without a window that several cases share."""
        if self._ordinary is None or self._ordinary.process.poll() is not None:
            self._ordinary = open_blender(self.setting())
        return self._ordinary

    @property
    def screen(self) -> Screen:
        """A virtual screen for those that need a window."""
        if self._screen is None:
            self._screen = self._open.enter_context(opened_screen())
        return self._screen

    def setting(self, *, window: bool = False, before: Sequence[str] = (), user: Path | None = None, **environment: str) -> Setting:
        """Of a Blender with a folder and a home of its own; a home is set when it is open, for its start may need the user's."""
        self._number += 1
        variables = {"FOCUS_BACKEND": str(self.backend), "TMPDIR": str(self.new_folder("temporary")), **environment}
        folder = self.folder / f"b{self._number}"
        return Setting(self.command, self.extension, folder, variables, before, user, self.screen if window else None)

    @contextlib.contextmanager
    def opened(self, setting: Setting) -> Iterator[PlayedBlender]:
        """Ends it with the block, and notes what it leaves."""
        blender = open_blender(setting)
        try:
            yield blender
        finally:
            self.left += blender.end()

    def new_folder(self, name: str) -> Path:
        """Empty."""
        self._number += 1
        made = self.folder / f"{name}-{self._number}"
        made.mkdir()
        return made

    def orphans(self) -> list[str]:
        """Since the last call."""
        found, self.left = self.left, []
        return found + (self._ordinary.orphans() if self._ordinary is not None else [])

    def close(self) -> list[str]:
        """Ends everything; what is left."""
        left = self._ordinary.end() if self._ordinary is not None else []
        self._open.close()
        return left


Case = Callable[[Stage], Seen]


def shown(panel: dict[str, Any] | None) -> str:
    """Problem and remedy, as the panel writes them."""
    if panel is None:
        return "nothing"
    return str(panel["shown"])


def check_told(panel: dict[str, Any] | None, *fragments: str) -> None:
    """Whether the panel tells a problem that the documentation lists, and what to do about it.

    Args:
        panel: what it shows.
        fragments: of the problem; the first of the documentation, too.

    Raises:
        WindowTestError: it does not.
    """
    if panel is None:
        raise WindowTestError("the panel shows no error")
    # Code is set apart by backquotes there that the panel has not.
    if fragments[0] not in DOCUMENTATION.read_text("utf-8").replace("`", ""):
        raise WindowTestError(f"{DOCUMENTATION.name} does not explain {fragments[0]!r}")
    for fragment in fragments:
        if fragment not in panel["problem"]:
            raise WindowTestError(f"the panel does not say {fragment!r} but: {shown(panel)}")
    if not panel["remedy"]:
        raise WindowTestError(f"there is no remedy for: {shown(panel)}")
    if "Traceback" in panel["problem"] or "\n" in panel["problem"]:
        raise WindowTestError(f"the problem is no single clear line: {shown(panel)}")


def expect_failure(blender: PlayedBlender, photo: Path, *fragments: str) -> tuple[str, float]:
    """A photo that has to fail with these words; what the panel showed, and after how many seconds."""
    begun = time.monotonic()
    answer = blender.ask("reconstruct", 240, filepath=str(photo), method="auto")
    return told_after(blender, answer, begun, *fragments)


def told_after(blender: PlayedBlender, answer: dict[str, str], begun: float, *fragments: str) -> tuple[str, float]:
    """The same for an operator that has answered."""
    took, panel = time.monotonic() - begun, blender.look()["panel"]
    if answer["result"] != "CANCELLED":
        raise WindowTestError(f"the operator ended with {answer}")
    check_told(panel, *fragments)
    assert panel is not None
    if panel["problem"] not in answer["said"]:
        raise WindowTestError(f"the operator said {answer['said']!r}, the panel {panel['problem']!r}")
    return shown(panel), took


def end_of(blender: PlayedBlender, future: Future[Any], begun: float, *fragments: str) -> tuple[str, float]:
    """The same for an operator that was begun before the fault."""
    return told_after(blender, blender.answer_of(future, 60), begun, *fragments)


def next_photo(blender: PlayedBlender, photo: Path) -> str:
    """Reconstructs a good photo; in words."""
    return f"works, {blender.good_photo(photo):.1f} s"


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    """Writes a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.chmod(path, mode)
    return path


def words(*arguments: object) -> str:
    """A command of the shell."""
    return shlex.join(str(argument) for argument in arguments)
