"""Where photos for training come from: what every source of them lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from focus_backend.photo_paths import PHOTO_SUFFIXES

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class MaskFiles:
    """Pictures that say what is face, white on black and of the photo's proportions.

    Attributes:
        face: their union is face ...
        other: ... but for the union of these.
    """

    face: tuple[Path, ...]
    other: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.face + self.other


@dataclass(frozen=True)
class SourcePhoto:
    """One photo of a source.

    Attributes:
        name: path below the source's folder, with forward slashes; unique.
        path: of the file.
        split: what it is for.
        mask: the truth where there is one.
        tags: what evaluation groups by, such as "glasses".
    """

    name: str
    path: Path
    split: Split = "train"
    mask: MaskFiles | None = None
    tags: tuple[str, ...] = ()


@runtime_checkable
class PhotoSource(Protocol):
    """A data set of photos."""

    @property
    def kind(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def root(self) -> Path:
        """Its folder."""
        ...

    def photos(self) -> list[SourcePhoto]:
        """All photos, sorted by name.

        Raises:
            ConfigError: the folder is not laid out as such a data set, or is empty; the line says what is missing.
        """
        ...


def photo_files(folder: Path) -> list[Path]:
    """Photos in a folder and the folders in it, by suffix, sorted; hidden files are what systems leave, not photos."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES]
    return sorted(found)
