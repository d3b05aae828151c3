"""A screen: a virtual one of its own or one that is there, with mouse, keys and pictures of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

WIDTH, HEIGHT = 1600, 1000


class WindowTestError(Exception):
    """Something is not as it should be; the message says what, in one line."""


def require_tools(*names: str) -> None:
    """Raises WindowTestError for the first program that is not there."""
    for name in names:
        if shutil.which(name) is None:
            raise WindowTestError(f"{name} is not installed (xdotool, ImageMagick's import and, for a virtual screen, Xvfb are needed)")


class Screen:
    """An X display; pixels count from its top left corner.

    Attributes:
        display: its name, ":1".
        height: pixels.
    """

    def __init__(self, display: str) -> None:
        require_tools("xdotool", "import")
        self.display = display
        self._environment = {**os.environ, "DISPLAY": display}
        size = subprocess.run(["xdotool", "getdisplaygeometry"], env=self._environment, capture_output=True, text=True, timeout=30)
        if size.returncode:
            raise WindowTestError(f"there is no display {display}")
        self.height = int(size.stdout.split()[1])

    def move(self, x: float, y: float) -> None:
        """Moves the mouse, in two steps: Blender looks at what lies under the mouse only when it moves."""
        self._xdotool("mousemove", round(x) + 1, round(y), "mousemove", round(x), round(y))

    def click(self, x: float, y: float, times: int = 1) -> float:
        """Clicks with the left button.

        Returns:
            `time.monotonic()` just before the button went down.
        """
        self.move(x, y)
        # A press that comes with the move would meet a button that is not yet lit, and Blender would not take it.
        time.sleep(0.25)
        clicked = time.monotonic()
        self._xdotool("click", "--repeat", times, "--delay", 60, 1)
        return clicked

    def key(self, *names: str) -> None:
        """Presses keys one after another, as xdotool names them: "n", "ctrl+z", "Return"."""
        self._xdotool("key", "--delay", 60, *names)

    def type(self, text: str) -> None:
        """Types text."""
        self._xdotool("type", "--delay", 15, text)

    def wheel(self, notches: int) -> None:
        """Turns the wheel; down is positive."""
        self._xdotool("click", "--repeat", abs(notches), "--delay", 40, 5 if notches > 0 else 4)

    def picture(self, path: Path) -> None:
        """Saves what the screen shows as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["import", "-silent", "-window", "root", str(path)]
        subprocess.run(command, env=self._environment, check=True, timeout=30, stdout=subprocess.DEVNULL)

    def _xdotool(self, *arguments: object) -> None:
        subprocess.run(["xdotool", *map(str, arguments)], env=self._environment, check=True, timeout=30)


@contextlib.contextmanager
def opened_screen(display: str = "") -> Iterator[Screen]:
    """The display named; otherwise a virtual screen that ends with the block."""
    if display:
        yield Screen(display)
        return
    require_tools("Xvfb")
    reading, writing = os.pipe()
    # With -displayfd it takes a free number by itself and says which, as soon as it can be used.
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        yield Screen(f":{_read_number(reading)}")
    finally:
        server.terminate()
        server.wait(10)


def _read_number(pipe: int) -> str:
    """What Xvfb says, or WindowTestError where it ends without a word."""
    with os.fdopen(pipe) as stream:
        number = stream.readline().strip()
    if not number:
        raise WindowTestError("Xvfb did not start")
    return number
