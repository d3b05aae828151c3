"""The AR faces, or any photos with a mask each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import ConfigError
from focus_backend.photo_paths import printable
from train.data.photos import MaskFiles, SourcePhoto, photo_files

_LAYOUT = "lay it out as photos/<name>.<suffix> and masks/<name>.png, masks white where the face is seen"
# m-001-08.bmp: sex, person, and which of the 26 pictures; 14 to 26 repeat 1 to 13 a fortnight later.
_AR_NAME = re.compile(r"^[mw]-\d+-(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class MaskedPhotos:
    """`photos/` and `masks/`, one mask a photo with the same stem, white where the face is seen. AR is for tests only, so all are.

    Names of the AR database (`m-001-08`) give the tags of its subsets: `unoccluded`, `glasses` and `scarf`.
    """

    root: Path
    kind: str = "ar"

    def photos(self) -> list[SourcePhoto]:
        """All photos, sorted by name.

        Raises:
            ConfigError: one of the folders is missing, there is no photo, or a photo has no mask or two.
        """
        where = printable(str(self.root))
        for folder in ("photos", "masks"):
            if not (self.root / folder).is_dir():
                raise ConfigError(f"{where} has no folder {folder}", _LAYOUT)
        photos, masks = (_by_stem(self.root / folder) for folder in ("photos", "masks"))
        if not photos:
            raise ConfigError(f"no photos in {where}/photos", _LAYOUT)
        without = sorted(set(photos) - set(masks))
        if without:
            raise ConfigError(f"{len(without)} photos of {where} have no mask, such as {printable(without[0])}", _LAYOUT)
        return [
            SourcePhoto(path.relative_to(self.root).as_posix(), path, "test", MaskFiles((masks[stem],)), _tags(path.stem))
            for stem, path in sorted(photos.items())
        ]


def _by_stem(folder: Path) -> dict[str, Path]:
    """Files by their path without suffix below `folder`."""
    found: dict[str, Path] = {}
    for path in photo_files(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise ConfigError(f"{printable(str(path))} and {printable(found[stem].name)} share a name", "keep one of them")
        found[stem] = path
    return found


def _tags(stem: str) -> tuple[str, ...]:
    """The subset of a picture of the AR database by its number."""
    match = _AR_NAME.match(stem)
    if not match or not 1 <= int(match[1]) <= 26:
        return ()
    number = (int(match[1]) - 1) % 13 + 1
    return ("unoccluded" if number <= 7 else "glasses" if number <= 10 else "scarf",)
