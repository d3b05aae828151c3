"""Which photos the user means, and what their files are called."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .outcome import Failure, printable

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".heic", ".heif"),
    *(".tif", ".tiff", ".bmp", ".gif", ".jp2", ".ppm", ".pgm"),
)
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Photo:
    """One photo the user asked for, or why an argument stands for none.

    Attributes:
        path: of the file.
        name: with which its files' names begin; no other photo's does.
        failure: why there is no such photo.
    """

    path: Path
    name: str = ""
    failure: Failure | None = None


def find_photos(arguments: Sequence[str], recursive: bool, out: Path) -> list[Photo]:
    """Photos in their order, each file once: a folder stands for the photos in it, a pattern for its matches.

    A missing file is kept: reading it gives the error. Files in `out` are what earlier runs have made; only those named are taken.
    """
    found: dict[str, Photo] = {}
    for argument in arguments:
        for photo in _expand(argument, recursive, out):
            found.setdefault(os.path.realpath(photo.path), photo)
    names = _names([photo.path for photo in found.values() if photo.failure is None])
    return [Photo(photo.path, names.get(photo.path, ""), photo.failure) for photo in found.values()]


def face_names(name: str, count: int, reserved: frozenset[str]) -> list[str]:
    """Names of a photo's faces, largest first: `name`, `name-2`, ...; numbers that belong to another photo are left out.

    Args:
        name: of the photo.
        count: faces.
        reserved: folded names of all photos.
    """
    names, number = [name], 2
    while len(names) < count:
        if f"{name}-{number}".casefold() not in reserved:
            names.append(f"{name}-{number}")
        number += 1
    return names[:count]


def sha256_of(path: Path) -> str:
    """Of the file's content; "" where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


def _expand(argument: str, recursive: bool, out: Path) -> Iterator[Photo]:
    path = Path(argument)
    if path.is_dir():
        photos = sorted(_of_folder(path, recursive, out))
        remedy = "give a folder with photos" if recursive else "give a folder with photos, or add --recursive"
        yield from map(Photo, photos)
        if not photos:
            yield Photo(path, failure=Failure("photo", f"no photos in {printable(argument)}", remedy))
    # A file may well be called "me [1].jpg": only what does not exist is a pattern.
    elif os.path.lexists(argument) or not glob.has_magic(argument):
        yield Photo(path)
    else:
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        files = [match for match in matches if not match.is_dir() and not _is_product(match, out)]
        yield from map(Photo, files)
        if not files:
            yield Photo(path, failure=Failure("photo", f"no file matches {printable(argument)}", "check the pattern"))


def _of_folder(folder: Path, recursive: bool, out: Path) -> Iterator[Path]:
    """By suffix; hidden files are what systems leave, not photos."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and not _is_product(path, out):
                yield path


def _is_product(path: Path, out: Path) -> bool:
    """Whether it is a texture that an earlier run has written beside its mesh."""
    return os.path.realpath(path.parent) == os.path.realpath(out) and re.search(r"_texture\.|_albedo\.", path.name) is not None


def _names(photos: Sequence[Path]) -> dict[Path, str]:
    """The stem; where two photos share it, the later one's name also tells folder and kind, and a number if that is taken too."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for photo in photos:
        plain = _file_name(photo.stem)
        longer = _file_name(f"{photo.absolute().parent.name}_{photo.stem}_{photo.suffix[1:]}".strip("_"))
        numbered = (f"{longer}_{number}" for number in range(2, len(photos) + 3))
        names[photo] = next(name for name in (plain, longer, *numbered) if name.casefold() not in taken)
        taken.add(names[photo].casefold())
    return names


def _file_name(text: str) -> str:
    """A name for files everywhere."""
    safe = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", text.encode("utf-8", "replace").decode())
    return safe.encode()[:_LONGEST_NAME].decode(errors="ignore").strip(" .") or "photo"
