"""The aligned crop that the networks see, and its camera: from five points of a photo to the crop, and from theta back to the photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.face_crop import FaceCrop
from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering import Camera, rotation_from_axis_angle, spherical_harmonics

# FOCUS.md: 9.06 * 112 pixels at 224 pixels, one metre away.
FOCAL_LENGTH_IN_HALF_SIZES = 9.06
DISTANCE = 1000.0
# Corners of the eyes, tip of the nose and corners of the mouth among the 68 points; the subject's right comes first.
FIVE_POINTS_OF_68 = ((36, 39), (42, 45), (30,), (48,), (54,))
_ITERATIONS = 10
# Radians; five points tell little of yaw and pitch, which hold the scale.
_YAW_SPREAD, _PITCH_SPREAD = 0.6, 0.25
# Detectors miss a point of a mean face by about so many millimetres.
_POINT_SPREAD = 5.0


class CropPlace(NamedTuple):
    """Where a crop lies in its photo, as `face_crop.crop_face` takes it.

    Attributes:
        centre: photo pixels.
        side: photo pixels.
        angle: turn of the crop's x axis in the photo, radians, clockwise as seen.
    """

    centre: tuple[float, float]
    side: float
    angle: float


class Placement(NamedTuple):
    """Scaled orthographic views of five points.

    Attributes:
        scale: pixels a millimetre.
        angle: roll, radians, clockwise as seen.
        centre: pixels of the model point that a crop has at its centre.
    """

    scale: Float[Tensor, "b"]
    angle: Float[Tensor, "b"]
    centre: Float[Tensor, "b 2"]


@dataclass(frozen=True)
class CropFrame:
    """The fixed camera of aligned crops of `size` pixels; a mean face that looks into it fills the crop.

    Attributes:
        size: rows and columns of a crop.
        centre: model-space point, mm, that the camera looks at when the face is at its start.
        five_points: eye centres, nose tip and corners of the mouth of the mean face, model space, mm, in the detectors' order.
    """

    size: int
    centre: Float[Tensor, "3"]
    five_points: Float[Tensor, "5 3"]

    @classmethod
    def of(cls, model: FaceModel, size: int = 224) -> CropFrame:
        """The frame of a face model, on its device."""
        points = model.landmarks68.on(model.mean_shape, model.triangles)
        five = five_of_68(points)
        face = model.mean_shape[model.triangles[model.triangle_in_face].flatten()]
        middle = (face.amin(0) + face.amax(0)) / 2
        # Heads are symmetric; the depth is that of the points which place the crop.
        centre = torch.stack([torch.zeros_like(middle[0]), middle[1], five[:, 2].mean()])
        return cls(size, centre, five)

    @property
    def start_translation(self) -> Float[Tensor, "3"]:
        """Of the start of theta: mm, camera space."""
        return self.centre.new_tensor([0.0, 0.0, -DISTANCE]) - self.centre

    @property
    def focal_length(self) -> float:
        """Crop pixels."""
        return FOCAL_LENGTH_IN_HALF_SIZES * self.size / 2

    @property
    def pixels_per_millimetre(self) -> float:
        """At the start's distance."""
        return self.focal_length / DISTANCE

    def camera(self, rotation: Float[Tensor, "b 3"], translation: Float[Tensor, "b 3"]) -> Camera:
        """The crop's camera with the pose of each face (axis times angle; mm)."""
        batch = len(rotation)
        focal = translation.new_full((batch,), self.focal_length)
        middle = translation.new_full((batch, 2), self.size / 2)
        return Camera(rotation_from_axis_angle(rotation), translation, focal, middle, self.size, self.size)

    def place(self, five_points: Float[np.ndarray, "5 2"]) -> CropPlace:
        """Where the crop of a face lies whose five points are these photo pixels."""
        found = self.placement(torch.from_numpy(np.asarray(five_points, dtype=np.float64))[None])
        x, y = found.centre[0].tolist()
        side = float(found.scale[0]) * self.size / self.pixels_per_millimetre
        return CropPlace((x, y), side, float(found.angle[0]))

    def placement(self, five_points: Float[Tensor, "b 5 2"]) -> Placement:
        """The scaled orthographic view of the mean face that fits five points (pixels) best: Gauss-Newton from the best flat similarity.

        FOCUS.md aligns with an affine view; a rigid one with weak priors of yaw and pitch keeps its scale for profiles and noisy points,
        and the roll is taken out too.
        """
        seen = five_points.double()
        points = (self.five_points - self.centre).to(seen)
        pose = _flat_similarity(points, seen)
        for _ in range(_ITERATIONS):
            pose = pose + _gauss_newton_step(points, seen, pose)
        _, _, roll, log_scale, x, y = pose.unbind(-1)
        # Turned past a half circle is turned the other way.
        roll = torch.atan2(roll.sin(), roll.cos())
        return Placement(log_scale.exp(), roll, torch.stack([x, y], -1))

    def rescaled(
        self, rotation: Float[Tensor, "b 3"], translation: Float[Tensor, "b 3"], factor: Float[Tensor, "b"]
    ) -> Float[Tensor, "b 3"]:
        """Translation (mm) that faces seen in a crop of `factor` times the side have in the crop itself; the pose is axis times angle."""
        middle = rotation_from_axis_angle(rotation) @ self.centre
        across, depth = (translation + middle).split([2, 1], dim=1)
        return torch.cat([across, depth / factor[:, None]], dim=1) - middle

    def photo_camera(
        self, rotation: Float[Tensor, "3"], translation: Float[Tensor, "3"], crop: FaceCrop, width: int, height: int
    ) -> Camera:
        """The view of one face through the crop's camera as a camera of the whole photo, in photo pixels."""
        linear = torch.from_numpy(crop.crop_to_photo[:, :2]).to(rotation)
        step = linear[:, 0].norm()
        turn = _roll_matrix(linear)
        middle = linear @ linear.new_full((2,), self.size / 2) + torch.from_numpy(crop.crop_to_photo[:, 2]).to(rotation)
        return Camera(turn @ rotation_from_axis_angle(rotation), turn @ translation, step * self.focal_length, middle, width, height)

    def photo_lighting(self, lighting: Float[Tensor, "9 3"], crop: FaceCrop) -> Float[Tensor, "9 3"]:
        """Lighting in the space of the crop's camera as lighting in the space of the photo's."""
        turn = _roll_matrix(torch.from_numpy(crop.crop_to_photo[:, :2])).to(lighting)
        return turn_lighting(lighting, turn)


