# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first directory of a TIFF file, which is also what EXIF is."""

from __future__ import annotations

import struct

BYTE, SHORT, LONG, UNDEFINED = 1, 3, 4, 7
_NUMBERS = {BYTE: "B", SHORT: "H", LONG: "I"}
_ENTRY_BYTES = 12


def read_directory(data: bytes) -> dict[int, int | bytes | None]:
    """The first directory's entries by tag: single numbers, and bytes where there are several; None for all that is neither.

    Args:
        data: from the byte order on; may be anything.

    Raises:
        ValueError: it is no TIFF, or ends too early.
        struct.error: it ends too early.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise ValueError("no TIFF")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries: dict[int, int | bytes | None] = {}
    for at in range(start + 2, start + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
        tag, kind, length = struct.unpack_from(order + "HHI", data, at)
        entries[tag] = _read_value(data, at + 8, order, kind, length)
    return entries


def _read_value(data: bytes, at: int, order: str, kind: int, length: int) -> int | bytes | None:
    if length == 1 and kind in _NUMBERS:
        return int(struct.unpack_from(order + _NUMBERS[kind], data, at)[0])
    if length <= 4 or kind not in (BYTE, UNDEFINED):
        return None
    (start,) = struct.unpack_from(order + "I", data, at)
    if start + length > len(data):
        raise ValueError("a value lies beyond the end")
    return data[start : start + length]
