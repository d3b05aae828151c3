"""Things in front of a rendered face, so that a detector's calibration knows what hands, cloth and hair do to its points."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

# Shares of the pictures.
OCCLUDED_SHARE = 0.35
_SUPERSAMPLING = 4  # bits of OpenCV's fixed-point coordinates


def occlude(
    pixels: UInt8[np.ndarray, "size size 3"], face: Float[np.ndarray, "points 2"], random: torch.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """The picture with, in one of three cases, a hand, a cloth over the lower face or a fringe over the upper.

    Args:
        pixels: RGB.
        face: pixel positions of points of the face; the first is the middle of the eyes.
        random: draws what is put where.
    """
    draws = torch.rand(12, generator=random).numpy()
    if draws[0] > OCCLUDED_SHARE:
        return pixels
    kind, colour = int(draws[1] * 4), _colour(pixels, face, draws[2:6])
    cover = np.zeros(pixels.shape[:2], np.uint8)
    height = float(np.ptp(face[:, 1]))
    if kind < 2:
        _draw_hand(cover, face, height, draws[6:])
    elif kind == 2:
        _draw_band(cover, face, face[:, 1].min() + height * (0.45 + 0.15 * draws[6]), face[:, 1].max() + height * 0.1)
    else:
        _draw_band(cover, face, face[:, 1].min() - height * 0.4, face[0, 1] - height * (0.02 + 0.15 * draws[6]))
    soft = cv2.GaussianBlur(cover, (0, 0), 0.8)[..., None].astype(np.float32) / 255
    # Shaded from one side, so that it is no flat shape.
    ramp = np.linspace(0.75, 1.15, pixels.shape[1], dtype=np.float32)[None, :: 1 if draws[11] < 0.5 else -1, None]
    return (pixels * (1 - soft) + np.clip(colour * ramp, 0, 255) * soft).astype(np.uint8)


def _colour(pixels: np.ndarray, face: np.ndarray, draws: np.ndarray) -> Float[np.ndarray, "3"]:
    """Half of the occluders have about the colour of the face, as hands do."""
    if draws[0] < 0.5:
        size = len(pixels) - 1
        x, y = np.clip(face.mean(0).astype(int), 0, size)
        return pixels[y, x] * (0.7 + 0.6 * draws[1:])
    return (255 * draws[1:]).astype(np.float32)


def _draw_hand(cover: np.ndarray, face: np.ndarray, height: float, draws: np.ndarray) -> None:
    """A forearm from below and fingers that end on the face."""
    tip = face.min(0) + np.ptp(face, axis=0) * (0.15 + 0.7 * draws[:2])
    direction = np.array([1.6 * (draws[2] - 0.5), 1.0])
    direction /= np.linalg.norm(direction)
    side = np.array([-direction[1], direction[0]])
    palm = tip + direction * height * 0.45
    for finger in range(4):
        end = tip + side * height * 0.09 * (finger - 1.5) + direction * height * 0.06 * abs(finger - 1.3)
        _draw_line(cover, end, palm + side * height * 0.07 * (finger - 1.5), height * 0.085)
    _draw_line(cover, palm, palm + direction * height * 1.5, height * 0.3)


def _draw_band(cover: np.ndarray, face: np.ndarray, top: float, bottom: float) -> None:
    """Everything of the face between two heights, bulging at its ends."""
    left, right = face[:, 0].min(), face[:, 0].max()
    sag = 0.12 * (right - left)
    outline = [
        (left, top),
        ((left + right) / 2, top + sag / 3),
        (right, top),
        (right, bottom - sag),
        ((left + right) / 2, bottom),
        (left, bottom - sag),
    ]
    cv2.fillPoly(cover, [np.round(outline).astype(np.int32)], [255], cv2.LINE_AA)


def _draw_line(cover: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> None:
    scale = 1 << _SUPERSAMPLING
    first, last = ((int(point[0] * scale), int(point[1] * scale)) for point in (start, end))
    cv2.line(cover, first, last, [255], max(1, round(width)), cv2.LINE_AA, _SUPERSAMPLING)