def five_of_68(points: Float[Tensor, "*batch 68 d"]) -> Float[Tensor, "*batch 5 d"]:
    """Eye centres, nose tip and corners of the mouth of the 68 points, in the detectors' order."""
    return torch.stack([torch.stack([points[..., index, :] for index in group], -2).mean(-2) for group in FIVE_POINTS_OF_68], -2)


def turn_lighting(lighting: Float[Tensor, "9 3"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "9 3"]:
    """The light of an environment that was turned: the shading of R n under the new light is that of n under the old."""
    # Spherical harmonics of one band stay in their band, so values at enough directions determine the coefficients.
    index = torch.arange(32, dtype=torch.float64)
    height = 1 - (2 * index + 1) / len(index)
    angle = math.pi * (1 + math.sqrt(5)) * index
    radius = (1 - height**2).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1).to(lighting.device)
    values = spherical_harmonics(directions @ rotation.double()) @ lighting.double()
    # The default driver starts from pivots that nobody set: its last bits differ from call to call.
    return torch.linalg.lstsq(spherical_harmonics(directions), values, driver="gels").solution.to(lighting)


def _roll_matrix(linear: Float[Tensor, "2 2"]) -> Float[Tensor, "3 3"]:
    """The turn about the viewing direction, in camera space (y up), that a crop's linear map (y down) is, without its scale."""
    cosine, sine = (linear[:, 0] / linear[:, 0].norm()).unbind()
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    return torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, one]).unflatten(0, (3, 3))


def _flat_similarity(points: Float[Tensor, "5 3"], seen: Float[Tensor, "b 5 2"]) -> Float[Tensor, "b 6"]:
    """Frontal pose (yaw, pitch, roll, log scale, x, y) by the least squares of a similarity on x and y."""
    flat = torch.complex(points[:, 0], -points[:, 1])
    target = torch.complex(seen[..., 0], seen[..., 1])
    centred, middle = flat - flat.mean(), target.mean(-1)
    factor = (centred.conj() * (target - middle[:, None])).sum(-1) / centred.abs().square().sum()
    # Points that fell together still need a scale.
    size = factor.abs().clamp(min=1e-6)
    place = middle - factor * flat.mean()
    zero = torch.zeros_like(size)
    return torch.stack([zero, zero, factor.angle(), size.log(), place.real, place.imag], -1)


def _gauss_newton_step(points: Float[Tensor, "5 3"], seen: Float[Tensor, "b 5 2"], pose: Float[Tensor, "b 6"]) -> Float[Tensor, "b 6"]:
    """One step of the fit of a scaled orthographic view, the residuals in millimetres."""
    yaw, pitch, roll, log_scale, x, y = (value[:, None] for value in pose.unbind(-1))
    px, py, pz = points.unbind(-1)
    # Turned about y, then about x; the picture's y points down.
    turned_x, turned_z = yaw.cos() * px + yaw.sin() * pz, -yaw.sin() * px + yaw.cos() * pz
    flat = torch.complex(turned_x, -(pitch.cos() * py - pitch.sin() * turned_z))
    by_yaw = torch.complex(turned_z, pitch.sin() * -turned_x)
    by_pitch = torch.complex(torch.zeros_like(turned_x), pitch.sin() * py + pitch.cos() * turned_z)
    turn = torch.exp(log_scale + 1j * roll)
    scale = log_scale.exp() * _POINT_SPREAD
    residual = (torch.complex(seen[..., 0] - x, seen[..., 1] - y) - turn * flat) / scale
    one = torch.ones_like(flat)
    columns = torch.stack([turn * by_yaw, turn * by_pitch, 1j * turn * flat, turn * flat, one, 1j * one], -1) / scale[..., None]
    jacobian = torch.cat([columns.real, columns.imag], 1)
    prior = pose.new_tensor([_YAW_SPREAD**-2, _PITCH_SPREAD**-2, 0, 0, 0, 0])
    # A touch of damping keeps collapsed points solvable.
    damping = pose.new_tensor([0, 0, 1e-3, 1e-3, 0, 0]) + prior
    matrix = jacobian.mT @ jacobian + torch.diag(damping)
    right = (jacobian.mT @ torch.cat([residual.real, residual.imag], 1)[..., None])[..., 0] - prior * pose
    step = torch.linalg.solve_ex(matrix, right).result
    limit = pose.new_tensor([0.5, 0.5, 0.5, 0.5, math.inf, math.inf])
    return torch.minimum(torch.maximum(step, -limit), limit)
