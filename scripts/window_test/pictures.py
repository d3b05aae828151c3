"""Photos that a test needs and nobody has to keep."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SIDE = 640


def write_faceless_photo(path: Path) -> Path:
    """A blue sky over green ground: a photo as good as any, without a face."""
    rows = bytearray()
    for y in range(SIDE):
        colour = (110 + y // 8, 160 + y // 10, 235) if y < SIDE // 2 else (70, 150 - y // 12, 60)
        rows += b"\0" + bytes(colour) * SIDE
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(rows))) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
