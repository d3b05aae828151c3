"""A photo as photos also come: without colour, for print, with more bits, cut out, turned, of many people, of none, far too wide."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

_ASTRONAUT = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
_EXIF_ORIENTATION = 0x0112


def write_odd_photos(folder: Path) -> dict[str, Path]:
    """A file of each kind, by its name without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(_ASTRONAUT) as opened:
        photo = opened.convert("RGB")
    return {path.stem: path for path in (save(photo, folder) for save in _KINDS)}


def _plain(photo: Image.Image, folder: Path) -> Path:
    return _saved(photo, folder / "plain.jpg")


def _grey(photo: Image.Image, folder: Path) -> Path:
    return _saved(photo.convert("L"), folder / "grey.jpg")


def _cmyk(photo: Image.Image, folder: Path) -> Path:
    return _saved(photo.convert("CMYK"), folder / "cmyk.jpg", quality=95)


def _sixteen_bit(photo: Image.Image, folder: Path) -> Path:
    # Pillow writes 16 bits of grey only.
    path = folder / "16 bit.png"
    assert cv2.imwrite(str(path), np.asarray(photo)[..., ::-1].astype(np.uint16) * 257)
    return path


def _sixteen_bit_grey(photo: Image.Image, folder: Path) -> Path:
    return _saved(Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), folder / "16 bit grey.png")


def _cut_out(photo: Image.Image, folder: Path) -> Path:
    alpha = Image.new("L", photo.size)
    ImageDraw.Draw(alpha).ellipse((90, -20, 360, 400), fill=255)
    cut_out = photo.copy()
    cut_out.putalpha(alpha)
    return _saved(cut_out, folder / "cut out.png")


def _turned(photo: Image.Image, folder: Path) -> Path:
    exif = Image.Exif()
    # To be turned by a quarter before it is looked at.
    exif[_EXIF_ORIENTATION] = 6
    return _saved(photo.transpose(Image.Transpose.ROTATE_90), folder / "turned.jpg", exif=exif)


def _ten_faces(photo: Image.Image, folder: Path) -> Path:
    small = photo.resize((256, 256))
    group = Image.new("RGB", (5 * small.width, 2 * small.height))
    for place in range(10):
        group.paste(small, (place % 5 * small.width, place // 5 * small.height))
    return _saved(group, folder / "ten faces.jpg")


def _wall(photo: Image.Image, folder: Path) -> Path:
    return _saved(Image.new("RGB", (400, 300), (128, 128, 128)), folder / "wall.png")


def _wide(photo: Image.Image, folder: Path) -> Path:
    wide = Image.new("RGB", (20_000, photo.height), "white")
    wide.paste(photo)
    return _saved(wide, folder / "wide.jpg")


def _saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


_KINDS = (_plain, _grey, _cmyk, _sixteen_bit, _sixteen_bit_grey, _cut_out, _turned, _ten_faces, _wall, _wide)
