"""Flat things in front of faces: masks, scarves, hats, held things and pieces of other pictures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train.data.draws import Draws
from train.data.layers import Layer, lit, slope_shading
from train.data.occluders import FaceView, choose
from train.data.shapes import Capsules, Grid, capsule_distance, pick, polygon_radii, star_distance
from train.data.textures import draw_pattern, outline

_CORNERS = 16
# mm from the point of its upper rim that is drawn for each face, right and down: the cloth around a neck.
_SCARF_X = (-75, -40, 0, 40, 75, 100, 120, 120, 60, 0, -60, -120, -120, -100, -90, -82)
_SCARF_Y = (8, 2, 0, 2, 8, 25, 80, 200, 200, 200, 200, 200, 80, 25, 14, 10)
# mm from the middle of the brows, right and down: a cap, its rim below.
_HAT_X = (-92, -60, -30, 0, 30, 60, 92, 96, 92, 70, 30, 0, -30, -70, -92, -96)
_HAT_Y = (-8, 4, 8, 9, 8, 4, -8, -40, -90, -130, -150, -152, -150, -130, -90, -40)
# Masks, scarves, hats, things, and the rest for pieces of other pictures.
_KINDS = (0.27, 0.14, 0.15, 0.26)


class _Kinds(NamedTuple):
    """What each face's cover is."""

    is_mask: Bool[Tensor, "b"]
    is_scarf: Bool[Tensor, "b"]
    is_cloth: Bool[Tensor, "b"]
    is_piece: Bool[Tensor, "b"]


def draw_cover(
    draws: Draws,
    view: FaceView,
    grid: Grid,
    noise: Float[Tensor, "b h w"],
    hair: Float[Tensor, "b 3"],
    others: Float[Tensor, "b 3 h w"],
    is_there: Bool[Tensor, "b"],
) -> Layer:
    """A mask, scarf, hat, held thing or a cut piece of another picture.

    Args:
        draws: of this batch.
        view: the faces.
        grid: pixels.
        noise: folds.
        hair: its colour, linear RGB, which hats and scarves may have too, as they may that of skin.
        others: pictures that pieces are cut from.
        is_there: which faces have one.
    """
    count = len(view.unit)
    kind, ends = draws.uniform(count), [sum(_KINDS[: index + 1]) for index in range(4)]
    kinds = _Kinds(kind < ends[0], (kind >= ends[0]) & (kind < ends[1]), kind < ends[2], kind >= ends[3])
    centre, radii = _outline(draws, view, kinds)
    straps, _ = capsule_distance(grid, _straps(draws, view, kinds.is_mask))
    frayed = (1.5 * view.unit * kinds.is_scarf)[:, None, None] * noise
    distance = torch.minimum(star_distance(grid, centre, radii) + frayed, straps)
    fabric = _fabric(draws, grid, noise, kinds.is_mask, view.skin, hair)
    colour = choose(kinds.is_piece, others, lit(fabric.clamp(min=0.01).square(), _bulging_light(draws, view, grid, noise, centre, radii)))
    return Layer(distance, colour, is_there.float(), draws.uniform(count, low=0.05, high=0.5))


def _outline(draws: Draws, view: FaceView, kinds: _Kinds) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 64"]]:
    """Centre and radii of each cover, pixels."""
    mask_centre, mask = _mask_corners(draws, view)
    scarf_centre, scarf = _scarf_corners(draws, view)
    hat_centre, hat = _hat_corners(draws, view)
    thing_centre, thing = _thing(draws, view)
    centre = choose(kinds.is_mask, mask_centre, choose(kinds.is_scarf, scarf_centre, hat_centre))
    corners = choose(kinds.is_mask, mask, choose(kinds.is_scarf, scarf, hat))
    cloth = polygon_radii(centre, corners)
    # Cloth has no sharp corners, and the view of a turned head no spikes.
    for _ in range(2):
        cloth = 0.5 * cloth + 0.25 * (cloth.roll(1, 1) + cloth.roll(-1, 1))
    return choose(kinds.is_cloth, centre, thing_centre), choose(kinds.is_cloth, cloth, thing)


def _bulging_light(
    draws: Draws, view: FaceView, grid: Grid, noise: Float[Tensor, "b h w"], centre: Float[Tensor, "b 2"], radii: Float[Tensor, "b 64"]
) -> Float[Tensor, "b 3 h w"]:
    """Linear light on something that bulges towards the camera and has folds."""
    count = len(view.unit)
    bulge = 0.7 / radii.mean(1)[:, None, None]
    fold = draws.uniform(count, 1, 1, high=0.25) * noise
    x, y = (grid.x - centre[:, 0, None, None]) * bulge, (centre[:, 1, None, None] - grid.y) * bulge
    shading = slope_shading(x.clamp(-0.7, 0.7) + fold, y.clamp(-0.6, 0.6) + fold, view.lighting)
    return shading * ((1 + 0.08 * noise) * draws.uniform(count, 1, 1, low=0.8, high=1.1))[:, None]


