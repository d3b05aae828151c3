"""Photos from untrusted bytes: everything a user may drop on the program, made on the fly."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from focus_backend.errors import PhotoError
from focus_backend.photo import PhotoLimits, read_photo
from focus_backend.photo_paths import photo_hash

SIZE = (160, 120)


def _gradient(size=SIZE) -> Image.Image:
    """Red grows to the right, green downwards: no two places look alike."""
    columns, rows = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 90)], -1).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing, as a bomb does."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _difference(photo, image: Image.Image) -> float:
    return float(np.abs(photo.pixels.astype(int) - np.asarray(image.convert("RGB"), dtype=int)).max())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("PPM", {}, 0), ("JPEG", {"quality": 98}, 8), ("WEBP", {"lossless": True}, 0)],
)
def test_common_formats(kind, options, tolerance):
    image = _gradient()
    photo = read_photo(_encoded(image, kind, **options))
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (120, 160, 3)
    assert photo.warnings == ()
    assert _difference(photo, image) <= tolerance


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow cannot write AVIF")
def test_avif():
    image = _gradient()
    assert _difference(read_photo(_encoded(image, "AVIF", quality=95)), image) <= 12


def test_heic_says_what_to_install():
    pytest.importorskip("PIL")
    try:
        import pillow_heif  # noqa: F401

        pytest.skip("pillow-heif is installed, HEIC is read")
    except ImportError:
        pass
    with pytest.raises(PhotoError, match=r"HEIC.*pillow-heif"):
        read_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200, name="me.heic")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(orientation, kind):
    upright = _gradient()
    # How a camera stores an upright scene under each orientation: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(_encoded(stored, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {})))
    assert (photo.width, photo.height) == photo.original_size == SIZE
    assert _difference(photo, upright) <= 8


@pytest.mark.parametrize("value", [0, 9, 700])
def test_impossible_orientation_is_taken_for_upright(value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert read_photo(_encoded(_gradient(), "PNG", exif=exif)).original_size == SIZE


def test_damaged_exif_does_not_cost_the_photo():
    photo = read_photo(_encoded(_gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage"))
    assert photo.original_size == SIZE


def test_grey():
    grey = _gradient().convert("L")
    assert _difference(read_photo(_encoded(grey, "PNG")), grey) == 0


def test_palette():
    palette = _gradient().quantize(64)
    assert _difference(read_photo(_encoded(palette, "PNG")), palette) == 0


def test_palette_with_transparency_is_laid_on_white():
    palette = Image.new("P", SIZE, 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(0, (0, 0, 80, 120))
    pixels = read_photo(_encoded(palette, "PNG", transparency=0)).pixels
    assert (pixels[:, :80] == 255).all()
    assert (pixels[:, 80:] == [200, 100, 50]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode):
    image = Image.new("RGBA", SIZE, (100, 100, 100, 255))
    image.putalpha(Image.fromarray(np.repeat(np.array([[0, 128, 255, 255]], np.uint8), 120, 0).repeat(40, 1)))
    pixels = read_photo(_encoded(image.convert(mode), "PNG")).pixels
    assert (pixels[:, 5] == 255).all()
    assert abs(int(pixels[0, 60, 0]) - 177) <= 1
    assert (pixels[:, 150] == 100).all()


def test_cmyk():
    image = Image.new("CMYK", SIZE, (0, 255, 255, 0))
    pixel = read_photo(_encoded(image, "JPEG", quality=98)).pixels[60, 80]
    assert pixel[0] > 240
    assert pixel[1] < 20
    assert pixel[2] < 20


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32768, 128), (65535, 255)])
def test_16_bit_grey_is_scaled(value, expected):
    image = Image.fromarray(np.full((120, 160), value, np.uint16))
    assert (read_photo(_encoded(image, "PNG")).pixels == expected).all()


def test_16_bit_rgb_is_scaled():
    cv2 = pytest.importorskip("cv2")
    colour = np.broadcast_to(np.array([65535, 32896, 0], np.uint16), (120, 160, 3))
    data = cv2.imencode(".png", np.ascontiguousarray(colour[:, :, ::-1]))[1].tobytes()
    assert (read_photo(data).pixels == [255, 128, 0]).all()


def test_bilevel():
    image = Image.new("1", SIZE, 1)
    assert (read_photo(_encoded(image, "PNG")).pixels == 255).all()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    data = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_photo(data).pixels == [255, 0, 0]).all()


def test_colour_profile_is_converted():
    image = Image.new("LAB", SIZE, (128, 128, 128))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert image.mode == "LAB"
    swapped = _swapped_primaries_profile()
    red = Image.new("RGB", SIZE, (255, 0, 0))
    converted = read_photo(_encoded(red, "PNG", icc_profile=swapped))
    assert converted.pixels[0, 0, 1] > 200, "red of a profile whose red is green must come out green"
    assert converted.warnings == ()
    # A profile of another colour space than the pixels' is left alone.
    assert (read_photo(_encoded(red, "PNG", icc_profile=profile)).pixels == [255, 0, 0]).all()


def _swapped_primaries_profile() -> bytes:
    """sRGB with the colorants of red and green exchanged in its tag table."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    table = {}
    for index in range(struct.unpack_from(">I", data, 128)[0]):
        place = 132 + 12 * index
        table[bytes(data[place : place + 4])] = place
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def test_broken_colour_profile_is_told_and_survived():
    photo = read_photo(_encoded(_gradient(), "PNG", icc_profile=b"not a profile"))
    assert _difference(photo, _gradient()) == 0
    assert "profile" in photo.warnings[0]


