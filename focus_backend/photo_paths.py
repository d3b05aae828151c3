"""Files of photos before anybody looks into them; standard library only, for programs that start in a moment or run in Blender."""

from __future__ import annotations

import hashlib
from pathlib import Path

PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".heic", ".heif"),
    *(".tif", ".tiff", ".bmp", ".gif", ".jp2", ".ppm", ".pgm"),
)


def photo_name(path: str | Path) -> str:
    """What messages and results call the photo at `path`."""
    return printable(Path(path).name or str(path))


def photo_hash(path: Path) -> str | None:
    """SHA-256 of the file at `path`, as in `Photo.sha256`; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return None


def printable(name: str) -> str:
    """`name` fit for a terminal and for JSON: no control characters, no undecodable bytes."""
    decodable = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in decodable)
