"""Small JSON files with secrets: nobody else's to read, written whole or not at all, never trusted when read."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from focus_backend.errors import ConfigError, OutputError

# Ours are well below 1 KiB.
_MOST_BYTES = 16 * 1024
_ON_POSIX = os.name == "posix"


class UnreadableFileError(Exception):
    """A file is missing, damaged or too large; the text says which, in one line, without its content."""


def make_private_folder(folder: Path) -> None:
    """Make the folder, for this user alone, or check that the one there is nobody else's to change.

    Raises:
        OutputError: it cannot be made.
        ConfigError: it belongs to another user, or others may write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made ({error.strerror or error})", "choose another place") from error
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """Check that nobody else can put files into the folder; permissions of Windows are left to its user profiles.

    Raises:
        ConfigError: it is missing, belongs to another user, or others may write to it.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise ConfigError(f"folder {folder} cannot be used ({error.strerror or error})", "choose another place") from error
    if not _ON_POSIX:
        return
    if status.st_uid not in (os.getuid(), 0):
        raise ConfigError(f"folder {folder} belongs to another user", "choose a folder of your own")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"folder {folder} can be written to by other users", f"run: chmod go-w '{folder}'")


def write_private(path: Path, content: Mapping[str, Any], *, replace: bool = True) -> None:
    """Write JSON with mode 0600 from the first byte: beside, then renamed, so that no reader ever sees half of it.

    Args:
        replace: whether a file that is there gives way.

    Raises:
        FileExistsError: one is there, and may not give way.
        OutputError: the place cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, json.dumps(dict(content), indent=1).encode() + b"\n")
        (os.replace if replace else _rename_if_free)(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        remedy = "free some space or choose another place"
        raise OutputError(f"{path} cannot be written ({error.strerror or error})", remedy) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_new(path: Path, data: bytes) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        # Some file systems tell only now that the disk is full.
        os.fsync(file.fileno())


def _rename_if_free(source: Path, target: Path) -> None:
    if _ON_POSIX:
        os.link(source, target)
    else:
        os.rename(source, target)


def read_private(path: Path) -> dict[str, Any]:
    """The JSON object in a small file.

    Raises:
        UnreadableFileError: it is missing, no ordinary file, too large or damaged.
    """
    try:
        # A pipe in its place must not block us.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadableFileError(f"{path} is no file")
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
        raise UnreadableFileError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > _MOST_BYTES:
        raise UnreadableFileError(f"{path} is too large")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{path} is damaged") from error
    if not isinstance(content, dict):
        raise UnreadableFileError(f"{path} is damaged")
    return content


def field_of(content: Mapping[str, Any], name: str, check: Callable[[Any], bool], path: Path) -> Any:
    """One field of a file that was read.

    Raises:
        UnreadableFileError: it is missing, or `check` says no.
    """
    value = content.get(name)
    if not check(value):
        raise UnreadableFileError(f"{path} is damaged: its field {name!r} is missing or wrong")
    return value


def is_text(value: Any) -> bool:
    """Whether it is text of a length that a file of ours may hold."""
    return isinstance(value, str) and len(value) <= 1024


def is_open_to_others(path: Path) -> bool:
    """Whether other users of this machine may read or change the file; False where that cannot be told (Windows, missing files)."""
    try:
        return _ON_POSIX and bool(path.stat().st_mode & 0o077)
    except OSError:
        return False
