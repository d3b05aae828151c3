# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small JSON files that hold secrets: read with distrust, and only if nobody else could have read or written them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

# Those of the backend have less than 1 KiB.
_MOST_BYTES = 2**14
_IS_POSIX = os.name == "posix"


class PrivateFileError(Exception):
    """A file cannot be used.

    Attributes:
        problem: why, as the end of a sentence that begins with the file's path; never its content.
        remedy: what to do about it; "" where another file is the only way.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def read_private(path: Path) -> dict[str, Any]:
    """The JSON object in a file of this user's that is closed to others; on Windows that is left to the user's profile.

    Raises:
        PrivateFileError: it is missing, no file, too large, no JSON object, another user's, or open to others.
    """
    try:
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _check_private(path, os.fstat(descriptor))
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise PrivateFileError(_reason(error)) from error
    if len(data) > _MOST_BYTES:
        raise PrivateFileError("is too large")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PrivateFileError("is damaged") from error
    if not isinstance(content, dict):
        raise PrivateFileError("is damaged")
    return content


def check_private_folder(folder: Path) -> None:
    """Check that nobody else can put files there.

    Raises:
        PrivateFileError: the folder is another user's, or others may write to it.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise PrivateFileError(_reason(error)) from error
    if not _IS_POSIX:
        return
    if status.st_uid not in (os.getuid(), 0):
        raise PrivateFileError("belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PrivateFileError("can be written to by other users", f"run: chmod go-w '{folder}'")


def text_field(content: dict[str, Any], name: str) -> str:
    """A field that is a text.

    Raises:
        PrivateFileError: it is not.
    """
    value = content.get(name)
    if not isinstance(value, str) or len(value) > 1024:
        raise damaged(name)
    return value


def damaged(name: str) -> PrivateFileError:
    """About a field that is missing or not what it should be."""
    return PrivateFileError(f"is damaged: its field {name!r} is missing or wrong")


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PrivateFileError("is no file")
    if not _IS_POSIX:
        return
    if status.st_uid != os.getuid():
        raise PrivateFileError("belongs to another user")
    if status.st_mode & 0o077:
        raise PrivateFileError("is open to other users of this machine", f"run: chmod 600 '{path}'")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"