def _fabric(
    draws: Draws,
    grid: Grid,
    noise: Float[Tensor, "b h w"],
    is_mask: Bool[Tensor, "b"],
    skin: Float[Tensor, "b 3"],
    hair: Float[Tensor, "b 3"],
) -> Float[Tensor, "b 3 h w"]:
    """sRGB of cloth; masks are plain white, blue or black more often than not, and some things have the colour of skin or hair."""
    count = len(noise)
    colours = draws.constant(0.93, 0.93, 0.93, 0.6, 0.78, 0.88, 0.1, 0.1, 0.11, 0.92, 0.93, 0.9).view(4, 3)
    plain = colours[draws.integers(4, count)] * draws.uniform(count, 1, low=0.9, high=1.0)
    usual = choose(is_mask & draws.chance(0.6, count), plain[..., None, None], draw_pattern(draws, count, grid, noise))
    own = choose(draws.chance(0.6, count), skin, hair).sqrt()
    return choose(draws.chance(0.12, count), own[..., None, None], usual)


def _mask_corners(draws: Draws, view: FaceView) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 16 2"]]:
    """A mask over mouth and mostly nose: along the jaw from ear to ear and over the ridge of the nose."""
    count = len(view.unit)
    points = view.landmarks
    centre = pick(points, 33, 51, 57).mean(1)
    jaw = points[:, 1:16]
    jaw = centre[:, None] + (jaw - centre[:, None]) * draws.uniform(count, 1, 1, low=1.0, high=1.1)
    # Worn high on the nose, or below its tip.
    high = torch.lerp(points[:, 28], points[:, 29], draws.uniform(count, 1))
    top = choose(draws.chance(0.12, count), points[:, 33], high)
    return centre, torch.cat([jaw, top[:, None]], 1)


def _straps(draws: Draws, view: FaceView, is_mask: Bool[Tensor, "b"]) -> Capsules:
    """From the corners of a mask to the ears."""
    points = view.landmarks
    start = pick(points, 1, 3, 15, 13)
    right, left = points[:, 0], points[:, 16]
    ears = torch.stack([right, right, left, left], 1) + 0.12 * torch.stack([right - left, right - left, left - right, left - right], 1)
    ears = ears - view.unit[:, None, None] * draws.constant(0.0, 8.0)
    radius = torch.where(is_mask, view.unit * draws.uniform(len(view.unit), low=0.8, high=2.0), -1e3)[:, None].expand(-1, 4)
    return Capsules(start, ears, radius, radius)


def _scarf_corners(draws: Draws, view: FaceView) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 16 2"]]:
    """Cloth from below up to the mouth or the nose."""
    count, unit = len(view.unit), view.unit[:, None, None]
    height = draws.uniform(count, 1, low=0.15, high=0.8)
    top = torch.lerp(view.landmarks[:, 8], view.landmarks[:, 29], height)
    tilt = draws.normal(count, 1, 1, scale=0.12)
    shape = torch.stack([draws.constant(*_SCARF_X), draws.constant(*_SCARF_Y)], -1) + draws.normal(count, _CORNERS, 2, scale=4.0)
    shape = torch.stack([shape[..., 0], shape[..., 1] + tilt[..., 0] * shape[..., 0]], -1)
    # The centre lies below the upper rim, from where the whole outline is seen.
    return top + view.unit[:, None] * draws.constant(0.0, 60.0), top[:, None] + unit * shape


def _hat_corners(draws: Draws, view: FaceView) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 16 2"]]:
    """A cap or a cloth over the forehead."""
    count, unit = len(view.unit), view.unit[:, None, None]
    brow = view.landmarks[:, 17:27].mean(1) + view.unit[:, None] * draws.constant(0.0, -1.0) * draws.uniform(count, 1, low=-4, high=30)
    axis = view.landmarks[:, 42:48].mean(1) - view.landmarks[:, 36:42].mean(1)
    slope = (axis[:, 1] / axis[:, 0].clamp(min=10 * view.unit)).clamp(-0.5, 0.5)[:, None] + draws.normal(count, 1, scale=0.08)
    shape = torch.stack([draws.constant(*_HAT_X), draws.constant(*_HAT_Y)], -1) * draws.uniform(count, 1, 2, low=0.9, high=1.15)
    shape = torch.stack([shape[..., 0], shape[..., 1] + slope * shape[..., 0]], -1)
    return brow + view.unit[:, None] * draws.constant(0.0, -50.0), brow[:, None] + unit * shape


def _thing(draws: Draws, view: FaceView) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 64"]]:
    """Something round, angular or ragged in front of any part of the face."""
    count = len(view.unit)
    picked = draws.integers(68, count)
    centre = view.landmarks.gather(1, picked[:, None, None].expand(-1, 1, 2))[:, 0] + draws.normal(count, 2) * 18 * view.unit[:, None]
    return centre, outline(draws, count) * (view.unit * draws.log_uniform(count, low=9, high=60))[:, None]
