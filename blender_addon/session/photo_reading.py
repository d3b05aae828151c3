# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Photo files, as they are to be sent. Called in a worker thread, for network drives are slow."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import AddonError
from ..planning.photo_file import shows_upright

_MEGABYTE = 2**20


@dataclass(frozen=True)
class PhotoFile:
    """A photo file.

    Attributes:
        data: all of it.
        needs_upright_pixels: whether Blender would show the file wrongly, or not at all.
    """

    data: bytes = field(repr=False)
    needs_upright_pixels: bool


def shown_path(path: Path | str) -> str:
    """A path in letters that Blender can show: names of files may hold bytes that are none."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


def check_photo(path: Path) -> None:
    """Whether the file is there and can be read.

    Raises:
        AddonError: it is not.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AddonError(f"{shown_path(path.name or path)} is a folder", "choose an image file", "photo")
        if not stat.S_ISREG(mode):
            raise AddonError(f"{shown_path(path.name)} is no file", "choose an image file", "photo")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if is_empty:
        raise AddonError(f"{shown_path(path.name)} is empty", "choose another file, or copy it anew", "photo")


def read_photo(path: Path, most_bytes: int) -> PhotoFile:
    """The file's bytes.

    Args:
        path: of an image file.
        most_bytes: that the backend admits.

    Raises:
        AddonError: it is not there, cannot be read, or is larger.
    """
    check_photo(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # One more than admitted is enough to know, and no more memory is taken than it needs: a server may admit any size.
            data = file.read(min(size, most_bytes) + 1)
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(path, error) from None
    if len(data) > most_bytes:
        raise _too_large(path, max(size, len(data)), most_bytes)
    return PhotoFile(data, not shows_upright(data, path))


def _unreadable(path: Path, error: Exception) -> AddonError:
    if isinstance(error, FileNotFoundError):
        return AddonError(f"{shown_path(path)} is missing", "it was moved or deleted: choose it anew", "photo")
    if isinstance(error, PermissionError):
        return AddonError(f"{shown_path(path.name)} may not be read", "give yourself the right to read it, or copy it elsewhere", "photo")
    if isinstance(error, MemoryError):
        problem = f"there is too little memory for {shown_path(path.name)}"
        return AddonError(problem, "close other programs, or scale the photo down", "photo")
    reason = getattr(error, "strerror", None) or "this is no path of a file"
    return AddonError(f"{shown_path(path.name)} cannot be read: {reason}", "copy it to a local disk, or choose another file", "photo")


def _too_large(path: Path, size: int, most_bytes: int) -> AddonError:
    problem = f"{shown_path(path.name)} has {_megabytes(size)}, more than the {_megabytes(most_bytes)} that the backend admits"
    return AddonError(problem, "save it as JPEG, or scale it down", "photo")


def _megabytes(size: int) -> str:
    return f"{size / 1024:.3g} KB" if size < _MEGABYTE else f"{size / _MEGABYTE:.3g} MB"
