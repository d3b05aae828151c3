"""Hair on heads: the scalp pushed outwards as a second surface, and strands that hang beside the face."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering import Camera, Rendering, encode_srgb, render
from train.data.draws import Draws
from train.data.layers import Picture, at_pixels, lit, slope_shading
from train.data.shapes import Capsules

# Directions around the vertical axis, degrees from the front, and the height (mm) where short hair begins there.
_AROUND = (0.0, 25.0, 45.0, 60.0, 72.0, 84.0, 100.0, 112.0, 140.0, 180.0)
_SHORT = (64.0, 66.0, 58.0, 42.0, 8.0, 34.0, 34.0, -5.0, -65.0, -75.0)
_LONG = (60.0, 62.0, 50.0, 25.0, -30.0, -80.0, -120.0, -150.0, -160.0, -160.0)
_AXIS_Z = -55.0
_STRANDS = 512
# Linear RGB of black, brown, blond, red and grey hair.
_COLOURS = (0.012, 0.009, 0.008, 0.07, 0.037, 0.02, 0.42, 0.27, 0.13, 0.26, 0.07, 0.025, 0.36, 0.35, 0.34)


class Hair(NamedTuple):
    """One head of hair for each face.

    Attributes:
        colour: linear RGB.
        line: height (mm, model space) where it begins, at the directions of `_AROUND`.
        slant: how much lower it begins on the left, mm a mm.
        thickness: mm.
        wave: how much strands wind, shares of a turn around the head.
        lengths: how far each strand leaves the line, mm.
        strands: brightness around 1 of neighbouring strands.
        is_long: hangs down beside the face.
        is_there: bald without.
        beard: how densely it grows on cheeks and chin, 0 to 1.
        beard_line: height (mm, model space) where the beard begins on the cheeks.
    """

    colour: Float[Tensor, "b 3"]
    line: Float[Tensor, "b around"]
    slant: Float[Tensor, "b"]
    thickness: Float[Tensor, "b"]
    wave: Float[Tensor, "b"]
    lengths: Float[Tensor, "b strands"]
    strands: Float[Tensor, "b strands"]
    is_long: Bool[Tensor, "b"]
    is_there: Bool[Tensor, "b"]
    beard: Float[Tensor, "b"]
    beard_line: Float[Tensor, "b"]


def draw_hair(draws: Draws, count: int, share: float, beard_share: float) -> Hair:
    """Short to long, flat to thick, with or without a fringe."""
    colours = draws.constant(*_COLOURS).view(5, 3)
    mixed = torch.softmax(3 * draws.normal(count, 5) + draws.constant(1.5, 2.0, 0.5, -1.0, -1.0), 1) @ colours
    dyed = 0.5 * (draws.uniform(count, 3).square() + draws.uniform(count, 1).square())
    colour = torch.where(draws.chance(0.03, count, 1), dyed, mixed * draws.log_uniform(count, 1, low=0.6, high=1.5)).clamp(0.004, 0.9)
    is_long = draws.chance(0.4, count)
    line = torch.where(is_long[:, None], draws.constant(*_LONG), draws.constant(*_SHORT)) + draws.normal(count, 1, scale=5.0)
    has_fringe = draws.chance(0.3, count, 1)
    lowered = draws.uniform(count, 1, low=15, high=50) * draws.constant(1, 1, 0.8, 0.4, *[0.0] * 6)
    line = line - has_fringe * lowered + draws.normal(count, len(_AROUND), scale=3.0)
    coarse = [interpolate(draws.normal(count, 1, cells), _STRANDS, mode="linear")[:, 0] for cells in (8, 32, 170, 512)]
    mixed = 0.4 * coarse[0] + 0.4 * coarse[1] + coarse[2] + coarse[3]
    strands = 1 + mixed * draws.uniform(count, 1, low=0.05, high=0.17)
    thickness = torch.where(is_long, draws.log_uniform(count, low=8, high=28), draws.log_uniform(count, low=2.5, high=30))
    # Fringes end in tufts with gaps between them.
    ragged = draws.uniform(count, 1, low=1, high=5) + has_fringe * draws.log_uniform(count, 1, low=2, high=14)
    lengths = ragged * (0.6 * coarse[1] + 0.7 * coarse[2] + 0.5 * draws.normal(count, _STRANDS)).clamp(-2.5, 2.5)
    wave = draws.log_uniform(count, low=0.008, high=0.06)
    slant = draws.normal(count, scale=0.08) * (1 + 2 * has_fringe[:, 0])
    is_there = draws.chance(share, count)
    # Either a shadow through which skin is seen, or what hides it.
    dense = torch.where(draws.chance(0.5, count), draws.uniform(count, low=0.1, high=0.27), draws.uniform(count, low=0.7, high=1.1))
    beard, beard_line = dense * draws.chance(beard_share, count), draws.uniform(count, low=-75, high=-35)
    return Hair(colour, line, slant, thickness, wave, lengths, strands.clamp(0.3, 2), is_long, is_there, beard, beard_line)


def lay_hair(
    model: FaceModel,
    vertices: Float[Tensor, "b v 3"],
    lighting: Float[Tensor, "b 9 3"],
    camera: Camera,
    hair: Hair,
    picture: Picture,
    bend: Float[Tensor, "b h w"],
    noise: Float[Tensor, "b h w"],
) -> Picture:
    """The picture with hair on the head: the scalp above its line, pushed outwards and drawn with strands that run down from the crown.

    `bend` and `noise` wind the strands, slowly and finely.
    """
    mean = model.mean_shape
    around = torch.atan2(mean[:, 0], mean[:, 2] - _AXIS_Z)
    inside = _above_line(hair, mean, around.abs())
    outwards = torch.nn.functional.normalize(torch.stack([mean[:, 0], mean[:, 1], mean[:, 2] - _AXIS_Z], 1), dim=1)
    grown = (inside / 22).clamp(0, 1) * hair.thickness[:, None]
    shell = vertices + grown[..., None] * outwards
    white = mean.new_ones(len(vertices), 2, 2, 3)
    drawn = render(model, shell, white, lighting, camera, region="head", antialiased=False)
    attributes = torch.stack([inside, around.expand_as(inside)], -1)
    height, angle = at_pixels(model.triangles, drawn, attributes).unbind(-1)
    # Not more strands than pixels, or they make patterns of their own.
    across = min(_STRANDS, int(1.6 * noise.shape[-1]))
    winding = hair.wave[:, None, None] * (bend + 0.12 * noise)
    index = (across * (angle / (2 * math.pi) + 0.5 + winding)).long().flatten(1) % _STRANDS
    strands, length = (values.gather(1, index).view_as(height) for values in (hair.strands, hair.lengths))
    is_hair = (height + length > 0) & drawn.mask & hair.is_there[:, None, None]
    opacity = avg_pool2d(is_hair.float()[:, None], 3, 1, 1, count_include_pad=False)
    opacity = opacity * _fade(height, drawn.mask)[:, None]
    colour = _strand_colour(hair, drawn.image.permute(0, 3, 1, 2), strands, drawn.mask)
    hidden = opacity[:, 0]
    return Picture(torch.lerp(picture.image, colour, opacity), picture.visible * (1 - hidden))


def beard_heights(model: FaceModel, hair: Hair) -> Float[Tensor, "b v"]:
    """How far (about mm) each vertex lies inside of where the beard grows: around the mouth, on chin, jaw and cheeks."""
    x, y, z = model.mean_shape.unbind(1)
    # Height below the line, which rises towards the ears and falls beside the mouth; the lips stay free.
    below = hair.beard_line[:, None] + 0.008 * x.square() - y
    lips = 14 * ((x / 27).square() + ((y + 71) / 11).square()).sqrt() - 14
    return torch.minimum(torch.minimum(below, lips), z + 75)


def lay_beard(
    head: Rendering, height: Float[Tensor, "b h w"], lighting: Float[Tensor, "b 9 3"], hair: Hair, picture: Picture, grain: Tensor
) -> Picture:
    """The picture with stubble or a beard.

    Args:
        head: the rendered head.
        height: `beard_heights` at its pixels.
        lighting: camera space.
        hair: its colour and density.
        picture: of the head.
        grain: uneven growth, b h w, around 0.
    """
    dense = (hair.beard[:, None, None] * (1 + 0.1 * grain)).clamp(0, 1)
    opacity = (height / 10 + 0.25 * grain).clamp(0, 1) * dense * head.mask
    shading = slope_shading(head.normals[..., 0], head.normals[..., 1], lighting)
    colour = lit((0.5 * hair.colour)[..., None, None], shading * (1 + 0.25 * grain).clamp(min=0.2)[:, None])
    return Picture(torch.lerp(picture.image, colour, opacity[:, None]), picture.visible * (1 - opacity))


def _fade(height: Tensor, mask: Tensor) -> Tensor:
    """Hair thins out towards its line; beside the head it is as dense as its neighbours."""
    return torch.where(mask, (0.65 + height / 12).clamp(0, 1), 1.0)


def _above_line(hair: Hair, mean: Float[Tensor, "v 3"], around: Float[Tensor, "v"]) -> Float[Tensor, "b v"]:
    """Height of each vertex above the hairline in its direction, mm; the same for everybody's vertices of one name."""
    degrees = around.rad2deg()
    knots = torch.arange(len(_AROUND), device=mean.device)
    steps = [((degrees - low) / (high - low)).clamp(0, 1) for low, high in itertools.pairwise(_AROUND)]
    weights = (1 - (torch.stack(steps, 1).sum(1, keepdim=True) - knots).abs()).clamp(min=0)
    return mean[:, 1] - hair.line @ weights.T + hair.slant[:, None] * mean[:, 0]


