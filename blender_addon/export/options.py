# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may choose about exported files, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import AddonError

# Endings of each format's files; the first is taken where the user gave none of them.
SUFFIXES = {
    "glb": (".glb",),
    "fbx": (".fbx",),
    "obj": (".obj",),
    # One file that always finds its textures; the others have them as pictures beside.
    "usd": (".usdz", ".usdc", ".usda", ".usd"),
    "blend": (".blend",),
}
FORMATS = tuple(SUFFIXES)


@dataclass(frozen=True)
class ExportOptions:
    """What exported files hold.

    Attributes:
        include_identity: identity sliders are shape keys; otherwise the head is what they make of it now.
        camera: the camera that matches the photo, where the format knows cameras.
        together: several heads come into one file; otherwise each has its own.
        keep_place: heads lie where they lie in the scene; otherwise a head alone in its file lies at the origin. Heads that come
            together, and those in .blend files, always keep their places.
        overwrite: files that exist are replaced; otherwise they are an error.
    """

    include_identity: bool = True
    camera: bool = False
    together: bool = False
    keep_place: bool = False
    overwrite: bool = False


def with_suffix(path: Path, file_format: str) -> Path:
    """The path with an ending of the format; "me.2024" becomes "me.2024.glb".

    Raises:
        AddonError: there is no such format.
    """
    if file_format not in SUFFIXES:
        raise AddonError(f"there is no format {file_format!r}", f"use one of {', '.join(FORMATS)}", "format")
    endings = SUFFIXES[file_format]
    if path.suffix.lower() in endings:
        return path
    others = {ending for found in SUFFIXES.values() for ending in found}
    stem = path.stem if path.suffix.lower() in others else path.name
    return path.with_name(stem + endings[0])


def has_pictures_beside(path: Path) -> bool:
    """Whether files of this ending find their pictures beside them; the others hold them inside."""
    return path.suffix.lower() in (".obj", ".usdc", ".usda", ".usd")
