"""Square, turned regions of a photo around a face: cutting them out and taking points back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Region:
    """A turned square in photo pixels.

    Attributes:
        center: its middle.
        size: length of a side in pixels.
        angle: radians the square is turned, clockwise as seen, so that the face inside stands upright.
    """

    center: tuple[float, float]
    size: float
    angle: float = 0.0

    def moved(self, shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0, turn: float = 0.0) -> Region:
        """The region shifted by a share of its size along its own axes, scaled, and turned by radians."""
        x, y = self.axes() @ (np.asarray(shift) * self.size) + self.center
        return Region((float(x), float(y)), self.size * scale, self.angle + turn)

    def axes(self) -> Float[np.ndarray, "2 2"]:
        """The square's own x and y directions in the photo, as columns."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cosine, -sine], [sine, cosine]])

    def to_photo(self, points: Float[np.ndarray, "points 2"], mirrored: bool = False) -> Float[np.ndarray, "points 2"]:
        """Points of the unit square ([0, 1], origin top left) in photo pixels; `mirrored` when it was cut out mirrored."""
        offset = (points - 0.5) * self.size
        if mirrored:
            offset = offset * [-1.0, 1.0]
        return offset @ self.axes().T + self.center


class PhotoPyramid:
    """A photo and its halvings, made when first asked for, so that large faces are reduced without aliasing."""

    def __init__(self, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        self._levels = [np.ascontiguousarray(pixels)]

    def level(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The photo halved `index` times."""
        while len(self._levels) <= index:
            last = self._levels[-1]
            size = (max(last.shape[1] // 2, 1), max(last.shape[0] // 2, 1))
            self._levels.append(cv2.resize(last, size, interpolation=cv2.INTER_AREA))
        return self._levels[index]

    def cut(self, region: Region, pixels: int, mirrored: bool = False) -> UInt8[np.ndarray, "size size 3"]:
        """The region as a square picture of `pixels` a side, its border pixels repeated beyond the photo."""
        reduction = region.size / pixels
        image = self.level(int(np.clip(np.floor(np.log2(max(reduction, 1.0))), 0, 8)))
        full_height, full_width = self._levels[0].shape[:2]
        ratio = np.array([image.shape[1] / full_width, image.shape[0] / full_height])
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        # Pixel centres lie at +0.5 in our frame and at whole numbers in OpenCV's.
        source = region.to_photo(corners, mirrored) * ratio - 0.5
        target = corners * pixels - 0.5
        matrix = cv2.getAffineTransform(target.astype(np.float32), source.astype(np.float32))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, (pixels, pixels), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def region_around(
    points: Float[np.ndarray, "points 2"], right_eye: Float[np.ndarray, "2"], left_eye: Float[np.ndarray, "2"], scale: float
) -> Region:
    """The square around points, turned so that the eyes lie level, `scale` times as large as their extent."""
    across = left_eye - right_eye
    angle = float(np.arctan2(across[1], across[0]))
    axes = Region((0.0, 0.0), 1.0, angle).axes()
    turned = points @ axes
    low, high = turned.min(0), turned.max(0)
    x, y = axes @ ((low + high) / 2)
    return Region((float(x), float(y)), float((high - low).max()) * scale, angle)
