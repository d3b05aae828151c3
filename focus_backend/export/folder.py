"""A result as a folder of files that appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from focus_backend.errors import OutputError
from focus_backend.photo_paths import printable

RESULT_FILE = "result.json"
RESULT_FILES = frozenset(
    {
        "neutral.obj",
        "neutral.mtl",
        "face.glb",
        "albedo.png",
        "texture.png",
        "outlier_mask.png",
        "face_mask.png",
        "report.jpg",
        RESULT_FILE,
    }
)
# What desktops leave in every folder they show.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory"})


class TakenError(OutputError):
    """The folder exists and holds other files than a result."""


def check_writable(out: Path) -> None:
    """Make `out` and prove that a folder can be written in it, before minutes are spent on results.

    Raises:
        OutputError: it cannot.
    """
    with _explained(out):
        out.mkdir(parents=True, exist_ok=True)
        _hidden_beside(out / "result").rmdir()


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write `files` as `folder`; an older result there is replaced, anything else there is left alone.

    The files are written to a hidden folder beside it, which is then renamed: a reader never meets half a result.

    Raises:
        OutputError: not writable, disk full; nothing new is left behind and an older result stays.
        TakenError: `folder` exists and is not a result.
    """
    check_replaceable(folder)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        hidden = _hidden_beside(folder)
        try:
            for name, content in files.items():
                (hidden / name).write_bytes(content)
            _swap_in(hidden, folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Refuse to write over anything but a result of ours.

    Raises:
        TakenError: `folder` is a file, or holds files that no result has.
    """
    remedy = "choose another output folder with -o"
    try:
        if not os.path.lexists(folder):
            return
        if not folder.is_dir() or folder.is_symlink():
            raise TakenError(f"{printable(str(folder))} exists and is not a folder", remedy)
        foreign = sorted(set(os.listdir(folder)) - RESULT_FILES - _LITTER)
    except OSError as error:
        raise _output_error(error, folder) from error
    if foreign:
        raise TakenError(f"{printable(str(folder))} holds other files, such as {printable(foreign[0])}", remedy)


def read_result(folder: Path) -> dict | None:
    """The document of a whole result in `folder`; None where there is none."""
    try:
        document = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _swap_in(hidden: Path, folder: Path) -> None:
    """Rename `hidden` to `folder`, an older `folder` out of the way first and back again if that fails."""
    if not folder.exists():
        hidden.rename(folder)
        return
    older = _hidden_beside(folder) / "older"
    try:
        folder.rename(older)
        try:
            hidden.rename(folder)
        except BaseException:
            older.rename(folder)
            raise
    finally:
        shutil.rmtree(older.parent, ignore_errors=True)


def _hidden_beside(folder: Path) -> Path:
    """A new hidden folder on the same disk, so that a rename is enough. Not mkdtemp: that is closed to the user's group."""
    hidden = folder.parent / f".focus-{secrets.token_hex(8)}"
    hidden.mkdir()
    return hidden


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """File-system errors as one clear line."""
    try:
        yield
    except OSError as error:
        raise _output_error(error, path) from error


def _output_error(error: OSError, path: Path) -> OutputError:
    where = printable(str(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"no space left to write {where}", "free some space, or choose another disk with -o")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{where} may not be written", "choose a folder of your own with -o")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(f"{where} cannot be made: a file is in the way", "choose another output folder with -o")
    return OutputError(f"{where} cannot be written: {error.strerror or error}", "choose another output folder with -o")
