"""Tries the extension in a real Blender with a real window, as a user would, and takes pictures.

python scripts/try_in_blender.py --blender blender --out shots

It builds the extension, installs it into a private user folder, opens Blender on a virtual screen, and works with mouse and keys: the
sidebar, the photo, the button. From inside, Blender is asked whether what the pictures show is true. Your own Blender's settings are not
touched. Needed: Xvfb (or --display), xdotool, ImageMagick's import, and a backend; Linux with X11.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from window_test.blender_window import BlenderWindow, build_extension, opened_blender
from window_test.checks import Checks
from window_test.panel import Sidebar
from window_test.pictures import write_faceless_photo
from window_test.processes import descendants, is_running
from window_test.screen import WindowTestError, opened_screen
from window_test.steps import STEPS, Visit

ROOT = Path(__file__).resolve().parent.parent
END_SECONDS = 15.0


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blender", default="blender", help="command that starts Blender 4.2 or later")
    parser.add_argument("--backend", type=Path, help="focus-backend; found by the extension itself when left out")
    parser.add_argument("--out", type=Path, default=Path("shots"), help="folder for pictures and report.json")
    parser.add_argument("--photo", type=Path, default=ROOT / "docs" / "demo" / "astronaut.jpg", help="with one face")
    parser.add_argument("--extension", type=Path, help="zip; built when left out")
    parser.add_argument("--display", default="", help="a screen that is there, as :1; a virtual one when left out")
    parser.add_argument("--steps", default=",".join(STEPS), help="with commas between; the first has to be see_idle")
    options = parser.parse_args()
    if not options.photo.is_file():
        parser.error(f"there is no photo {options.photo}")
    if unknown := [name for name in options.steps.split(",") if name not in STEPS]:
        parser.error(f"there is no step {unknown[0]}: choose among {', '.join(STEPS)}")
    return options


def try_extension(options: argparse.Namespace, folder: Path, checks: Checks) -> None:
    """Goes through all steps; WindowTestError where one cannot be ended."""
    extension = options.extension or build_extension(folder / "extension")
    environment = {"FOCUS_BACKEND": str(options.backend.resolve())} if options.backend else {}
    out = options.out.resolve()
    with (
        opened_screen(options.display) as screen,
        opened_blender(options.blender, extension.resolve(), screen, folder / "blender", environment) as window,
    ):
        visit = Visit(window, Sidebar(window), out, checks, *prepare_photos(options.photo, folder))
        checks.measure("versions", window.ask("version"))
        try:
            for name in options.steps.split(","):
                print(f"{name}: {(STEPS[name].__doc__ or '').splitlines()[0]}", flush=True)
                STEPS[name](visit)
            quit_blender(window, checks)
        finally:
            if window.process.poll() is None:
                screen.picture(out / "last.png")
            shutil.copy(folder / "blender" / "blender.log", out / "blender.log")
        checks.expect(not window.tracebacks(), "Blender printed no exception of Python", window.tracebacks())


def prepare_photos(photo: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of the photo and one without a face, in a folder with a space and letters beyond ASCII, as users have them."""
    photos = folder / "Fotos für Ölbilder"
    photos.mkdir()
    return Path(shutil.copy(photo, photos)), write_faceless_photo(photos / "meadow.png")


def quit_blender(window: BlenderWindow, checks: Checks) -> None:
    """Quits, and looks whether the backend goes too."""
    children = descendants(window.process.pid)
    window.quit()
    give_up = time.monotonic() + END_SECONDS
    while (left := [child for child in children if is_running(child)]) and time.monotonic() < give_up:
        time.sleep(0.2)
    checks.expect(not left, f"the backend ({len(children)} processes) ends with Blender", left)


def main() -> int:
    """Returns the exit status: 0 where everything is as it should be."""
    options, checks = read_arguments(), Checks()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="focus-window-", ignore_cleanup_errors=True) as folder:
        try:
            try_extension(options, Path(folder), checks)
        except (WindowTestError, subprocess.SubprocessError) as error:
            checks.expect(False, str(error))
    checks.write(options.out / "report.json")
    print(f"\n{len(checks.held)} checks held, {len(checks.failures)} did not; pictures in {options.out}")
    for failure in checks.failures:
        print(f"try_in_blender: {failure}", file=sys.stderr)
    return 1 if checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
