"""Measures of a face as anthropometry takes them, between named points of the 68."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Anthropometric points among the 68, counted from the subject's right.
NASION, SUBNASALE, GNATHION = 27, 33, 8
RIGHT_EX, RIGHT_EN, LEFT_EN, LEFT_EX = 36, 39, 42, 45
RIGHT_CH, LEFT_CH, UPPER_LIP, LOWER_LIP = 48, 54, 51, 57

NOSE_REACH = 26.0  # mm from the middle: beyond are cheeks

SPANS = {
    "n-gn": (NASION, GNATHION),
    "n-sn": (NASION, SUBNASALE),
    "en-en": (RIGHT_EN, LEFT_EN),
    "ex-ex": (RIGHT_EX, LEFT_EX),
    "ch-ch": (RIGHT_CH, LEFT_CH),
    "ls-li": (UPPER_LIP, LOWER_LIP),
}


def point_measures(landmarks: Float[ndarray, "people 68 3"]) -> dict[str, Float[ndarray, "people"]]:
    """Distances between anthropometric points, mm: face height n-gn, nose height n-sn, eyes, mouth width and lip height."""
    return {name: np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1) for name, (a, b) in SPANS.items()}


def face_width(vertices: Float[ndarray, "people v 3"], landmarks: Float[ndarray, "people 68 3"]) -> Float[ndarray, "people"]:
    """zy-zy: the greatest width of the skin over the cheekbones, between the heights of eyes and nose and in front of the ears, mm.

    Args:
        vertices: outer skin, without ears, of aligned heads.
        landmarks: of the same heads.
    """
    top = landmarks[..., [RIGHT_EX, LEFT_EX], 1].mean(-1)
    bottom = landmarks[..., SUBNASALE, 1]
    corner = landmarks[..., [RIGHT_EX, LEFT_EX], 2].mean(-1)
    y, z = vertices[..., 1], vertices[..., 2]
    is_cheekbone = (y < top[..., None]) & (y > bottom[..., None]) & (z < corner[..., None]) & (z > corner[..., None] - 60.0)
    x = np.where(is_cheekbone, vertices[..., 0], 0.0)
    return x.max(-1) - x.min(-1)


def nose_width(vertices: Float[ndarray, "people v 3"], landmarks: Float[ndarray, "people 68 3"]) -> Float[ndarray, "people"]:
    """al-al: the greatest width of the nose in front of the folds beside it, mm; arguments as for `face_width`."""
    tip, base = landmarks[..., 30, :], landmarks[..., SUBNASALE, :]
    y, z = vertices[..., 1], vertices[..., 2]
    # The wings lie between the tip and the lip, in front of where the nose meets the cheek beside them.
    is_nose = (np.abs(y - (tip + base)[..., 1, None] / 2) < 9.0) & (z > base[..., 2, None] - 4.0) & (np.abs(vertices[..., 0]) < NOSE_REACH)
    x = np.where(is_nose, vertices[..., 0], 0.0)
    return x.max(-1) - x.min(-1)
