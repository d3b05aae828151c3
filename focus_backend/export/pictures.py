"""PNG files and the report: photo, reconstruction, overlay and mask side by side."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from focus_backend.errors import OutputError

PANEL_SIZE = 480
FACE_COLOUR = (38, 166, 154)
OUTLIER_COLOUR = (255, 112, 67)
_GAP = 12
_TITLE_HEIGHT = 40
_BACKGROUND = (24, 26, 30)
_TEXT = (235, 237, 240)
_STUDIO = (58, 62, 70)


def encode_png(pixels: UInt8[ndarray, "height width 3"] | UInt8[ndarray, "height width"]) -> bytes:
    """PNG of RGB or grey pixels; the same pixels give the same bytes."""
    picture = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return _encode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def encode_mask(mask: Bool[ndarray, "height width"]) -> bytes:
    """PNG with 255 where the mask is set."""
    return encode_png(mask.astype(np.uint8) * 255)


def encode_jpeg(pixels: UInt8[ndarray, "height width 3"], quality: int = 92) -> bytes:
    """JPEG of RGB pixels."""
    return _encode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def draw_report(
    photo: UInt8[ndarray, "height width 3"],
    rendering: UInt8[ndarray, "height width 3"],
    face_mask: Bool[ndarray, "height width"],
    outlier_mask: Bool[ndarray, "height width"],
) -> UInt8[ndarray, "report_height report_width 3"]:
    """Photo, reconstruction, overlay and mask, cut around the face and labelled.

    Args:
        photo: sRGB.
        rendering: sRGB, valid where either mask is set.
        face_mask: pixels explained by the face.
        outlier_mask: rendered pixels that something else covers.
    """
    box = face_box(face_mask | outlier_mask)
    photo, rendering = _cut(photo, box), _cut(rendering, box)
    face, outlier = (_weights(mask, box) for mask in (face_mask, outlier_mask))
    # Scaled masks have soft edges, and so has everything laid over the photo with them.
    region = np.clip(face + outlier, 0, 1)
    panels = {
        "Photo": photo,
        "Reconstruction": _blend(np.full_like(photo, _STUDIO), rendering, region),
        "Overlay": _blend(photo, rendering, face),
        "Mask": _tint(_tint(photo, face, FACE_COLOUR), outlier, OUTLIER_COLOUR),
    }
    return _side_by_side(panels)


def face_box(region: Bool[ndarray, "height width"], margin: float = 0.3) -> Int[ndarray, "4"]:
    """Left, top, right, bottom of a square around the region with a margin, moved into the photo as far as it fits."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        rows, columns = np.arange(region.shape[0]), np.arange(region.shape[1])
        margin = 0.0
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    half = int(np.ceil((high - low).max() * (1 + 2 * margin) / 2))
    start = (low + high) // 2 - half
    room = np.array(region.shape[::-1]) - 2 * half
    start = np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), start)
    return np.concatenate([start, start + 2 * half])


def _cut(picture: ndarray, box: Int[ndarray, "4"]) -> ndarray:
    """The box of the picture at panel size, dark where it reaches over the edge."""
    left, top, right, bottom = box.tolist()
    height, width = picture.shape[:2]
    inside = picture[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    edges = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    colour = _BACKGROUND if picture.ndim == 3 else (0,)
    square = cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT, value=colour)
    is_smaller = right - left > PANEL_SIZE
    return cv2.resize(square, (PANEL_SIZE, PANEL_SIZE), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC)


def _weights(mask: Bool[ndarray, "height width"], box: Int[ndarray, "4"]) -> Float[ndarray, "panel panel 3"]:
    """The box of the mask, 0 to 1, once a channel: numpy is slow at repeating a short last axis."""
    return cv2.merge([_cut(mask.astype(np.uint8) * 255, box).astype(np.float32) / 255] * 3)


def _blend(below: ndarray, above: ndarray, weight: ndarray) -> ndarray:
    return np.round(below * (1 - weight) + above * weight).astype(np.uint8)


def _tint(picture: ndarray, mask: ndarray, colour: tuple[int, int, int]) -> ndarray:
    """The picture with the mask washed in a colour and its edge drawn."""
    tinted = _blend(picture, np.broadcast_to(np.array(colour, np.uint8), picture.shape), 0.42 * mask)
    outlines, _ = cv2.findContours((mask[:, :, 0] > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(tinted), outlines, -1, colour, 1, cv2.LINE_AA)


def _side_by_side(panels: dict[str, ndarray]) -> ndarray:
    """Panels in a row, each under its name; the last name carries the colour key."""
    width = len(panels) * (PANEL_SIZE + _GAP) + _GAP
    page = Image.new("RGB", (width, _TITLE_HEIGHT + PANEL_SIZE + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(19), ImageFont.load_default(15)
    for place, (title, panel) in enumerate(panels.items()):
        left = _GAP + place * (PANEL_SIZE + _GAP)
        page.paste(Image.fromarray(panel), (left, _TITLE_HEIGHT))
        draw.text((left + 2, _TITLE_HEIGHT / 2), title, _TEXT, font, anchor="lm")
    right = width - _GAP
    for name, colour in (("not face", OUTLIER_COLOUR), ("face", FACE_COLOUR)):
        right -= int(draw.textlength(name, small)) + 2
        draw.text((right, _TITLE_HEIGHT / 2), name, _TEXT, small, anchor="lm")
        right -= 20
        draw.rounded_rectangle((right, _TITLE_HEIGHT / 2 - 7, right + 14, _TITLE_HEIGHT / 2 + 7), 3, colour)
        right -= 14
    return np.asarray(page)


def _encode(suffix: str, picture: ndarray, options: list[int]) -> bytes:
    is_done, data = cv2.imencode(suffix, picture, options)
    if not is_done:
        raise OutputError(f"a {suffix} picture of {picture.shape[1]} x {picture.shape[0]} pixels cannot be encoded")
    return data.tobytes()
