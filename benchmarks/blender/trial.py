"""A Blender of its own for each measurement, on a virtual screen, with the photo chosen in the panel."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.window_test.blender_window import opened_blender
from scripts.window_test.checks import Checks
from scripts.window_test.panel import Sidebar
from scripts.window_test.screen import opened_screen
from scripts.window_test.steps import TAB, Visit, choose_photo


@dataclass(frozen=True)
class TrialOptions:
    """What is measured with what.

    Attributes:
        blender: command that starts it.
        extension: the zip.
        backend: focus-backend; None to have it found.
        photo: with a face.
    """

    blender: str
    extension: Path
    backend: Path | None
    photo: Path


@contextlib.contextmanager
def opened_trial(options: TrialOptions) -> Iterator[Visit]:
    """Ends Blender, its backend and the screen with the block, and leaves no file."""
    environment = {"FOCUS_BACKEND": str(options.backend)} if options.backend else {}
    with (
        tempfile.TemporaryDirectory(prefix="focus-window-", ignore_cleanup_errors=True) as folder,
        opened_screen() as screen,
        opened_blender(options.blender, options.extension, screen, Path(folder) / "blender", environment) as window,
    ):
        sidebar = Sidebar(window)
        visit = Visit(window, sidebar, Path(folder), Checks(), options.photo, options.photo)
        sidebar.open(TAB)
        choose_photo(visit, options.photo)
        yield visit
        window.quit()
