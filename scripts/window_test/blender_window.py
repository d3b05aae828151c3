"""A Blender with a window and a private user folder, the extension installed from its zip, and an inspector inside that answers."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .screen import HEIGHT, WIDTH, Screen, WindowTestError

BUILD = Path(__file__).parents[1] / "build_extension.py"
INSPECTOR = Path(__file__).with_name("inspector.py")
# Software drawing on a small machine is slow; nothing below measures by these.
ANSWER_SECONDS, INSTALL_SECONDS, QUIT_SECONDS = 120.0, 180.0, 20.0
PREFERENCES = """
import bpy
bpy.context.preferences.view.show_splash = False
bpy.context.preferences.view.show_developer_ui = False
bpy.context.preferences.view.filebrowser_display_type = "SCREEN"
bpy.ops.wm.save_userpref()
"""
Value = TypeVar("Value")


class BlenderWindow:
    """A running Blender.

    Attributes:
        screen: where its window is.
        folder: everything it writes: user folder, questions and answers, its log.
    """

    def __init__(self, screen: Screen, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.screen = screen
        self.folder = folder
        self.process = process
        self._number = 0

    def ask(self, name: str, **arguments: Any) -> Any:
        """The answer of a function of `inspector.ANSWERS`; WindowTestError where Blender ended, hangs or the function raised."""
        self._number += 1
        partial, answer = self.folder / "ask.partial", self.folder / f"answer-{self._number}.json"
        partial.write_text(json.dumps({"number": self._number, "name": name, "arguments": arguments}), encoding="utf-8")
        partial.replace(self.folder / "ask.json")
        give_up = time.monotonic() + ANSWER_SECONDS
        while not answer.exists():
            self.check_running()
            if time.monotonic() > give_up:
                raise WindowTestError(f"Blender did not answer for {ANSWER_SECONDS:.0f} s when asked for {name!r}")
            time.sleep(0.01)
        content = json.loads(answer.read_text(encoding="utf-8"))
        answer.unlink()
        if "exception" in content:
            raise WindowTestError(f"inside Blender, {name!r} raised: {content['exception']}")
        return content["answer"]

    def wait_for(self, what: str, look: Callable[[], Value], seconds: float, every: float = 0.1) -> Value:
        """The first true value of `look`; WindowTestError naming `what` after so many seconds."""
        give_up = time.monotonic() + seconds
        while not (seen := look()):
            if time.monotonic() > give_up:
                raise WindowTestError(f"not within {seconds:.0f} s: {what}")
            time.sleep(every)
        return seen

    def quit(self) -> None:
        """Closes Blender by its own operator, without asking whether to save; WindowTestError where it does not end well."""
        self.ask("quit_soon")
        try:
            status = self.process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise WindowTestError(f"Blender did not quit within {QUIT_SECONDS:.0f} s") from None
        if status:
            raise WindowTestError(f"Blender quit with status {status}:\n{self.log_end()}")

    def check_running(self) -> None:
        """Raises WindowTestError with the end of Blender's log where Blender has ended."""
        if self.process.poll() is not None:
            raise WindowTestError(f"Blender ended by itself with status {self.process.returncode}:\n{self.log_end()}")

    def log_end(self, lines: int = 30) -> str:
        """The last lines of what Blender printed."""
        return "\n".join((self.folder / "blender.log").read_text(errors="replace").splitlines()[-lines:])

    def tracebacks(self) -> str:
        """What Blender printed of exceptions in Python; "" where there was none."""
        text = (self.folder / "blender.log").read_text(errors="replace")
        return text[text.index("Traceback") :] if "Traceback" in text else ""


def build_extension(folder: Path) -> Path:
    """The zip for this machine, written into `folder`; WindowTestError with the reason where it cannot be built."""
    command = [sys.executable, str(BUILD), "--out", str(folder), "--platform", "here"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        raise WindowTestError(f"the extension cannot be built: {done.stderr[-2000:]}")
    return Path(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def opened_blender(
    blender: str, extension: Path, screen: Screen, folder: Path, environment: dict[str, str] | None = None
) -> Iterator[BlenderWindow]:
    """Installs the extension for nobody but this folder, opens the window, waits until the inspector answers, ends it with the block.

    Args:
        blender: a command, split as a shell would.
        extension: the zip.
        screen: where to open it.
        folder: empty; for everything it writes.
        environment: variables besides this process's own.
    """
    command = shlex.split(blender)
    if not command or shutil.which(command[0]) is None:
        raise WindowTestError(f"there is no program {blender!r}")
    user = folder / "user"
    temporary = folder / "temporary"
    for made in (user, temporary):
        made.mkdir(parents=True)
    private = {"BLENDER_USER_RESOURCES": str(user), "TMPDIR": str(temporary), "TEMP": str(temporary), "DISPLAY": screen.display}
    variables = {**os.environ, **(environment or {}), **private}
    _install(command, extension, variables)
    window = [*command, "--window-geometry", "0", "0", str(WIDTH), str(HEIGHT), "--python", str(INSPECTOR), "--", str(folder)]
    with (folder / "blender.log").open("wb") as log:
        process = subprocess.Popen(window, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        opened = BlenderWindow(screen, process, folder)
        opened.ask("layout")
        yield opened
    finally:
        _end(process)


def _install(command: list[str], extension: Path, variables: dict[str, str]) -> None:
    """By Blender's own command, then the few preferences that a test needs."""
    install = [*command, "--command", "extension", "install-file", "--repo", "user_default", "--enable", str(extension)]
    for step in (install, [*command, "--background", "--python-exit-code", "1", "--python-expr", PREFERENCES]):
        done = subprocess.run(step, env=variables, capture_output=True, text=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)
        if done.returncode or "Traceback" in done.stderr:
            said = f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}".strip() or "nothing"
            raise WindowTestError(f"the extension could not be installed; status {done.returncode}, Blender said: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
