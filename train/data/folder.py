"""A plain folder of photos."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import ConfigError
from focus_backend.photo_paths import printable
from train.data.photos import SPLITS, SourcePhoto, Split, photo_files

# One photo in so many is for validation.
_VALIDATION_SHARE = 20


@dataclass(frozen=True)
class PhotoFolder:
    """All photos in a folder and its folders.

    Folders `train`, `val` and `test` at its top are splits, and all else is for training. Without them every 20th photo, chosen by a
    hash of its name, is for validation, and at least one of two.
    """

    root: Path
    kind: str = "folder"

    def photos(self) -> list[SourcePhoto]:
        """All photos, sorted by name.

        Raises:
            ConfigError: there is no such folder, or no photo in it.
        """
        if not self.root.is_dir():
            raise ConfigError(f"{printable(str(self.root))} is not a folder", "give the folder that holds the photos")
        names = [path.relative_to(self.root) for path in photo_files(self.root)]
        if not names:
            raise ConfigError(f"no photos in {printable(str(self.root))}", "give a folder with JPEG, PNG or WebP photos")
        splits = _splits([name.as_posix() for name in names])
        return [SourcePhoto(name.as_posix(), self.root / name, splits[name.as_posix()]) for name in names]


def _splits(names: list[str]) -> dict[str, Split]:
    """The split of each photo by its name."""
    tops = {name: name.split("/")[0].lower() if "/" in name else "" for name in names}
    if any(top in SPLITS for top in tops.values()):
        return {name: next((split for split in SPLITS if split == top), "train") for name, top in tops.items()}
    draws = {name: int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:8], "big") for name in names}
    # Photos that come later leave the earlier ones where they are.
    validation = {name for name, draw in draws.items() if draw % _VALIDATION_SHARE == 0}
    if not validation and len(names) > 1:
        validation = {min(names, key=draws.__getitem__)}
    return {name: "val" if name in validation else "train" for name in names}
