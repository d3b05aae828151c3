"""Which photos the user means: files, folders and patterns. Standard library only, for programs that run in Blender."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import PhotoError
from focus_backend.photo_paths import PHOTO_SUFFIXES, printable

IsProduct = Callable[[Path], bool]


@dataclass(frozen=True)
class PhotoInput:
    """One photo the user asked for, or why an argument stands for none."""

    path: Path
    error: PhotoError | None = None


def find_photos(arguments: Sequence[str], recursive: bool, is_product: IsProduct) -> list[PhotoInput]:
    """Photos of the arguments in their order, each file once.

    A folder stands for the photos in it, sorted; a pattern (quoted, or where the shell leaves it alone) for its matches.
    A missing file is kept: reading it gives the error. Pictures in a result are never taken for photos.

    Args:
        arguments: as typed.
        recursive: look into folders' folders, too.
        is_product: whether an earlier run has made this file; only those named are photos.
    """
    found: dict[str, PhotoInput] = {}
    for argument in arguments:
        for photo in _expand(argument, recursive, is_product):
            found.setdefault(os.path.realpath(photo.path), photo)
    return list(found.values())


def in_results_below(out: Path) -> IsProduct:
    """Whether a file is in a result below `out`; photos that lie beside the results are still photos."""
    root = Path(os.path.realpath(out)).parts

    def is_in_result(path: Path) -> bool:
        folders = Path(os.path.realpath(path)).parts[:-1]
        return folders[: len(root)] == root and any(
            Path(*folders[:depth], "result.json").exists() for depth in range(len(root) + 1, len(folders) + 1)
        )

    return is_in_result


def _expand(argument: str, recursive: bool, is_product: IsProduct) -> Iterator[PhotoInput]:
    path = Path(argument)
    if path.is_dir():
        yield from _of_folder(path, recursive, is_product)
        return
    # A file may well be called "me [1].jpg": only what does not exist is a pattern.
    if os.path.lexists(argument) or not glob.has_magic(argument):
        yield PhotoInput(path)
        return
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    files = [match for match in matches if not match.is_dir() and not is_product(match)]
    if not files:
        yield PhotoInput(path, PhotoError(f"no file matches {printable(argument)}", "check the pattern"))
    yield from map(PhotoInput, files)


def _of_folder(folder: Path, recursive: bool, is_product: IsProduct) -> Iterator[PhotoInput]:
    """Photos by suffix; hidden files are what systems leave, not photos."""
    photos = []
    for parent, folders, files in os.walk(folder):
        is_result = "result.json" in files and "neutral.obj" in files
        folders[:] = [] if not recursive or is_result else sorted(name for name in folders if not name.startswith("."))
        if is_result:
            continue
        named = [Path(parent, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES]
        photos += [path for path in named if not is_product(path)]
    if not photos:
        remedy = "give a folder with photos" if recursive else "give a folder with photos, or add --recursive"
        yield PhotoInput(folder, PhotoError(f"no photos in {printable(str(folder))}", remedy))
    yield from map(PhotoInput, sorted(photos))
