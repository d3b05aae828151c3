"""Untrusted bytes in, upright sRGB pixels out."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

from focus_backend.errors import PhotoError
from focus_backend.photo_paths import photo_name, printable

# Only formats of photos: Pillow would otherwise hand PostScript to Ghostscript and open containers we never want.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PhotoLimits:
    """What is accepted as a photo, all checked before any pixel is decoded.

    Attributes:
        file_bytes: largest file.
        pixels: most pixels, width times height.
        side: longest side accepted, pixels.
        shortest_side: shortest side accepted, pixels.
        working_side: larger photos are scaled down until their longest side has this many pixels.
    """

    file_bytes: int = 256 * 2**20
    pixels: int = 128_000_000
    side: int = 16_384
    shortest_side: int = 64
    working_side: int = 4096


@dataclass(frozen=True)
class Photo:
    """An upright photo.

    Attributes:
        pixels: RGB, sRGB-encoded, origin top left.
        name: file name without folder.
        original_size: width and height of the upright file before it was scaled down, pixels.
        sha256: of the file's bytes, so that results can name their source.
        warnings: what the user should know about how the file was read.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    name: str
    original_size: tuple[int, int]
    sha256: str = ""
    warnings: tuple[str, ...] = field(default=())

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.pixels.shape[0]

    @property
    def scale(self) -> float:
        """Pixels here for one pixel of the file, at most 1: multiply points measured in the file by it."""
        return max(self.pixels.shape[:2]) / max(self.original_size)


def read_photo(source: str | Path | bytes, limits: PhotoLimits | None = None, name: str = "photo") -> Photo:
    """The photo in a file, or in the bytes of one, upright and in sRGB.

    Camera orientation is applied, embedded colour profiles are converted, transparency is laid on white, 16-bit
    values are scaled to 8 and only the first frame of an animation is used.

    Args:
        source: path, or the bytes themselves.
        limits: what to refuse and how far to scale down.
        name: what messages call the photo when `source` is bytes.

    Raises:
        PhotoError: missing, unreadable, empty, not an image, damaged, too large or too small.
    """
    limits = limits or PhotoLimits()
    if isinstance(source, bytes):
        data = source
    else:
        name = photo_name(source)
        data = _read_bytes(Path(source), name, limits)
    _check_bytes(data, name, limits)
    return _decode(data, name, limits)


def photo_from_pixels(pixels: UInt8[np.ndarray, "height width 3"], limits: PhotoLimits | None = None, name: str = "photo") -> Photo:
    """The photo whose upright pixels (RGB, sRGB-encoded) are given; they are copied, and hashed in place of a file.

    Args:
        pixels: of any layout in memory.
        limits: what to refuse and how far to scale down.
        name: what messages call the photo.

    Raises:
        PhotoError: too large or too small.
    """
    limits = limits or PhotoLimits()
    size = (pixels.shape[1], pixels.shape[0])
    _check_size(size, name, limits)
    own = np.array(pixels, order="C")
    shrunk = own if max(size) <= limits.working_side else np.array(_shrink(Image.fromarray(own), limits.working_side))
    notes = () if shrunk is own else (f"scaled from {_by(size)} down to {_by((shrunk.shape[1], shrunk.shape[0]))} pixels",)
    return Photo(shrunk, name, size, hashlib.sha256(own.data).hexdigest(), notes)


def read_photo_file(path: Path, limits: PhotoLimits | None = None) -> bytes:
    """The bytes of a photo's file, which nothing has looked into: for whoever has it decoded elsewhere.

    Raises:
        PhotoError: missing, unreadable, empty or too large.
    """
    limits = limits or PhotoLimits()
    data = _read_bytes(path, photo_name(path), limits)
    _check_bytes(data, photo_name(path), limits)
    return data


