"""Edge-preserving smoothing led by a colour picture (He, Sun and Tang, "Guided Image Filtering", ECCV 2010).

OpenCV has it in `ximgproc`, which is gone as soon as any package installs another build of OpenCV over it.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float


class GuidedFilter:
    """Smooths maps so that they keep the edges of one guide; what depends on the guide alone is computed once."""

    def __init__(self, guide: Float[np.ndarray, "height width 3"], radius: int, regularisation: float) -> None:
        """
        Args:
            guide: colours, float32.
            radius: of the square windows, which have 2 * radius + 1 pixels a side.
            regularisation: variance of the guide below which a window counts as flat.
        """
        self._guide = guide.astype(np.float32)
        self._window = (2 * radius + 1, 2 * radius + 1)
        self._mean = self._box(self._guide)
        products = self._guide[..., :, None] * self._guide[..., None, :]
        covariance = self._box(products.reshape(*guide.shape[:2], 9)).reshape(products.shape)
        covariance -= self._mean[..., :, None] * self._mean[..., None, :]
        self._inverse = _inverse(covariance + np.float32(regularisation) * np.eye(3, dtype=np.float32))

    def __call__(self, values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
        """The smoothed map: in every window it is an affine function of the guide's colour."""
        values = values.astype(np.float32)
        mean = self._box(values)
        covariance = self._box(self._guide * values[..., None]) - self._mean * mean[..., None]
        slope = (self._inverse @ covariance[..., None])[..., 0]
        offset = mean - channel_sum(slope * self._mean)
        return channel_sum(self._box(slope) * self._guide) + self._box(offset)

    def _box(self, values: np.ndarray) -> np.ndarray:
        """Mean over each pixel's window. OpenCV filters at most four channels at once."""
        if values.ndim == 2:
            return cv2.blur(values, self._window)
        parts = [cv2.blur(np.ascontiguousarray(values[..., channel]), self._window) for channel in range(values.shape[-1])]
        return np.stack(parts, -1)


def _inverse(matrix: Float[np.ndarray, "height width 3 3"]) -> Float[np.ndarray, "height width 3 3"]:
    """Inverse of symmetric 3 x 3 matrices by cofactors, some ten times faster than a general solver."""
    columns = [matrix[..., column] for column in range(3)]
    cofactors = np.stack([np.cross(columns[(row + 1) % 3], columns[(row + 2) % 3]) for row in range(3)], -2)
    determinant = channel_sum(columns[0] * cofactors[..., 0, :])
    return cofactors / determinant[..., None, None]


def channel_sum(values: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width"]:
    """`values.sum(-1)`, for which numpy takes ten times as long over so short an axis."""
    return values[..., 0] + values[..., 1] + values[..., 2]
