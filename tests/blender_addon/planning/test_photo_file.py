from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from blender_addon.planning.photo_file import shows_upright
from focus_backend.photo import read_photo

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
MAGICS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"BM"]
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


@pytest.fixture
def image() -> Image.Image:
    """Nothing that looks the same turned."""
    rows, columns = np.mgrid[:64, :96]
    return Image.fromarray(np.stack([rows * 4, columns * 2, rows + columns], axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    entries = Image.Exif()
    entries[0x0112] = orientation
    return entries


def is_turned_by_backend(data: bytes, image: Image.Image) -> bool:
    seen = read_photo(data).pixels.astype(int)
    return seen.shape != (64, 96, 3) or bool(np.abs(seen - np.asarray(image.convert("RGB"))).mean() > 8)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_plain_files_stay(image, kind):
    assert shows_upright(saved(image, kind), Path(f"photo{SUFFIXES[kind].upper()}"))


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(image, kind, orientation):
    data = saved(image, kind, exif=exif(orientation))
    assert shows_upright(data, Path(f"photo{SUFFIXES[kind]}")) is not is_turned_by_backend(data, image)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_xmp_turns(image, kind, orientation):
    xmp = XMP.format(orientation).encode()
    options = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
    data = saved(image, kind, **options)
    assert shows_upright(data, Path(f"photo{SUFFIXES[kind]}")) is (orientation == 1)
    assert is_turned_by_backend(data, image) is (orientation == 6)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("orientation", [1, 8])
def test_xmp_in_png_turns(image, orientation, is_packed):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.format(orientation), zip=is_packed)
    data = saved(image, "PNG", pnginfo=text)
    # What is packed is not read: in doubt the backend's pixels are taken.
    assert shows_upright(data, Path("photo.png")) is (orientation == 1 and not is_packed)
    assert is_turned_by_backend(data, image) is (orientation == 8)


def test_exif_as_text_in_png_is_doubtful(image):
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n8\n")
    assert not shows_upright(saved(image, "PNG", pnginfo=text), Path("photo.png"))


def test_exif_behind_the_picture_of_a_png(image):
    data = saved(image, "PNG")
    content = exif(3).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    late = data[:-12] + chunk + data[-12:]
    assert is_turned_by_backend(late, image)
    assert not shows_upright(late, Path("photo.png"))


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_bmp_stays(image, mode):
    assert shows_upright(saved(image.convert(mode), "BMP"), Path("photo.bmp"))


def test_packed_bmp_is_doubtful(image):
    data = bytearray(saved(image, "BMP"))
    data[30] = 1
    assert not shows_upright(bytes(data), Path("photo.bmp"))


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", ".gif"), ("PPM", ".ppm"), ("JPEG2000", ".jp2"), ("AVIF", ".avif")])
def test_formats_that_not_every_blender_reads(image, kind, suffix):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    assert not shows_upright(saved(image, kind), Path(f"photo{suffix}"))


def test_heic_is_not_read():
    assert not shows_upright(b"\0\0\0\x18ftypheic" + bytes(40), Path("photo.heic"))


def test_moving_webp_is_not_read(image):
    data = saved(image, "WEBP", save_all=True, append_images=[image.rotate(90)], duration=100)
    assert not shows_upright(data, Path("photo.webp"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_common_tiff_stays(image, compression):
    assert shows_upright(saved(image, "TIFF", compression=compression), Path("photo.tif"))


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"compression": "jpeg"}, {"big_tiff": True}])
def test_rare_tiff_is_doubtful(image, options):
    assert not shows_upright(saved(image, "TIFF", **options), Path("photo.tif"))


def test_content_counts_not_the_ending(image):
    assert shows_upright(saved(image, "PNG"), Path("photo.jpg"))
    # Blender takes these for films.
    assert not shows_upright(saved(image, "PNG"), Path("photo.mp4"))
    assert not shows_upright(saved(image, "JPEG"), Path("photo.gif"))


@given(st.sampled_from(MAGICS), st.binary(max_size=200), st.sampled_from(list(SUFFIXES.values())))
def test_anything_is_answered(magic, rest, suffix):
    assert shows_upright(magic + rest, Path(f"photo{suffix}")) in (True, False)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_files_cut_off_or_spoilt_are_answered(image, kind):
    data = saved(image, kind, exif=exif(6))
    path = Path(f"photo{SUFFIXES[kind]}")
    for end in range(min(len(data), 400)):
        assert shows_upright(data[:end], path) in (True, False)
    for place in range(min(len(data), 400)):
        spoilt = bytearray(data)
        spoilt[place] ^= 0xFF
        assert shows_upright(bytes(spoilt), path) in (True, False)
