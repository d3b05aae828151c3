"""Perspective camera and rotations. Camera space: x right, y up, looking along -z; pixels: origin top left, centres at +0.5."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import CameraError

# Below this angle (radians, squared) the Taylor series is exact to double precision.
_SMALL_ANGLE_SQUARED = 1e-4


@dataclass(frozen=True)
class Camera:
    """A (batch of) perspective camera(s) with square pixels and no distortion.

    Attributes:
        rotation: model space to camera space.
        translation: model origin in camera space, mm; a face in front of the camera has z < 0.
        focal_length: pixels.
        principal_point: (x, y), pixels.
        width: image width, pixels.
        height: image height, pixels.
    """

    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]
    focal_length: Float[Tensor, "*batch"]
    principal_point: Float[Tensor, "*batch 2"]
    width: int
    height: int

    def to_camera_space(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """Camera-space positions, mm, of model-space points, mm."""
        return points @ self.rotation.transpose(-1, -2) + self.translation[..., None, :]

    def to_screen(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """(x px, y px, depth mm) of camera-space points; never raises.

        A point that is not in front of the camera keeps its depth <= 0, which is what `rasterize` drops, and finite pixels.
        """
        depth = -points[..., 2:]
        scale = self.focal_length[..., None, None] / torch.where(depth > 0, depth, torch.ones_like(depth))
        # (1, -1), made on the device: a list would have to be copied there, and the host would wait.
        signs = 1 - 2 * torch.arange(2, dtype=points.dtype, device=points.device)
        pixels = torch.addcmul(self.principal_point[..., None, :], points[..., :2] * signs, scale)
        return torch.cat([pixels, depth], dim=-1)

    def project(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 2"]:
        """Pixels of model-space points, mm.

        Raises:
            CameraError: a point lies behind the camera (camera-space z >= 0) or is not finite.
        """
        screen = self.to_screen(self.to_camera_space(points))
        # One reduction for both faults: a NaN depth fails the comparison too.
        if not bool((screen.detach()[..., 2] > 0).all()):
            raise CameraError("a point lies behind the camera or is not finite", "move the face to negative camera-space z")
        return screen[..., :2]

    def resized(self, width: int, height: int, scale: float | Tensor = 1.0, offset: tuple[float, float] | Tensor = (0.0, 0.0)) -> Camera:
        """The same view on another pixel grid: new pixel = scale * old pixel + offset.

        Args:
            width: of the new image, pixels.
            height: of the new image, pixels.
            scale: new pixels per old pixel, one number or one a camera ("*batch").
            offset: (x, y) in new pixels, one pair or one a camera ("*batch 2").
        """
        scale = torch.as_tensor(scale, dtype=self.focal_length.dtype, device=self.focal_length.device)
        offset = torch.as_tensor(offset, dtype=scale.dtype, device=scale.device)
        return dataclasses.replace(
            self,
            focal_length=self.focal_length * scale,
            principal_point=self.principal_point * scale[..., None] + offset,
            width=width,
            height=height,
        )

    def batched(self, size: int) -> Camera:
        """This camera with exactly one batch dimension of `size`; a camera without one, or of size 1, is repeated."""
        shape = self.focal_length.shape
        if shape not in ((), (1,), (size,)):
            raise CameraError(f"{tuple(shape)} cameras do not fit a batch of {size}", "give one camera, or one for each image")
        return self._map(lambda value, rank: value.expand(size, *value.shape[value.ndim - rank :]))

    def to(self, target: torch.device | str | torch.dtype) -> Camera:
        """The same camera on a device or in another precision."""
        return self._map(lambda value, rank: value.to(target))

    def detach(self) -> Camera:
        """The same camera without gradients."""
        return self._map(lambda value, rank: value.detach())

    def __getitem__(self, index: int | slice) -> Camera:
        """One camera, or some, of a batch."""
        return self._map(lambda value, rank: value[index])

    def _map(self, change) -> Camera:  # type: ignore[no-untyped-def]
        """A copy with `change(tensor, rank without batch)` applied to each tensor."""
        ranks = {"rotation": 2, "translation": 1, "focal_length": 0, "principal_point": 1}
        return dataclasses.replace(self, **{name: change(getattr(self, name), rank) for name, rank in ranks.items()})


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix K with K @ p = vector x p."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_from_axis_angle(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of axis * angle (radians): the exponential map, smooth at zero."""
    squared = (axis_angle * axis_angle).sum(-1)
    is_small = squared < _SMALL_ANGLE_SQUARED
    # The untaken branch of `where` must stay finite, or its gradient poisons the taken one.
    angle = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    series_sin = 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42))
    series_cos = 0.5 - squared / 24 * (1 - squared / 30 * (1 - squared / 56))
    sin_term = torch.where(is_small, series_sin, angle.sin() / angle)
    cos_term = torch.where(is_small, series_cos, (1 - angle.cos()) / angle**2)
    cross = cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sin_term[..., None, None] * cross + cos_term[..., None, None] * (cross @ cross)


def axis_angle_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis * angle, radians in [0, pi], of a rotation matrix; the logarithm of `rotation_from_axis_angle`."""
    quaternion = _quaternion_from_rotation(rotation)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., 0], quaternion[..., 1:]
    squared = (imaginary * imaginary).sum(-1)
    is_small = squared < _SMALL_ANGLE_SQUARED
    length = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    # Near zero angle / |imaginary| = 2 asin(s) / s = 2 (1 + s^2/6 + 3 s^4/40 + 15 s^6/336).
    series = 2 + squared / 3 + squared**2 * (3 / 20) + squared**3 * (15 / 168)
    factor = torch.where(is_small, series, 2 * torch.atan2(length, real) / length)
    return factor[..., None] * imaginary


def _quaternion_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion (real part first), by the row whose pivot is largest so that nothing is divided by a small number."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    pivot = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = rows.gather(-2, pivot[..., None, None].expand(*pivot.shape, 1, 4))[..., 0, :]
    return row / row.norm(dim=-1, keepdim=True)
