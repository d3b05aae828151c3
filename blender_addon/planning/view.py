# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The camera in a face's document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from ..head import MatchedCamera
from ..shapes import Float
from .answer import read_count, read_numbers, unusable
from .frames import camera_matrix, camera_points, project

# How far a rotation may be from one, rounded as float32 is: a camera that shears or mirrors is none.
ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PhotoView:
    """How a photo shows a head; docs/conventions.md.

    Attributes:
        rotation: model to camera space.
        translation_mm: of the model's origin in camera space.
        focal_length_px: above 0.
        principal_point_px: from the top left corner.
        width_px, height_px: of the photo as the backend worked on it.
    """

    rotation: Float[ndarray, "3 3"]
    translation_mm: Float[ndarray, "3"]
    focal_length_px: float
    principal_point_px: Float[ndarray, "2"]
    width_px: int
    height_px: int

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> PhotoView:
        """The view in a face's document.

        Raises:
            AddonError: something is missing, of another shape, not finite, or no camera's; code "answer".
        """
        focal_length_px = float(read_numbers(document, "camera.focal_length_px", ()))
        if focal_length_px <= 0:
            raise unusable(f"has {focal_length_px:g} as camera.focal_length_px of its document")
        rotation = read_numbers(document, "camera.rotation", (3, 3))
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
            raise unusable("has a camera.rotation in its document that is none")
        return cls(
            rotation=rotation,
            translation_mm=read_numbers(document, "camera.translation_mm", (3,)),
            focal_length_px=focal_length_px,
            principal_point_px=read_numbers(document, "camera.principal_point_px", (2,)),
            width_px=read_count(document, "camera.width_px"),
            height_px=read_count(document, "camera.height_px"),
        )

    def points_and_pixels(self, model_points: Float[ndarray, "n 3"]) -> tuple[Float[ndarray, "n 3"], Float[ndarray, "n 2"]]:
        """Points of model space (mm) in camera space (mm), and where the photo shows them."""
        points = camera_points(model_points, self.rotation, self.translation_mm)
        pixels, _ = project(points, self.focal_length_px, self.principal_point_px)
        return points, pixels

    def matched_camera(self, unit_scale: float) -> MatchedCamera:
        """The same for the scene; `unit_scale` is Blender units a metre."""
        x, y = (float(coordinate) for coordinate in self.principal_point_px)
        matrix = camera_matrix(self.rotation, self.translation_mm, unit_scale)
        return MatchedCamera(matrix, self.focal_length_px, (x, y), self.width_px, self.height_px)
