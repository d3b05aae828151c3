"""Glasses, from clear to black."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from focus_backend.networks.frame import five_of_68
from focus_backend.rendering import Camera
from train.data.draws import Draws
from train.data.layers import Layer, lit, round_shading
from train.data.occluders import FaceView, choose
from train.data.shapes import Capsules, Grid, capsule_distance, polygon_radii, star_distance
from train.data.textures import draw_colour

# Of the outline of a lens.
_LENS_CORNERS = 24
# Shares of clear and of half dark lenses; the rest hide the eyes.
_CLEAR, _HALF = 0.6, 0.12


def draw_glasses(
    draws: Draws, view: FaceView, camera: Camera, points: Float[Tensor, "b 68 3"], grid: Grid, is_there: Bool[Tensor, "b"]
) -> list[Layer]:
    """Lenses, clear to black, and their frame.

    Args:
        draws: of this batch.
        view: the faces.
        camera: of the crops.
        points: the 68 points, model space, mm.
        grid: pixels.
        is_there: which faces have them.
    """
    count = len(view.unit)
    centres = _lens_centres(draws, points)
    oval = _lens_outline(draws, count)
    corners = centres[:, :, None] + oval[:, None]
    screen = camera.to_screen(camera.to_camera_space(corners.flatten(1, 2)))[..., :2].unflatten(1, (2, _LENS_CORNERS))
    middles = screen.mean(2)
    lenses = [star_distance(grid, middles[:, side], polygon_radii(middles[:, side], screen[:, side])) for side in range(2)]
    inside = torch.minimum(*lenses)
    half_rim = (view.unit * draws.log_uniform(count, low=0.5, high=2.6))[:, None, None]
    has_rims = draws.chance(0.85, count)[:, None, None]
    rims = torch.where(has_rims, inside.abs() - half_rim, 1e3)
    struts, _ = capsule_distance(grid, _struts(draws, view, camera, centres, oval))
    frame = torch.minimum(rims, struts)
    black = (0.08 * draws.uniform(count, 1, 1, 1)).expand(-1, 3, -1, -1)
    frame_colour = choose(draws.chance(0.6, count), black, draw_colour(draws, count))
    shine = lit(frame_colour.clamp(0.003, 1).square(), round_shading(frame, half_rim.expand_as(frame) * 2, view.lighting))
    tint, opacity = _tint(draws, count, grid, middles, view.unit)
    there = is_there.float()
    return [Layer(inside, tint, there * opacity, there * 0.0), Layer(frame, shine, there, draws.uniform(count, low=0.1, high=0.5))]


def _lens_centres(draws: Draws, points: Float[Tensor, "b 68 3"]) -> Float[Tensor, "b 2 3"]:
    """In front of the eyes, sometimes slid down the nose; model space."""
    count = len(points)
    eyes = five_of_68(points)[:, :2] * draws.constant(1.06, 1.0, 1.0)
    down, forward = draws.uniform(count, low=-12, high=1), draws.uniform(count, low=10, high=16)
    return eyes + torch.stack([torch.zeros_like(down), down, forward], -1)[:, None]


def _lens_outline(draws: Draws, count: int) -> Float[Tensor, "b 24 3"]:
    """From round to square, wide or high; mm around the lens's centre."""
    angle = draws.constant(*[2 * math.pi * index / _LENS_CORNERS for index in range(_LENS_CORNERS)])
    power = draws.log_uniform(count, 1, low=0.4, high=1.0)
    x, y = (value.sign() * value.abs().clamp(min=1e-4) ** power for value in (angle.cos(), angle.sin()))
    width, height = draws.uniform(count, 1, low=20, high=28), draws.uniform(count, 1, low=12, high=25)
    return torch.stack([x * width, y * height, torch.zeros_like(x)], -1)


def _struts(draws: Draws, view: FaceView, camera: Camera, centres: Float[Tensor, "b 2 3"], oval: Float[Tensor, "b 24 3"]) -> Capsules:
    """The bridge and the two temples; a temple that the head hides is left out."""
    count = len(view.unit)
    half = oval[:, 0, 0]
    edges = torch.stack([centres[:, 0, 0] - half, centres[:, 0, 0] + half, centres[:, 1, 0] - half, centres[:, 1, 0] + half], -1)
    height = centres[:, 0, 1:2] + 4
    corners = torch.stack([edges, height.expand(-1, 4), centres[:, 0, 2:3].expand(-1, 4)], -1)
    ears = draws.constant(-78, 2, -70, 78, 2, -70).view(1, 2, 3).expand(count, -1, -1)
    screen = camera.to_screen(camera.to_camera_space(torch.cat([corners, ears], 1)))[..., :2]
    start = torch.stack([screen[:, 0], screen[:, 1], screen[:, 3]], 1)
    end = torch.stack([screen[:, 4], screen[:, 2], screen[:, 5]], 1)
    outwards = (end - start)[..., 0] * draws.constant(-1.0, 0.0, 1.0) + draws.constant(0.0, 1.0, 0.0)
    thick = (view.unit * draws.log_uniform(count, low=0.7, high=2.5))[:, None]
    radius = torch.where(outwards > 0, thick, -1e3)
    return Capsules(start, end, radius, radius)


def _tint(
    draws: Draws, count: int, grid: Grid, middles: Float[Tensor, "b 2 2"], unit: Float[Tensor, "b"]
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b"]]:
    """Colour of the lenses, brighter where something is mirrored in them, and how much they hide."""
    kind = draws.uniform(count)
    is_clear, is_dark = kind < _CLEAR, kind >= _CLEAR + _HALF
    half, dark = draws.uniform(count, low=0.2, high=0.75), draws.uniform(count, low=0.8, high=0.98)
    opacity = choose(is_clear, draws.uniform(count, low=0.02, high=0.2), choose(is_dark, dark, half))
    bright = draws.uniform(count, 1, 1, 1, low=0.5, high=1.0).expand(-1, 3, -1, -1)
    colour = choose(is_clear, bright, 0.35 * draw_colour(draws, count))
    slope = draws.normal(2, count, 1, 1) / (12 * unit[:, None, None])
    middle = middles.mean(1)[..., None, None]
    mirrored = torch.sigmoid((grid.x - middle[:, 0]) * slope[0] + (grid.y - middle[:, 1]) * slope[1])
    return (colour + draws.uniform(count, 1, 1, 1).square() * 0.6 * mirrored[:, None]).clamp(0, 1), opacity
