"""The misfit prior (eq 11): what the whole pipeline gets wrong on average of faces whose truth is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.rendering import Camera, ambient_lighting, render, rotation_from_axis_angle
from train.data.batch import FaceBatch, FaceSource
from train.data.synthetic import SyntheticFaces

_BATCH = 32
_PICTURE = 320
# Degrees from which the picture shows the head.
_YAWS = (0.0, 45.0, 90.0)


class RenderedFaces:
    """A `FaceSource` of random theta as the autoencoder itself draws them: the face alone, before black, nothing in front."""

    def __init__(self, people: SyntheticFaces) -> None:
        self._people = people

    @torch.no_grad()
    def batch(self, step: int, size: int) -> FaceBatch:
        """`size` new faces."""
        theta = self._people.theta(step, size)
        decoded = decode(self._people.model, self._people.frame, theta)
        drawn = decoded.rendering.mask
        ones = torch.ones(size, device=drawn.device)
        image = decoded.rendering.image.clamp(0, 1).permute(0, 3, 1, 2)
        return FaceBatch(image, decoded.landmarks, ones, torch.ones_like(drawn), drawn.float(), theta)


@torch.no_grad()
def mean_misfit(encoder: nn.Module, model: FaceModel, faces: FaceSource, count: int) -> Float[Tensor, "v 3"]:
    """E_MP = mean over i of (P_vi - T_vi): found minus true neutral vertices, mm, model space."""
    encoder.eval()
    total = torch.zeros_like(model.mean_shape)
    batches = -(-count // _BATCH)
    for step in range(batches):
        batch = faces.batch(step, _BATCH)
        assert batch.theta is not None
        # Both are linear in their coefficients, so the mean of the differences is the shape of the mean difference.
        difference = (encoder(batch.image, batch.detected).shape - batch.theta.shape).mean(0)
        total += (model.decode_shape(difference) - model.mean_shape) / batches
    return total


def draw_misfit(model: FaceModel, frame: CropFrame, misfit: Float[Tensor, "v 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """The mean head from three sides, coloured by how far the misfit moves it along the surface normal, as in the paper's figure 4.

    Red is too far out, blue too far in; the scale, in mm, is written below.
    """
    model, misfit = model.to("cpu"), misfit.cpu()
    normals = _vertex_normals(model)
    along = (misfit * normals).sum(-1)
    limit = max(0.1, float(along[model.triangles[model.triangle_in_face].unique()].abs().quantile(0.99)))
    pictures = [_view(model, frame, (along / limit).clamp(-1, 1), yaw) for yaw in _YAWS]
    picture = np.ascontiguousarray(np.concatenate(pictures, 1))
    label = f"misfit: red {limit:.2f} mm out, blue {limit:.2f} mm in; mean length {float(misfit.norm(dim=-1).mean()):.2f} mm"
    cv2.putText(picture, label, (8, _PICTURE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def _vertex_normals(model: FaceModel) -> Float[Tensor, "v 3"]:
    from focus_backend.rendering.normals import vertex_normals

    return vertex_normals(model.mean_shape[None], model.triangles)[0]


def _view(model: FaceModel, frame: CropFrame, value: Float[Tensor, "v"], yaw: float) -> UInt8[np.ndarray, "height width 3"]:
    """One side of the head; colours are interpolated over triangles."""
    turn = rotation_from_axis_angle(torch.tensor([0.0, math.radians(yaw), 0.0]))
    translation = torch.tensor([0.0, 0.0, -1000.0]) - turn @ (frame.centre - torch.tensor([0.0, 0.0, 60.0]))
    half = _PICTURE / 2
    camera = Camera(turn, translation, torch.tensor(3.4 * half * 2), torch.tensor([half, half]), _PICTURE, _PICTURE)
    grey = torch.full((1, model.texture_size, model.texture_size, 3), 0.6)
    light = ambient_lighting(0.5) + 0.5 * _front_light()
    drawn = render(model, model.mean_shape[None], grey, light[None], camera, region="head", background=torch.ones(1, _PICTURE, _PICTURE, 3))
    shown = drawn.mask[0]
    corners = model.triangles[drawn.triangle_ids[0].clamp(min=0)]
    at_pixel = (value[corners] * drawn.barycentric[0]).sum(-1)
    colour = torch.stack([1 + at_pixel.clamp(max=0), 1 - at_pixel.abs(), 1 - at_pixel.clamp(min=0)], -1)
    picture = torch.where(shown[..., None], drawn.image[0] * colour, drawn.image[0])
    return (picture.clamp(0, 1) * 255).byte().numpy()


def _front_light() -> Float[Tensor, "9 3"]:
    from focus_backend.landmarks.calibration import soft_light

    return soft_light(torch.tensor([0.3, 0.4, 0.87]), torch.ones(3))