def _read_bytes(path: Path, name: str, limits: PhotoLimits) -> bytes:
    """The file's bytes, never more than one beyond the limit."""
    try:
        if path.is_dir():
            raise PhotoError(f"{name} is a folder, not a photo", "give a photo, or let the command list the folder's photos")
        # A pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            raise PhotoError(f"{name} is not a regular file", "give a photo file")
        size = path.stat().st_size
        if size > limits.file_bytes:
            raise _too_many_bytes(name, size, limits)
        with path.open("rb") as file:
            return file.read(limits.file_bytes + 1)
    except FileNotFoundError:
        raise PhotoError(f"{name} does not exist", f"check the path {printable(str(path))}") from None
    except NotADirectoryError:
        raise PhotoError(f"{name} does not exist", f"check the path {printable(str(path))}") from None
    except PermissionError:
        raise PhotoError(f"{name} may not be read", "give yourself read permission on the file and its folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its path is not valid"
        raise PhotoError(f"{name} cannot be read: {reason}", "check the path and the disk") from None


def _check_bytes(data: bytes, name: str, limits: PhotoLimits) -> None:
    if not data:
        raise PhotoError(f"{name} is empty", "give a JPEG, PNG, WebP, AVIF or TIFF photo")
    if len(data) > limits.file_bytes:
        raise _too_many_bytes(name, len(data), limits)


def _too_many_bytes(name: str, size: int, limits: PhotoLimits) -> PhotoError:
    return PhotoError(
        f"{name} has {size / 2**20:.0f} MB, more than the {limits.file_bytes / 2**20:.0f} MB a photo may have",
        "save it as JPEG or scale it down",
    )


def _decode(data: bytes, name: str, limits: PhotoLimits) -> Photo:
    notes: list[str] = []
    with warnings.catch_warnings():
        # Our own limits decide, and Pillow's remarks on odd metadata are not for the user.
        warnings.simplefilter("ignore")
        image = _open(data, name)
        original_size = image.size
        _check_size(original_size, name, limits)
        try:
            _decode_small(image, limits.working_side)
            image.load()
            # After loading, for the TIFF reader applies its orientation itself and then reports none.
            orientation = _orientation(image)
            profile = image.info.get("icc_profile")
            upright = _to_srgb(_shrink(_simple_mode(image, name), limits.working_side), profile, notes)
        except PhotoError:
            raise
        except MemoryError:
            raise PhotoError(f"{name} does not fit into memory", "scale it down") from None
        except Exception as error:  # decoders meet hostile bytes with nearly any exception type
            problem = f"{name} is a damaged or truncated {image.format or 'image'} file"
            raise PhotoError(problem, "copy or download it again, or save it anew") from error
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if orientation >= 5:
        original_size = original_size[::-1]
    if upright.size != original_size:
        notes.append(f"scaled from {_by(original_size)} down to {_by(upright.size)} pixels")
    pixels = np.ascontiguousarray(upright, dtype=np.uint8)
    return Photo(pixels, name, original_size, hashlib.sha256(data).hexdigest(), tuple(notes))


def _open(data: bytes, name: str) -> Image.Image:
    """The image with its header read and nothing decoded."""
    is_heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if is_heif:
        _register_heif()
    try:
        return Image.open(io.BytesIO(data), formats=_known_formats())
    except Image.DecompressionBombError:
        raise PhotoError(f"{name} would unpack to far too many pixels", "scale it down") from None
    except Exception as error:  # header parsers meet hostile bytes with nearly any exception type
        if is_heif:
            raise PhotoError(
                f"{name} is a HEIC photo that cannot be decoded here", "run `pip install pillow-heif`, or save it as JPEG"
            ) from error
        raise PhotoError(f"{name} is not an image we can read", "give a JPEG, PNG, WebP, AVIF or TIFF photo") from error


def _known_formats() -> list[str]:
    """The accepted formats this Pillow can open; it raises on a name it does not know."""
    Image.init()
    return [f for f in PHOTO_FORMATS if f in Image.OPEN]


def _register_heif() -> None:
    """Teach Pillow HEIC where the optional pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _check_size(size: tuple[int, int], name: str, limits: PhotoLimits) -> None:
    """Refuse by the header's size alone, so that a bomb is never unpacked."""
    if max(size) > limits.side:
        raise PhotoError(f"{name} is {_by(size)} pixels, longer than {limits.side}", "scale it down or cut the face out")
    if size[0] * size[1] > limits.pixels:
        raise PhotoError(
            f"{name} is {_by(size)} pixels, more than {limits.pixels / 1e6:.0f} megapixels", "scale it down or cut the face out"
        )
    if min(size) < limits.shortest_side:
        raise PhotoError(
            f"{name} is {_by(size)} pixels, too small for a face",
            f"give a photo of at least {limits.shortest_side} pixels a side",
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1-8; damaged EXIF counts as upright, for the pixels are still good."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is hostile bytes as well
        return 1
    return value if value in _UPRIGHT else 1


def _decode_small(image: Image.Image, side: int) -> None:
    """Let a JPEG decoder skip detail that scaling down would remove: a quarter of the memory and time."""
    ratio = side / max(image.size)
    if ratio < 1:
        image.draft(image.mode, (math.ceil(image.width * ratio), math.ceil(image.height * ratio)))


def _simple_mode(image: Image.Image, name: str) -> Image.Image:
    """The image as L, RGB or CMYK of 8 bits, transparency laid on white as viewers of cut-out portraits show it."""
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _from_16_bit(np.asarray(image), name)
    if image.mode == "F":
        raise PhotoError(f"{name} holds floating-point pixels", "save it as an 8- or 16-bit PNG or JPEG")
    if image.mode in ("L", "RGB", "CMYK") and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(values: np.ndarray, name: str) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise PhotoError(f"{name} holds 32-bit pixels", "save it as an 8- or 16-bit PNG or JPEG")
    # 65535 must map to 255: dividing by 256 would never reach white.
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _shrink(image: Image.Image, side: int) -> Image.Image:
    ratio = side / max(image.size)
    if ratio >= 1:
        return image
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """RGB in sRGB; without a usable profile the values are taken for sRGB."""
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != {"L": "GRAY"}.get(image.mode, image.mode):
            # A grey or palette file may carry the RGB profile of what it was made from.
            if space != "RGB":
                return image.convert("RGB")
            image = image.convert("RGB")
        if image.mode == "RGB" and (source.profile.profile_description or "").startswith("sRGB"):
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a damaged profile must not cost the photo
        notes.append("its colour profile could not be used, colours are taken for sRGB")
        return image.convert("RGB")
    return converted if converted is not None else image.convert("RGB")
