# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""From model space (mm) to Blender's axes and units, and from result.json's camera to Blender's."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ..shapes import Float, Float32

METRES_PER_MILLIMETRE = 0.001
# x stays to the subject's left; out of the face becomes -y, up becomes z.
MODEL_TO_OBJECT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def object_points(model_points: Float[ndarray, "*batch 3"], unit_scale: float) -> Float32[ndarray, "*batch 3"]:
    """Points or offsets of object space.

    Args:
        model_points: model space, mm.
        unit_scale: Blender units a metre.
    """
    scale = np.float32(METRES_PER_MILLIMETRE * unit_scale)
    points = np.empty(model_points.shape, np.float32)
    points[..., 0] = model_points[..., 0] * scale
    points[..., 1] = model_points[..., 2] * -scale
    points[..., 2] = model_points[..., 1] * scale
    return points


def camera_points(
    model_points: Float[ndarray, "n 3"], rotation: Float[ndarray, "3 3"], translation_mm: Float[ndarray, "3"]
) -> Float[ndarray, "n 3"]:
    """Camera space (mm) of points of model space (mm)."""
    return model_points @ rotation.T + translation_mm


def camera_matrix(rotation: Float[ndarray, "3 3"], translation_mm: Float[ndarray, "3"], unit_scale: float) -> Float32[ndarray, "4 4"]:
    """Camera space to object space, both in object units: the camera's matrix as a child of the head.

    Args:
        rotation: model to camera space.
        translation_mm: of the model's origin in camera space.
        unit_scale: Blender units a metre.
    """
    turn = MODEL_TO_OBJECT @ rotation.T
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = -turn @ translation_mm * METRES_PER_MILLIMETRE * unit_scale
    return matrix.astype(np.float32)


def project(
    points: Float[ndarray, "n 3"], focal_length_px: float, principal_point_px: Float[ndarray, "2"]
) -> tuple[Float[ndarray, "n 2"], Float[ndarray, "n"]]:
    """Pixels (x right, y down, from the top left corner) of points of camera space, and their depths.

    Points behind the camera get pixels of no meaning and a depth below 0.
    """
    depth = -points[:, 2]
    scale = focal_length_px / np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    return np.stack([principal_point_px[0] + points[:, 0] * scale, principal_point_px[1] - points[:, 1] * scale], axis=1), depth
