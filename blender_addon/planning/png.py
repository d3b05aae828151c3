# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""PNG from pixels. Blender's Python has zlib and numpy, and no reader or writer of pictures that works outside the main thread."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy import ndarray

from ..shapes import UInt8

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
FILTER_UP = 2


def encode_png(pixels: UInt8[ndarray, "*shape"]) -> bytes:
    """A PNG of 8 bits a channel.

    Args:
        pixels: rows x columns (grey), or rows x columns x 1, 3 or 4 (grey, RGB, RGBA with straight alpha); top row first.

    Raises:
        ValueError: of another type or shape, or without pixels.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in COLOUR_TYPES or not pixels.size:
        raise ValueError(f"{pixels.dtype} {pixels.shape} is no picture")
    rows, columns = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", columns, rows, 8, COLOUR_TYPES[channels], 0, 0, 0)
    data = _deflate(_filtered(pixels.reshape(rows, columns * channels)))
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _filtered(rows: UInt8[ndarray, "rows bytes"]) -> UInt8[ndarray, "rows bytes_and_filter"]:
    """Each row less the one above: the cheapest filter, for it runs along memory."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _deflate(data: ndarray) -> bytes:
    # On filtered photos looking for runs only is both faster and smaller than zlib's own choice.
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return compressor.compress(data.data) + compressor.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))))
