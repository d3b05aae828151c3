"""Theta of one face while it is being fitted, and how a solver's step changes it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.reconstruction.result import activation_scale
from focus_backend.rendering import Camera, rotation_from_axis_angle

POSE_SIZE = 7  # rotation 3, translation 3, log focal length 1
DEPTH = 5  # of the translation along the view, among them
LIGHTING_SIZE = 27


@dataclass(frozen=True)
class FaceState:
    """Theta (FOCUS.md, "Parameters theta"), float64, not batched.

    Attributes:
        shape, expression, albedo: coefficients in standard deviations.
        lighting: spherical harmonics x RGB, camera space.
        rotation: model space to camera space.
        translation: mm.
        log_focal: natural logarithm of the focal length in photo pixels.
    """

    shape: Float[Tensor, "shape"]
    expression: Float[Tensor, "expression"]
    albedo: Float[Tensor, "albedo"]
    lighting: Float[Tensor, "9 3"]
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    log_focal: Float[Tensor, ""]

    def camera(self, principal_point: Float[Tensor, "2"], width: int, height: int) -> Camera:
        """The camera in photo pixels, float32."""
        focal = self.log_focal.exp().float()
        return Camera(self.rotation.float(), self.translation.float(), focal, principal_point.float(), width, height)

    def moved(
        self,
        geometry: Float[Tensor, "geometry"],
        pose: Float[Tensor, "7"],
        albedo: Float[Tensor, "albedo"] | None = None,
        lighting: Float[Tensor, "27"] | None = None,
    ) -> FaceState:
        """The state after a step: geometry is shape then expression; the rotation is turned in camera space."""
        size = len(self.shape)
        return dataclasses.replace(
            self,
            shape=self.shape + geometry[:size],
            expression=self.expression + geometry[size:],
            albedo=self.albedo if albedo is None else self.albedo + albedo,
            lighting=self.lighting if lighting is None else self.lighting + lighting.view(9, 3),
            rotation=rotation_from_axis_angle(pose[:3]) @ self.rotation,
            translation=self.translation + pose[3:6],
            log_focal=self.log_focal + pose[6],
        )

    def bounded(self, model: FaceModel) -> FaceState:
        """The state with every expression within what faces can do."""
        scale = activation_scale(model).double()
        return dataclasses.replace(self, expression=(self.expression * scale).clamp(-0.15, 1.1) / scale)


@dataclass(frozen=True)
class CameraPrior:
    """What is known of the camera before the face is looked at.

    Attributes:
        principal_point: photo pixels.
        log_focal: expected logarithm of the focal length in photo pixels.
        log_focal_spread: its standard deviation.
        log_distance: expected logarithm of the distance along the view to the model's origin in mm.
        log_distance_spread: its standard deviation.
        share: how many photos are of this kind.
    """

    principal_point: Float[Tensor, "2"]
    log_focal: float
    log_focal_spread: float
    log_distance: float
    log_distance_spread: float
    share: float = 1.0

    def log_density(self, state: FaceState) -> float:
        """Logarithm of the density at a state's camera, up to a constant that all priors have in common; not finite behind the camera."""
        distance = -float(state.translation[2])
        if distance <= 0:
            return -math.inf
        focal_error = (float(state.log_focal) - self.log_focal) / self.log_focal_spread
        distance_error = (math.log(distance) - self.log_distance) / self.log_distance_spread
        scale = math.log(self.share / self.log_focal_spread / self.log_distance_spread)
        return scale - 0.5 * (focal_error**2 + distance_error**2)


@dataclass(frozen=True)
class CoefficientPrior:
    """What is known of coefficients before the photo is looked at: independent normals, in standard deviations of the face model.

    Attributes:
        mean: what is expected.
        spread: standard deviation about it; 1 about 0 is the face model's own prior.
    """

    mean: Float[Tensor, "n"]
    spread: Float[Tensor, "n"]

    @classmethod
    def standard(cls, size: int) -> CoefficientPrior:
        """The face model's own prior: zeros and ones."""
        return cls(torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64))

    @property
    def precision(self) -> Float[Tensor, "n"]:
        """Inverse variances."""
        return self.spread**-2

    def log_density(self, values: Float[Tensor, "n"]) -> float:
        """Logarithm of the density at `values`, up to a constant."""
        return -0.5 * float(((values - self.mean) / self.spread).square().sum())


@dataclass(frozen=True)
class FacePrior:
    """What is known of a face before the photo is fitted.

    Attributes:
        geometry: of shape, then expression.
        albedo: of albedo.
    """

    geometry: CoefficientPrior
    albedo: CoefficientPrior

    @classmethod
    def standard(cls, model: FaceModel) -> FacePrior:
        """The face model's own prior."""
        return cls(CoefficientPrior.standard(model.shape_size + model.expression_size), CoefficientPrior.standard(model.albedo_size))
