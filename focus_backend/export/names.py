"""What files and folders of results are called; standard library only, for programs that run in Blender."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

_WINDOWS_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_LONGEST_BYTES = 120


def safe_name(stem: str) -> str:
    """A photo's stem as a name that every file system takes and no shell trips over."""
    name = unicodedata.normalize("NFC", stem.encode("utf-8", "replace").decode("utf-8"))
    name = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in name)
    name = name.encode("utf-8")[:_LONGEST_BYTES].decode("utf-8", "ignore").rstrip(". ")
    if name.startswith((".", "-", " ")) or _WINDOWS_DEVICES.match(name):
        name = "_" + name
    return name or "photo"


def plan_names(photos: Sequence[Path]) -> dict[Path, str]:
    """One name a photo, all different even where case does not count.

    A photo has its stem. Where two photos share it, the later one's name also tells its folder and kind (`holiday_me_png`), and a
    number if that is taken too.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for photo in photos:
        plain = safe_name(photo.stem)
        longer = safe_name(f"{photo.absolute().parent.name}_{photo.stem}_{photo.suffix[1:]}".strip("_"))
        numbered = (f"{longer}_{number}" for number in range(2, len(photos) + 3))
        names[photo] = next(name for name in (plain, longer, *numbered) if name.casefold() not in taken)
        taken.add(names[photo].casefold())
    return names


def face_names(name: str, count: int, reserved: Collection[str]) -> list[str]:
    """Names of a photo's faces, largest first: `name`, `name-2`, ...; numbers that belong to another photo are skipped.

    Args:
        name: of the photo, and of its first face.
        count: faces.
        reserved: folded names of all photos.
    """
    names, number = [name], 2
    while len(names) < count:
        if f"{name}-{number}".casefold() not in reserved:
            names.append(f"{name}-{number}")
        number += 1
    return names[:count]
