# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log file of a backend of ours: bounded, with the one before it kept."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from .processes import is_running

# Some days of work; what is older than that is dropped.
_MOST_BYTES = 8 * 2**20
_TAIL_BYTES = 64 * 2**10
_LONGEST_LINE = 400
_OWN_NAME = re.compile(r"backend-([0-9]+)\.log")
_ORDINARY = re.compile(r"[0-9T:.\-]+Z (info|warning) ")


class BackendLog:
    """`backend-<pid>.log` in a folder, pid being that of the program that started the backend; `backend-older.log` is the one before.

    Args:
        folder: of the log files.
        owner_pid: of this program; several may share the folder.
    """

    def __init__(self, folder: Path, owner_pid: int) -> None:
        self.path = folder / f"backend-{owner_pid}.log"
        self.older_path = folder / "backend-older.log"
        self._start = 0

    def open(self) -> BinaryIO:
        """A new log for another backend, to be given to it.

        Raises:
            OSError: it cannot be written.
        """
        self._put_aside()
        file = open(self.path, "ab")  # noqa: SIM115 - the caller closes it
        # One that could not be put aside goes on.
        self._start = file.tell()
        return file

    def bound(self) -> None:
        """Empties a log that has become too large; to be called now and then.

        Only where writers append whatever the size, which those on Windows do not.
        """
        with contextlib.suppress(OSError):
            if os.name == "posix" and self.path.stat().st_size > _MOST_BYTES:
                self.older_path.write_bytes(self._tail())
                os.truncate(self.path, 0)
                self._start = 0

    def last_line(self) -> str:
        """What the backend said last, best an error; "" when it said nothing."""
        lines = [_plain(line) for line in self._tail().decode("utf-8", "replace").splitlines()]
        lines = [line for line in lines if line]
        telling = [line for line in lines if not _ORDINARY.match(line)]
        line = (telling or lines or [""])[-1]
        return re.sub(r"^error: ", "", line, flags=re.IGNORECASE)[:_LONGEST_LINE]

    def _tail(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._start if self._start <= size else 0, size - _TAIL_BYTES))
                return file.read(_TAIL_BYTES)
        except OSError:
            return b""

    def _put_aside(self) -> None:
        """The newest log becomes the older one; those that other, ended programs left are removed."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.path.parent.iterdir():
                match = _OWN_NAME.fullmatch(path.name)
                if match and (path == self.path or not is_running(int(match[1]))):
                    found.append((path.stat().st_mtime, path))
        for number, (_, path) in enumerate(sorted(found, reverse=True)):
            # On Windows a backend that is still ending holds it.
            with contextlib.suppress(OSError):
                if number == 0:
                    os.replace(path, self.older_path)
                else:
                    path.unlink()


def _plain(line: str) -> str:
    """Without colours, boxes and control characters."""
    line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\u2500-\u257f]", "", line)
    return "".join(character for character in line if character.isprintable()).strip()
