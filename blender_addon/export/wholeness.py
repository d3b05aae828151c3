# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an exported file is whole: some exporters do not notice a full disk."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

# Every binary FBX ends with these bytes.
_FBX_END = bytes.fromhex("f85a8c6adef5d97eece90ce3758f290b")


def is_whole(path: Path, vertices: int, faces: int) -> bool:
    """Whether the file has an end that fits its beginning.

    Args:
        path: of an exported file; its ending tells the format.
        vertices, faces: that the heads in it have together.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    return bool(content) and _CHECKS[path.suffix.lower()](path, content, vertices, faces)


def _is_whole_glb(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    return content[:4] == b"glTF" and len(content) >= 12 and struct.unpack_from("<I", content, 8)[0] == len(content)


def _is_whole_fbx(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    return content.startswith(b"Kaydara FBX Binary") and content.endswith(_FBX_END)


def _is_whole_obj(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    is_counted = content.count(b"\nv ") == vertices and content.count(b"\nf ") == faces and content.endswith(b"\n")
    return is_counted and path.with_suffix(".mtl").stat().st_size > 0


def _is_whole_usd(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    if content.startswith(b"#usda"):
        return content.rstrip().endswith(b"}")
    # The table of contents of a binary USD lies at its end; its place is the third entry of the header.
    return content[:8] == b"PXR-USDC" and len(content) >= 24 and struct.unpack_from("<q", content, 16)[0] < len(content)


def _is_whole_usdz(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _is_whole_blend(path: Path, content: bytes, vertices: int, faces: int) -> bool:
    return content.startswith(b"BLENDER") and b"ENDB" in content[-64:]


_CHECKS = {
    ".glb": _is_whole_glb,
    ".fbx": _is_whole_fbx,
    ".obj": _is_whole_obj,
    ".usd": _is_whole_usd,
    ".usda": _is_whole_usd,
    ".usdc": _is_whole_usd,
    ".usdz": _is_whole_usdz,
    ".blend": _is_whole_blend,
}