def test_large_photo_is_scaled_down_and_says_so():
    limits = PhotoLimits(working_side=100)
    photo = read_photo(_encoded(_gradient((400, 300)), "JPEG", quality=98), limits)
    assert (photo.width, photo.height) == (100, 75)
    assert photo.original_size == (400, 300)
    assert photo.scale == pytest.approx(0.25)
    assert "400 x 300" in photo.warnings[0]
    assert _difference(photo, _gradient((400, 300)).resize((100, 75), Image.Resampling.BOX)) <= 10


def test_camera_photo_of_108_megapixels():
    photo = read_photo(_encoded(Image.new("RGB", (12000, 9000), (90, 120, 150)), "JPEG"))
    assert (photo.width, photo.height) == (4096, 3072)
    assert np.abs(photo.pixels[::100, ::100].astype(int) - [90, 120, 150]).max() <= 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is no picture, though its name says so\n" * 20, "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not an image"),
        (_png_header_only(20_000, 100), "20000 x 100.*longer"),
        (_png_header_only(16_000, 16_000), "pixels"),
        (_png_header_only(60_000, 60_000), "pixels"),
        (_png_header_only(500, 400), "damaged or truncated PNG"),
        (_encoded(_gradient((8, 8)), "PNG"), "8 x 8.*too small"),
        (_encoded(_gradient((5000, 8)), "PNG"), "too small"),
        (_encoded(_gradient(), "JPEG")[:1500], "damaged or truncated JPEG"),
        (_encoded(_gradient(), "PNG")[:300], "damaged or truncated PNG"),
        (_encoded(Image.fromarray(np.zeros((120, 160), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_bad_bytes_give_one_clear_line(data, message):
    with pytest.raises(PhotoError, match=message) as caught:
        read_photo(data, name="bad.jpg")
    line = str(caught.value)
    assert "bad.jpg" in line
    assert "\n" not in line
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_bomb_is_refused_before_it_is_unpacked():
    """40,000 x 3,000 passes no limit; what is refused must not cost memory first."""
    code = (
        "import resource, sys; from focus_backend.photo import read_photo\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_photo(sys.stdin.buffer.read())\n"
        "except Exception as e: print(type(e).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=_png_header_only(16_000, 15_000), capture_output=True, check=True, timeout=60)
    name, grown_kb = done.stdout.split()
    assert name == b"PhotoError"
    assert int(grown_kb) < 50_000


@pytest.mark.parametrize("cut", range(10, 1600, 97))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_any_cut_is_a_photo_error_or_a_photo(kind, cut):
    data = _encoded(_gradient(), kind)[:cut]
    with contextlib.suppress(PhotoError):
        assert read_photo(data).pixels.shape == (120, 160, 3)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_any_damage_is_a_photo_error_or_a_photo(kind, seed):
    random = np.random.default_rng(seed)
    data = bytearray(_encoded(_gradient(), kind))
    for place in random.integers(0, min(len(data), 400), 6):
        data[place] = random.integers(256)
    with contextlib.suppress(PhotoError):
        assert read_photo(bytes(data)).pixels.ndim == 3


def test_files(tmp_path):
    path = tmp_path / "me.png"
    path.write_bytes(_encoded(_gradient(), "PNG"))
    photo = read_photo(path)
    assert photo.name == "me.png"
    assert photo.sha256 == photo_hash(path)
    assert len(photo.sha256) == 64


def test_missing_file(tmp_path):
    with pytest.raises(PhotoError, match="does not exist"):
        read_photo(tmp_path / "no.jpg")
    with pytest.raises(PhotoError, match="does not exist"):
        read_photo(tmp_path / "no" / "no.jpg")
    assert photo_hash(tmp_path / "no.jpg") is None


def test_a_folder_is_no_photo(tmp_path):
    with pytest.raises(PhotoError, match="folder"):
        read_photo(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PhotoError, match="not a regular file"):
        read_photo(tmp_path / "pipe.jpg")


def test_null_in_the_path():
    with pytest.raises(PhotoError, match=r"cannot be read|does not exist"):
        read_photo("a\0b.jpg")


def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(_encoded(_gradient(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PhotoError, match="may not be read"):
        read_photo(path)


def test_unreadable_file_for_a_user_without_rights(tmp_path):
    """As root, the rights are given up in a child first."""
    if os.getuid() != 0:
        pytest.skip("the test above covers this user")
    code = (
        "import os, sys, threading; from focus_backend.photo import read_photo; import PIL.PngImagePlugin\n"
        "os.setuid(65534)\n"
        "try: read_photo('/proc/1/environ')\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "PhotoError environ may not be read" in done.stdout, done.stderr


def test_too_many_bytes(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(PhotoError, match="300 MB"):
        read_photo(path)
    with pytest.raises(PhotoError, match="MB"):
        read_photo(b"x" * 2000, PhotoLimits(file_bytes=1000))


def test_names_are_printable(tmp_path):
    path = tmp_path / "evil\x1b[31m\nname.jpg"
    path.write_bytes(b"text")
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    assert str(caught.value).isprintable()
