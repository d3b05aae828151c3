"""How much of the light the head itself takes from its skin: sockets, nostrils, and what lies below nose, lip and chin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering import Camera, rasterize_model, spherical_harmonics
from focus_backend.rendering.normals import vertex_normals

# Cosine lobe of a distant light, band by band (Ramamoorthi and Hanrahan 2001).
LIGHT_LOBE = (math.pi, *[2 * math.pi / 3] * 3, *[math.pi / 4] * 5)
_DIRECTIONS = 96
# The view from each direction: pixels a side, and mm; far away, so nearly parallel.
_VIEW, _DISTANCE = 224, 20000.0
# A vertex looks from a little above the skin, and what lies less than this in front of it does not hide it, mm.
_LIFT, _BIAS = 2.0, 2.0


@dataclass(frozen=True)
class SelfShadow:
    """What each vertex of the mean head sees of the directions light comes from.

    Attributes:
        directions: unit, model space, evenly around.
        open: cosine to each direction, 0 behind the surface.
        seen: the same, 0 also where the head is in the way.
    """

    directions: Float[Tensor, "d 3"]
    open: Float[Tensor, "v d"]
    seen: Float[Tensor, "v d"]

    @classmethod
    def of(cls, model: FaceModel) -> SelfShadow:
        """The self-shadow of a model's mean head; found once a model, kept with it like its own cached properties."""
        kept = vars(model)
        if "_self_shadow" not in kept:
            kept["_self_shadow"] = cls._found_on(model)
        return kept["_self_shadow"]

    @classmethod
    def _found_on(cls, model: FaceModel) -> SelfShadow:
        """By looking at the mean head from every direction."""
        directions = _even_directions(_DIRECTIONS).to(model.mean_shape)
        mean = model.mean_shape
        normals = vertex_normals(mean[None], model.triangles)[0]
        camera = _cameras(directions, mean)
        many = mean.expand(_DIRECTIONS, -1, -1)
        surface = rasterize_model(model, many, camera, region="head")
        depth = -camera.to_camera_space(many)[..., 2]
        ids = surface.triangle_ids.flatten(1)
        corners = model.triangles[ids.clamp(min=0)].flatten(1)
        nearest = (depth.gather(1, corners).unflatten(1, (-1, 3)) * surface.barycentric.flatten(1, 2)).sum(-1)
        nearest = torch.where(ids >= 0, nearest, torch.inf)
        lifted = camera.to_screen(camera.to_camera_space(many + _LIFT * normals))
        column, row = lifted[..., :2].long().clamp(0, _VIEW - 1).unbind(-1)
        is_seen = lifted[..., 2] < nearest.gather(1, row * _VIEW + column) + _BIAS
        cosine = (normals @ directions.T).clamp(min=0)
        return cls(directions, cosine, cosine * is_seen.T)

    def shade(self, lighting: Float[Tensor, "b 9 3"], rotation: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b v"]:
        """Share of the light that reaches each vertex.

        Args:
            lighting: camera space.
            rotation: model to camera space.
        """
        radiance = lighting.mean(2) / _lobe(lighting)
        arriving = (spherical_harmonics(self.directions @ rotation.mT) @ radiance[..., None])[..., 0].clamp(min=0.02)
        return (arriving @ self.seen.T) / (arriving @ self.open.T).clamp(min=1e-3)


def _lobe(like: Tensor) -> Float[Tensor, "9"]:
    """`LIGHT_LOBE` on the device, made there."""
    band = torch.arange(9, device=like.device)
    first, second, third = LIGHT_LOBE[0], LIGHT_LOBE[1], LIGHT_LOBE[4]
    return first + (second - first) * (band > 0) + (third - second) * (band > 3)


def _even_directions(count: int) -> Float[Tensor, "count 3"]:
    """A spiral of equal areas from pole to pole."""
    index = torch.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, math.pi * (3 - math.sqrt(5)) * index
    radius = (1 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), height, radius * angle.sin()], -1)


def _cameras(directions: Float[Tensor, "d 3"], points: Float[Tensor, "v 3"]) -> Camera:
    """One far away in each direction that has all points in view."""
    middle = (points.amax(0) + points.amin(0)) / 2
    radius = (points - middle).norm(dim=1).max()
    # No direction is straight up or down.
    side = torch.nn.functional.normalize(
        torch.linalg.cross(directions.new_tensor([0.0, 1.0, 0.0]).expand_as(directions), directions), dim=1
    )
    rotation = torch.stack([side, torch.linalg.cross(directions, side), directions], 1)
    back = torch.stack([0 * side[:, 0], 0 * side[:, 0], 0 * side[:, 0] - _DISTANCE], 1)
    count = len(directions)
    focal = (0.5 * _VIEW * _DISTANCE / (1.05 * radius)).expand(count)
    return Camera(rotation, back - rotation @ middle, focal, middle.new_full((count, 2), _VIEW / 2), _VIEW, _VIEW)
