"""What one face of one photo became, and its description as the document of `result.json`."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend import __version__
from focus_backend.errors import FitError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering.camera import Camera

RESULT_FORMAT = "focus-reconstruction"
# Raise it when a reader of the old document would misread the new one; adding a key does not.
RESULT_VERSION = 1


@dataclass(frozen=True)
class Reconstruction:
    """One face: coefficients, camera, light, neutral geometry, textures and masks.

    Attributes:
        model: the face model the coefficients belong to.
        photo_name: file name without folder.
        photo: upright RGB, sRGB; "photo pixels" below are these.
        face_index: 0 is the largest face of the photo.
        shape, expression, albedo: coefficients in standard deviations.
        lighting: spherical-harmonics coefficients x linear RGB, camera space.
        camera: in photo pixels.
        landmarks: `detector` (its name), `points` [n 2] in photo pixels, `names` [n].
        neutral_vertices: identity only, model space, mm, corrected for misfit where that was done.
        albedo_texture: the model's albedo, sRGB, in the model's UV.
        texture: the photo's colours without its light, sRGB, in the model's UV.
        face_mask, outlier_mask: photo size, disjoint; together the rendered region.
        rendering: the fitted face in the photo's light, sRGB; valid where either mask is set.
        timings: seconds of each stage.
        detector: which landmark detector was used, or "user".
        method: how theta was found: "fit", "network" or "refine".
        warnings: what the user should know, one line each.
        photo_sha256: of the photo's file.
        original_size: width and height of the file before it was scaled down; None where it was not.
        weights_sha256: of the networks' weights; None for a fit without networks.
        misfit: whether the misfit prior (eq 11) was taken off `neutral_vertices`.
    """

    model: FaceModel
    photo_name: str
    photo: UInt8[np.ndarray, "height width 3"]
    face_index: int
    shape: Float[Tensor, "shape"]
    expression: Float[Tensor, "expression"]
    albedo: Float[Tensor, "albedo"]
    lighting: Float[Tensor, "9 3"]
    camera: Camera
    landmarks: Mapping[str, Any]
    neutral_vertices: Float[Tensor, "vertices 3"]
    albedo_texture: UInt8[np.ndarray, "albedo_size albedo_size 3"]
    texture: UInt8[np.ndarray, "texture_size texture_size 3"]
    face_mask: Bool[np.ndarray, "height width"]
    outlier_mask: Bool[np.ndarray, "height width"]
    rendering: UInt8[np.ndarray, "height width 3"]
    timings: Mapping[str, float] = field(default_factory=dict)
    detector: str = ""
    method: str = "fit"
    warnings: tuple[str, ...] = ()
    photo_sha256: str = ""
    original_size: tuple[int, int] | None = None
    weights_sha256: str | None = None
    misfit: bool = False

    @property
    def activations(self) -> dict[str, float]:
        """The fitted expression by name; 1 is the full named expression."""
        values = (self.expression * activation_scale(self.model)).tolist()
        return {name: _short(value) for name, value in zip(self.model.expression_names, values, strict=True)}

    def now_landmarks(self) -> Float[Tensor, "7 3"]:
        """The seven NoW points on the neutral mesh, mm, model space, subject's right first."""
        return self.model.now_landmarks.on(self.neutral_vertices, self.model.triangles)

    def to_document(self) -> dict[str, Any]:
        """The content of `result.json`: plain numbers, lists and strings, as `result.schema.json` describes.

        Raises:
            FitError: a number is not finite.
        """
        height, width = self.photo.shape[:2]
        document = {
            "format": RESULT_FORMAT,
            "version": RESULT_VERSION,
            "method": self.method,
            "photo": {
                "name": self.photo_name,
                "width": width,
                "height": height,
                "original_width": (self.original_size or (width, height))[0],
                "original_height": (self.original_size or (width, height))[1],
                "sha256": self.photo_sha256,
            },
            "face_index": self.face_index,
            "theta": self._theta(),
            "camera": camera_document(self.camera),
            "lighting": _numbers(self.lighting),
            "landmarks": {
                "detector": self.detector or str(self.landmarks.get("detector", "")),
                "names": [str(name) for name in self.landmarks.get("names", ())],
                "points": _numbers(self.landmarks.get("points", ())),
            },
            "now_landmarks": _numbers(self.now_landmarks()),
            "mask_pixels": {"face": int(self.face_mask.sum()), "outlier": int(self.outlier_mask.sum())},
            "timings": {name: round(float(seconds), 4) for name, seconds in self.timings.items()},
            "versions": versions(),
            "model": {"name": self.model.name, "sha256": self.model.metadata.get("sha256", "")},
            "weights": {"sha256": self.weights_sha256} if self.weights_sha256 else None,
            "misfit": self.misfit,
            "warnings": list(self.warnings),
        }
        if not _is_finite(document):
            raise FitError(f"the fit of {self.photo_name} left numbers that are not finite", "give landmarks yourself, or another photo")
        return document

    def _theta(self) -> dict[str, Any]:
        """Coefficients in standard deviations; expressions by name, with their activation (1 = full) beside."""
        names = self.model.expression_names
        return {
            "shape": _numbers(self.shape),
            "expression": dict(zip(names, _numbers(self.expression), strict=True)),
            "expression_activation": self.activations,
            "albedo": _numbers(self.albedo),
        }


def activation_scale(model: FaceModel) -> Float[Tensor, "expression"]:
    """Activation of one standard deviation of each expression; an expression that never varies is its own unit."""
    return torch.where(model.expression_scale == 0, torch.ones_like(model.expression_scale), model.expression_scale)


def camera_document(camera: Camera) -> dict[str, Any]:
    """A camera as plain numbers: pose (model to camera space, mm), intrinsics (pixels) and field of view (degrees)."""
    focal = float(camera.focal_length)
    rotation = camera.rotation.detach().cpu().double().numpy()
    return {
        "rotation": _numbers(camera.rotation),
        "axis_angle": _numbers(cv2.Rodrigues(rotation)[0][:, 0]),
        "translation_mm": _numbers(camera.translation),
        "focal_length_px": _short(focal),
        "principal_point_px": _numbers(camera.principal_point),
        "width_px": camera.width,
        "height_px": camera.height,
        "field_of_view_degrees": {
            "horizontal": _short(math.degrees(2 * math.atan2(camera.width / 2, focal))),
            "vertical": _short(math.degrees(2 * math.atan2(camera.height / 2, focal))),
        },
    }


def versions() -> dict[str, str]:
    """What computed the result."""
    return {
        "focus_backend": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: more digits would be noise."""
    return float(str(np.float32(value)))


def _numbers(values: Any) -> list[Any]:
    """Nested lists of short floats."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    flat = [_short(v) for v in array.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(array.shape).tolist()


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_is_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)
