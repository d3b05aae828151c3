"""Pictures of a face model's heads, made to be looked at by a landmark detector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering import Camera, ambient_lighting, render, rotation_from_axis_angle, spherical_harmonics

_PIXELS = 512
# The head fills most of the picture.
_FOCAL_LENGTH = 1800.0
_DISTANCE = 1000.0
_YAWS = (-40, -20, 0, 20, 40)
_PITCHES = (-15, 0, 15)
_BACKGROUND = 0.55


@dataclass(frozen=True)
class HeadPicture:
    """A render and what it shows where.

    Attributes:
        pixels: RGB, sRGB-encoded.
        screen: (x px, y px, depth mm) of every vertex.
        ids: triangle seen at each pixel, -1 for none.
        facing: cosine between each triangle's normal and the direction to the camera.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    screen: Float[Tensor, "vertices 3"]
    ids: Int[Tensor, "height width"]
    facing: Float[Tensor, "triangles"]


def head_pictures(model: FaceModel, people: int) -> Iterator[HeadPicture]:
    """The mean head from 15 sides, then random people from random sides; the same ones every time.

    People are neutral: points near the mouth follow an expression, which would pass for noise.
    """
    random = torch.Generator().manual_seed(0)
    for yaw in _YAWS:
        for pitch in _PITCHES:
            yield _draw(model, model.mean_shape, _average_albedo(model), _camera(yaw, pitch), _light(random))
    for _ in range(people):
        shape = torch.randn(model.shape_size, generator=random)
        albedo = torch.randn(model.albedo_size, generator=random)
        yaw, pitch = (torch.randn(2, generator=random) * torch.tensor([22.0, 8.0])).clamp(-45, 45).tolist()
        yield _draw(model, model.decode_shape(shape), albedo, _camera(yaw, pitch), _light(random))


def frontal_picture(model: FaceModel) -> HeadPicture:
    """The mean head from the front."""
    return _draw(model, model.mean_shape, _average_albedo(model), _camera(0, 0), _light(torch.Generator().manual_seed(0)))


def _average_albedo(model: FaceModel) -> Float[Tensor, "albedo"]:
    return model.mean_shape.new_zeros(model.albedo_size)


def _camera(yaw: float, pitch: float) -> Camera:
    """A camera at portrait distance from a head turned by degrees about its up and side axes."""
    turn = rotation_from_axis_angle(torch.tensor([0.0, math.radians(yaw), 0.0]))
    nod = rotation_from_axis_angle(torch.tensor([math.radians(pitch), 0.0, 0.0]))
    # The middle of the face lies some 35 mm below and 60 behind the eyes' midpoint that models have their origin at.
    middle = torch.tensor([0.0, -35.0, -60.0])
    rotation = nod @ turn
    translation = torch.tensor([0.0, 0.0, -_DISTANCE]) - rotation @ middle
    return Camera(rotation, translation, torch.tensor(_FOCAL_LENGTH), torch.tensor([_PIXELS / 2, _PIXELS / 2]), _PIXELS, _PIXELS)


def _light(random: torch.Generator) -> Float[Tensor, "9 3"]:
    """Ambient light and a lamp from about the camera."""
    direction = torch.tensor([0.0, 0.3, 1.0]) + torch.randn(3, generator=random) * torch.tensor([0.4, 0.3, 0.0])
    lamp = spherical_harmonics(torch.nn.functional.normalize(direction, dim=-1))
    # Lambert's cosine keeps pi, 2 pi / 3 and pi / 4 of the bands of a lamp; scaled so that a surface facing it gets about 1.
    kept = torch.tensor([math.pi, *[2 * math.pi / 3] * 3, *[math.pi / 4] * 5]) / math.pi
    return ambient_lighting(0.6) + 0.8 * (kept * lamp)[:, None].expand(9, 3)


def _draw(
    model: FaceModel,
    vertices: Float[Tensor, "vertices 3"],
    albedo: Float[Tensor, "albedo"],
    camera: Camera,
    lighting: Float[Tensor, "9 3"],
) -> HeadPicture:
    """The whole head before a plain wall."""
    texture = model.decode_albedo(albedo).clamp(0.02, 1)
    wall = torch.full((1, camera.height, camera.width, 3), _BACKGROUND)
    drawn = render(model, vertices[None], texture[None], lighting[None], camera, region="head", background=wall)
    pixels = (drawn.image[0].clamp(0, 1) * 255).round().byte().numpy()
    in_camera = camera.to_camera_space(vertices)
    corners = in_camera[model.triangles]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = torch.cosine_similarity(normals, -corners.mean(1), dim=-1)
    return HeadPicture(pixels, camera.to_screen(in_camera), drawn.triangle_ids[0], facing)
