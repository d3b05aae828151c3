"""Shapes on a pixel grid as signed distances (pixels, negative inside): star-shaped outlines and chains of capsules.

Distances are smooth, so in large pictures they are computed at every second pixel and interpolated: a quarter of the work.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

# Large pictures are from this size on, pixels.
COARSE_FROM = 160


class Grid(NamedTuple):
    """Pixel centres, shaped to broadcast over a batch of pictures.

    Attributes:
        x: pixels to the right.
        y: pixels down.
    """

    x: Float[Tensor, "1 1 w"]
    y: Float[Tensor, "1 h 1"]

    @classmethod
    def of(cls, size: int, device: torch.device, step: int = 1) -> Grid:
        """Every `step`-th pixel of a square picture, in the middle of its block."""
        centres = (torch.arange(size // step, device=device) + 0.5) * step
        return cls(centres[None, None, :], centres[None, :, None])


def _working_grid(grid: Grid) -> Grid:
    """Every second pixel of large pictures."""
    size = grid.x.shape[-1]
    return Grid.of(size, grid.x.device, 2) if size >= COARSE_FROM and size % 2 == 0 else grid


def _enlarge(maps: Float[Tensor, "b c h w"], grid: Grid) -> Float[Tensor, "b c rows columns"]:
    """Maps of the working grid on the whole grid."""
    size = grid.x.shape[-1]
    return maps if maps.shape[-1] == size else interpolate(maps, (size, size), mode="bilinear")


class Capsules(NamedTuple):
    """Segments whose thickness changes evenly from end to end; one that is not there has radii below zero.

    Attributes:
        start, end: pixels.
        start_radius, end_radius: pixels.
    """

    start: Float[Tensor, "b n 2"]
    end: Float[Tensor, "b n 2"]
    start_radius: Float[Tensor, "b n"]
    end_radius: Float[Tensor, "b n"]


def capsule_distance(grid: Grid, capsules: Capsules) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Distance to the union, and the radius of the capsule that is nearest."""
    whole, grid = grid, _working_grid(grid)
    count = capsules.start.shape[1]
    # One map at a time stays in a CPU's cache; a GPU wants few, large operations.
    together = 1 if capsules.start.device.type == "cpu" else count
    distance, radius = nearest_capsule(grid, Capsules(*(value[:, :together] for value in capsules)))
    for first in range(together, count, together):
        other, other_radius = nearest_capsule(grid, Capsules(*(value[:, first : first + together] for value in capsules)))
        radius = torch.where(other < distance, other_radius, radius)
        distance = torch.minimum(distance, other)
    distance, radius = _enlarge(torch.stack([distance, radius], 1), whole).unbind(1)
    return distance, radius


def nearest_capsule(grid: Grid, capsules: Capsules) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """`capsule_distance` of all given capsules at once."""
    along = capsules.end - capsules.start
    step = along / along.square().sum(-1, keepdim=True).clamp(min=1e-6)
    places = torch.cat([capsules.start, along, step], -1)[..., None, None]
    ax, ay, dx, dy, step_x, step_y = places.unbind(2)
    px, py = grid.x - ax, grid.y - ay
    part = torch.addcmul(step_x * px, step_y, py).clamp_(0, 1)
    start, end = capsules.start_radius[..., None, None], capsules.end_radius[..., None, None]
    radius = torch.addcmul(start, end - start, part)
    distance = torch.hypot(px - part * dx, py - part * dy) - radius
    if distance.shape[1] == 1:
        return distance[:, 0], radius[:, 0]
    nearest = distance.min(1, keepdim=True)
    return nearest.values[:, 0], radius.gather(1, nearest.indices)[:, 0]


def star_distance(grid: Grid, centre: Float[Tensor, "b 2"], radii: Float[Tensor, "b k"]) -> Float[Tensor, "b h w"]:
    """Distance along the ray from the centre to an outline whose radii are given at k even angles, from x to y (down); pixels."""
    whole, grid = grid, _working_grid(grid)
    dx, dy = grid.x - centre[:, 0, None, None], grid.y - centre[:, 1, None, None]
    count = radii.shape[1]
    place = torch.atan2(dy, dx) * (count / (2 * math.pi)) + count
    low = place.floor()
    part = place - low
    index = low.long().flatten(1)
    here = radii.gather(1, index % count).view_as(place)
    following = radii.gather(1, (index + 1) % count).view_as(place)
    distance = torch.hypot(dx, dy) - torch.lerp(here, following, part)
    return _enlarge(distance[:, None], whole)[:, 0]


def polygon_radii(centre: Float[Tensor, "b 2"], corners: Float[Tensor, "b n 2"], count: int = 64) -> Float[Tensor, "b count"]:
    """Radii of a closed polygon at even angles around a centre it can be seen from; zero where no side is met."""
    angles = torch.arange(count, device=centre.device) * (2 * math.pi / count)
    rays = torch.stack([angles.cos(), angles.sin()], -1)[None, :, None]
    first = (corners - centre[:, None])[:, None]
    side = (corners.roll(-1, 1) - corners)[:, None]
    # Ray t r meets side first + u side: t = (first x side) / (r x side), u = (first x r) / (r x side).
    across = rays[..., 0] * side[..., 1] - rays[..., 1] * side[..., 0]
    across = torch.where(across.abs() < 1e-6, 1e-6, across)
    reach = (first[..., 0] * side[..., 1] - first[..., 1] * side[..., 0]) / across
    part = (first[..., 0] * rays[..., 1] - first[..., 1] * rays[..., 0]) / across
    is_met = (part >= 0) & (part <= 1) & (reach > 0)
    return torch.where(is_met, reach, 0.0).amax(-1)


def coverage(distance: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Share of each pixel inside."""
    return (0.5 - distance).clamp(0, 1)


def pick(points: Float[Tensor, "b n 2"], *indices: int) -> Float[Tensor, "b picked 2"]:
    """Some of the points; a list as an index would be copied to the device and waited for."""
    return torch.stack([points[:, index] for index in indices], 1)
