# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether Blender shows a photo's file as the backend sees it. Blender reads fewer formats, and never turns a photo as its camera says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from .tiff import read_directory

# By other endings Blender takes a file for a film.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp")
# What every build of Blender's TIFF reader unpacks: none, LZW, Deflate (two numbers), PackBits.
TIFF_COMPRESSIONS = (1, 5, 8, 32946, 32773)
TIFF_GREY_RGB_PALETTE = (1, 2, 3)
ORIENTATION, COMPRESSION, PHOTOMETRIC, XMP = 0x0112, 0x0103, 0x0106, 0x02BC
UPRIGHT = 1
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([0-9]+)""")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def shows_upright(data: bytes, path: Path) -> bool:
    """Whether Blender shows a file as the backend sees it, so that it can stay where it is; False in doubt.

    Args:
        data: the file's content, which may be anything.
        path: of the file; only its ending counts.
    """
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        return any(is_upright(data) for magic, is_upright in _FORMATS if magic.match(data))
    except (ValueError, IndexError, struct.error):
        return False


def _is_upright_jpeg(data: bytes) -> bool:
    return not any(
        _is_exif_turned(content)
        if content.startswith(b"Exif\0")
        else content.startswith(b"http://ns.adobe.com/xap/1.0/\0") and _is_xmp_turned(content)
        for content in _jpeg_app1(data)
    )


def _jpeg_app1(data: bytes) -> Iterator[bytes]:
    """The APP1 segments in front of the picture.

    Raises:
        ValueError: there is no picture.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("no segment where one has to be")
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind == 0xDA:
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        if kind == 0xE1:
            yield data[at + 4 : at + 2 + length]
        at += 2 + length
    raise ValueError("the file ends before its picture")


def _is_upright_png(data: bytes) -> bool:
    for kind, content in _chunks(data, 8, ">I4s", 4):
        if kind == b"eXIf" and _is_exif_turned(content):
            return False
        if kind in _PNG_TEXTS and _is_png_text_turned(kind, content):
            return False
        if kind == b"IEND":
            return True
    return False


def _is_png_text_turned(kind: bytes, content: bytes) -> bool:
    keyword, _, text = content.partition(b"\0")
    if keyword == b"Raw profile type exif":
        return True
    if keyword != b"XML:com.adobe.xmp":
        return False
    is_packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] != b"\0")
    return is_packed or _is_xmp_turned(text)


def _is_upright_webp(data: bytes) -> bool:
    has_picture = False
    for kind, content in _chunks(data, 12, "<4sI", 0):
        # Blender does not read films of this format.
        if kind == b"VP8X" and content[0] & 2:
            return False
        if (kind == b"EXIF" and _is_exif_turned(content)) or (kind == b"XMP " and _is_xmp_turned(content)):
            return False
        has_picture |= kind in (b"VP8 ", b"VP8L")
    return has_picture


def _chunks(data: bytes, at: int, header: str, checksum_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks of a PNG (from `at`, header size and kind) or RIFF file (header kind and size, padded to even)."""
    while at + 8 <= len(data):
        first, second = struct.unpack_from(header, data, at)
        kind, size = (second, first) if isinstance(second, bytes) else (first, second)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (checksum_bytes or size % 2)


def _is_upright_tiff(data: bytes) -> bool:
    directory = read_directory(data)
    xmp = directory.get(XMP)
    return (
        directory.get(ORIENTATION, UPRIGHT) == UPRIGHT
        and directory.get(COMPRESSION, 1) in TIFF_COMPRESSIONS
        and directory.get(PHOTOMETRIC) in TIFF_GREY_RGB_PALETTE
        and not (isinstance(xmp, bytes) and _is_xmp_turned(xmp))
    )


def _is_upright_bmp(data: bytes) -> bool:
    """Not packed, and bottom row first as nearly all are."""
    header_bytes, _, height, _, _, compression = struct.unpack_from("<IiiHHI", data, 14)
    return header_bytes >= 40 and height > 0 and compression == 0


def _is_exif_turned(content: bytes) -> bool:
    content = content.removeprefix(b"Exif\0\0")
    return bool(content) and read_directory(content).get(ORIENTATION, UPRIGHT) != UPRIGHT


def _is_xmp_turned(content: bytes) -> bool:
    return any(int(value) != UPRIGHT for value in _XMP_ORIENTATION.findall(content))


_FORMATS = (
    (re.compile(rb"\xff\xd8\xff"), _is_upright_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _is_upright_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _is_upright_webp),
    (re.compile(rb"II\*\0|MM\0\*"), _is_upright_tiff),
    (re.compile(rb"BM"), _is_upright_bmp),
)
