"""Textures and backgrounds: noise fields, patterns of cloth, blurred shapes; sRGB, channels first."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from train.data.draws import Draws
from train.data.shapes import Grid, star_distance


def noise_field(draws: Draws, count: int, channels: int, size: int, cells: tuple[int, ...] = (3, 6, 12, 24)) -> Float[Tensor, "b c h w"]:
    """Smooth noise of about unit deviation, each octave of `cells` as strong as it is coarse."""
    total = draws.normal(count, channels, 2, 2)
    for cell in cells:
        total = interpolate(total, (cell, cell), mode="bilinear") + draws.normal(count, channels, cell, cell) * (cells[0] / cell) ** 0.5
    return interpolate(total, (size, size), mode="bilinear")


def draw_colour(draws: Draws, count: int) -> Float[Tensor, "b 3 1 1"]:
    """Colours of things: any brightness, few of them colourful."""
    grey = draws.uniform(count, 1, low=0.03, high=0.97)
    vivid = draws.uniform(count, 1) ** 4
    return (grey + vivid * draws.uniform(count, 3, low=-0.5, high=0.5)).clamp(0.02, 0.98)[..., None, None]


def draw_pattern(draws: Draws, count: int, grid: Grid, noise: Float[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
    """Two colours in stripes, checks, spots or stains, or nearly plain."""
    size = grid.x.shape[-1]
    angle, wave = draws.uniform(count, 1, 1, high=math.pi), draws.log_uniform(count, 1, 1, low=0.03, high=0.5)
    frequency = 2 * math.pi / (wave * size)
    across = torch.sin(frequency * (grid.x * angle.cos() + grid.y * angle.sin()))
    along = torch.sin(frequency * (grid.y * angle.cos() - grid.x * angle.sin()))
    weights = draws.normal(4, count, 1, 1).square() * draws.uniform(4, count, 1, 1)
    mixed = weights[0] * across + weights[1] * along + 2 * weights[2] * across * along + weights[3] * noise
    sharp = draws.log_uniform(count, 1, 1, low=0.5, high=8.0)
    amount = (torch.sigmoid(sharp * mixed) * draws.uniform(count, 1, 1).sqrt())[:, None]
    return torch.lerp(draw_colour(draws, count).expand(-1, -1, size, size), draw_colour(draws, count), amount)


def draw_background(draws: Draws, count: int, grid: Grid) -> Float[Tensor, "b 3 h w"]:
    """A gradient, coloured stains, a pattern out of focus and a few blurred things."""
    size = grid.x.shape[-1]
    noise = noise_field(draws, count, 4, size)
    ends = [draw_colour(draws, count) for _ in range(2)]
    angle = draws.uniform(count, 1, 1, high=2 * math.pi)
    ramp = 0.5 + (grid.x / size - 0.5) * angle.cos() + (grid.y / size - 0.5) * angle.sin()
    plain = torch.lerp(ends[0].expand(-1, -1, size, size), ends[1], (ramp * draws.uniform(count, 1, 1))[:, None])
    # Stains differ in brightness more than in colour.
    stains = torch.lerp(noise[:, 3:], noise[:, :3], 0.5 * draws.uniform(count, 1, 1, 1).square())
    stained = plain + stains * draws.uniform(count, 1, 1, 1, high=0.15) * draws.uniform(count, 1, 1, 1)
    patterned = torch.lerp(stained, draw_pattern(draws, count, grid, noise[:, 3]), (draws.uniform(count, 1, 1, 1) * 2 - 1).clamp(min=0))
    for _ in range(2):
        patterned = _blurred_thing(draws, patterned, grid)
    return patterned.clamp(0, 1)


def _blurred_thing(draws: Draws, picture: Float[Tensor, "b 3 h w"], grid: Grid) -> Float[Tensor, "b 3 h w"]:
    """A shape somewhere, sharp or far out of focus."""
    count, size = len(picture), picture.shape[-1]
    radius = size * draws.log_uniform(count, 1, low=0.05, high=0.7)
    radii = radius * outline(draws, count)
    distance = star_distance(grid, size * draws.uniform(count, 2, low=-0.2, high=1.2), radii)
    soft = radius[..., None] * draws.uniform(count, 1, 1).square() + 0.5
    amount = (0.5 - distance / (2 * soft)).clamp(0, 1) * draws.uniform(count, 1, 1, low=-0.9, high=1).clamp(min=0)
    return torch.lerp(picture, draw_colour(draws, count).expand_as(picture), amount[:, None])


def outline(draws: Draws, count: int) -> Float[Tensor, "b 64"]:
    """Radii around 1 of something round, angular or ragged."""
    angles = draws.constant(*[2 * math.pi * index / 64 for index in range(64)])
    waves = draws.constant(*range(1, 8))
    strength = draws.uniform(count, 7, 1, low=-1, high=1) * draws.uniform(count, 1, 1).square() * 0.4
    wavy = 1 + (strength * torch.cos(waves[:, None] * angles + draws.uniform(count, 7, 1, high=2 * math.pi))).sum(1)
    # A regular polygon of 3 to 6 sides around the unit circle's middle.
    sides = 3 + draws.integers(4, count, 1)
    wedge = (angles + draws.uniform(count, 1, high=2 * math.pi)) % (2 * math.pi / sides) - math.pi / sides
    angular = (math.pi / sides).cos() / wedge.cos()
    return torch.where(draws.chance(0.5, count, 1), wavy, angular * (0.7 + 0.3 * wavy)).clamp(min=0.15)
