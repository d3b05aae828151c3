"""The square, aligned cut-out of a face, and the way back to the photo."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from focus_backend.errors import PhotoError


@dataclass(frozen=True)
class FaceCrop:
    """A square, aligned cut-out of a photo.

    Attributes:
        pixels: RGB, sRGB-encoded; black outside the photo.
        is_inside: crop pixels whose centre lies in the photo.
        crop_to_photo: affine map of crop pixels (pixel centres at +0.5) to photo pixels.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    is_inside: Bool[np.ndarray, "size size"]
    crop_to_photo: Float[np.ndarray, "2 3"]

    @property
    def scale(self) -> float:
        """Photo pixels in one crop pixel, along one side."""
        return float(np.hypot(self.crop_to_photo[0, 0], self.crop_to_photo[1, 0]))

    @property
    def angle(self) -> float:
        """Turn of the crop's x axis in the photo, radians, clockwise as seen."""
        return math.atan2(self.crop_to_photo[1, 0], self.crop_to_photo[0, 0])

    def to_photo(self, points: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 2"]:
        """Crop pixels as photo pixels."""
        return points @ self.crop_to_photo[:, :2].T + self.crop_to_photo[:, 2]

    def to_crop(self, points: Float[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 2"]:
        """Photo pixels as crop pixels."""
        return (points - self.crop_to_photo[:, 2]) @ np.linalg.inv(self.crop_to_photo[:, :2]).T


def crop_face(
    pixels: UInt8[np.ndarray, "height width 3"],
    centre: tuple[float, float],
    side: float,
    size: int = 224,
    angle: float = 0.0,
) -> FaceCrop:
    """Square crop of `side` photo pixels around `centre`, area-averaged to `size` pixels.

    Args:
        pixels: the photo.
        centre: photo pixels.
        side: photo pixels.
        size: crop pixels.
        angle: turn of the crop's x axis in the photo, radians, clockwise as seen; 0 keeps the photo's axes.

    Raises:
        PhotoError: `side` is not a positive finite number.
    """
    if not (math.isfinite(side) and side > 0 and np.isfinite([*centre, angle]).all()):
        raise PhotoError("a face crop needs a finite centre and a positive side", "check the landmarks")
    step = side / size
    turn = step * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    crop_to_photo = np.column_stack([turn, np.asarray(centre, dtype=np.float64) - turn @ np.full(2, size / 2)])
    height, width = pixels.shape[:2]
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    places = np.stack([columns, rows], -1) @ crop_to_photo[:, :2].T + crop_to_photo[:, 2]
    is_inside = ((places >= 0) & (places < [width, height])).all(-1)
    return FaceCrop(_resample(pixels, crop_to_photo, size), is_inside, crop_to_photo)


def crop_around(
    pixels: UInt8[np.ndarray, "height width 3"], points: Float[np.ndarray, "points 2"], size: int = 224, margin: float = 0.25
) -> FaceCrop:
    """Upright crop around `points` (photo pixels) with `margin` of their extent added on each side."""
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) * (1 + 2 * margin)
    centre = (low + high) / 2
    return crop_face(pixels, (float(centre[0]), float(centre[1])), side, size)


def _resample(pixels: np.ndarray, crop_to_photo: np.ndarray, size: int) -> np.ndarray:
    """Bilinear at no more than one photo pixel a step, then the mean over whole blocks: no aliasing at any scale."""
    steps = max(1, math.ceil(float(np.hypot(*crop_to_photo[:, 0])) - 1e-9))
    linear = crop_to_photo[:, :2] / steps
    # OpenCV puts pixel centres at whole numbers, we put them at +0.5.
    offset = crop_to_photo[:, 2] + linear @ np.full(2, 0.5) - 0.5
    matrix = np.column_stack([linear, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(pixels, matrix, (size * steps, size * steps), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return fine if steps == 1 else cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