def _strand_colour(hair: Hair, shading: Tensor, strands: Tensor, mask: Tensor) -> Float[Tensor, "b 3 h w"]:
    """sRGB of lit hair. `shading` is the sRGB picture of a white head; beside the head the light is not known and set to a middle."""
    light = torch.where(mask[:, None], shading.clamp(0.03, 1.4), 0.7)
    # Close to a power of 2.2: the light was encoded, the colour was not.
    return (encode_srgb(hair.colour[..., None, None]) * light * strands[:, None]).clamp(0, 1)


def hanging_capsules(draws: Draws, hair: Hair, camera: Camera) -> Capsules:
    """Long hair behind the face and on the shoulders: bundles at both sides, pixels."""
    count = len(hair.colour)
    side = draws.constant(-1.0, 1.0).view(1, 2, 1, 1)
    fixed = draws.constant(
        66, 30, -75, 80, -40, -80, 76, -120, -70, 84, -260, -50, 50, 20, -110, 64, -90, -110, 60, -200, -100, 60, -320, -90
    )
    bundle = fixed.view(1, 1, 8, 3) + draws.normal(count, 2, 8, 3, scale=6.0)
    bundle = torch.cat([bundle[..., :1] * side, bundle[..., 1:]], -1)
    screen = camera.to_screen(camera.to_camera_space(bundle.flatten(1, 2))).unflatten(1, (2, 2, 4))
    unit = (camera.focal_length[:, None] / screen[..., 2].flatten(1).mean(1, keepdim=True)).expand(count, 12)
    thick = draws.constant(18, 24, 28, 30, 30, 34).repeat(2) * (0.55 + 0.025 * hair.thickness[:, None])
    is_on = (hair.is_long & hair.is_there)[:, None]
    radius = torch.where(is_on, thick * unit, -1e3)
    points = screen[..., :2]
    return Capsules(points[..., :-1, :].flatten(1, 3), points[..., 1:, :].flatten(1, 3), radius, radius)
