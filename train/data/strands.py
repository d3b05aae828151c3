"""Single strands of hair: a fringe with gaps over the forehead, and bristles that stand out around the head."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from focus_backend.rendering import Camera, shade
from train.data.draws import Draws
from train.data.hair import Hair
from train.data.layers import Picture, lit
from train.data.occluders import FaceView
from train.data.shapes import Grid

_STRANDS = 512
# The middle of a head as bristles see it, model space, and its half axes, mm.
_MIDDLE = (0.0, 15.0, -50.0)
_HALF_WIDTH, _HALF_HEIGHT = 78.0, 95.0
# Where a fringe begins above the brows, and its half width, mm; the hair above hides its roots.
_ROOT, _REACH = 62.0, 72.0


def lay_fringe(
    draws: Draws,
    picture: Picture,
    hair: Hair,
    view: FaceView,
    is_head: Bool[Tensor, "b h w"],
    grid: Grid,
    bend: Float[Tensor, "b h w"],
    is_there: Bool[Tensor, "b"],
) -> Picture:
    """The picture with loose strands that fall from the hair to the brows and beyond; between them the forehead is seen.

    Args:
        draws: of this batch.
        picture: of the head with its hair.
        hair: whose colour they have.
        view: the faces.
        is_head: pixels that show the head; there strands lie.
        grid: pixels.
        bend: how strands bend, around 0.
        is_there: which faces have them.
    """
    count = len(view.unit)
    right, down = _from(view.landmarks[:, 17:27].mean(1), view, grid)
    lean = draws.normal(count, 1, 1, scale=0.2)
    across = right - lean * down + 5 * bend * draws.uniform(count, 1, 1)
    width = draws.log_uniform(count, 1, 1, low=0.5, high=1.8)
    fall = draws.normal(count, 1, scale=14.0) - 4 + draws.uniform(count, 1, low=5, high=16) * draws.normal(count, _STRANDS)
    rest = _REACH - across.abs()
    opacity = _strands(draws, across / width, fall, down, rest) * ((down > -_ROOT) & is_head) * _is_on(hair, is_there)
    return _lay(draws, picture, hair, view, opacity)


def lay_bristles(
    draws: Draws,
    picture: Picture,
    hair: Hair,
    view: FaceView,
    camera: Camera,
    grid: Grid,
    bend: Float[Tensor, "b h w"],
    is_there: Bool[Tensor, "b"],
) -> Picture:
    """The background with strands that stand out from the head, which is drawn before them.

    Args:
        draws: of this batch.
        picture: the background.
        hair: whose colour they have.
        view: the faces.
        camera: of the pictures.
        grid: pixels.
        bend: how strands bend, around 0.
        is_there: which faces have them.
    """
    count = len(view.unit)
    middle = camera.to_screen(camera.to_camera_space(draws.constant(*_MIDDLE).expand(count, 1, 3)))[:, 0, :2]
    right, down = _from(middle, view, grid)
    x, y = right / _HALF_WIDTH, down / _HALF_HEIGHT
    around = torch.atan2(x, -y) + 0.12 * bend
    outwards = (torch.hypot(x, y) - 1) * 0.5 * (_HALF_WIDTH + _HALF_HEIGHT)
    longest = hair.thickness[:, None] * draws.uniform(count, 1, low=0.5, high=1.5)
    length = longest * (1 + 0.4 * draws.normal(count, _STRANDS))
    rest = 25 * (draws.uniform(count, 1, 1, low=1.6, high=2.4) - around.abs())
    opacity = _strands(draws, around * (_STRANDS / (2 * math.pi)), length, outwards, rest) * _is_on(hair, is_there)
    return _lay(draws, picture, hair, view, opacity)


def _from(place: Float[Tensor, "b 2"], view: FaceView, grid: Grid) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Millimetres to the right of a place (pixels) and below it, along the face's own axes."""
    # From the chin up; in profile the eyes would tell less.
    axis = torch.nn.functional.normalize(view.landmarks[:, 17:27].mean(1) - view.landmarks[:, 8], dim=1)[..., None, None]
    x, y = grid.x - place[:, 0, None, None], grid.y - place[:, 1, None, None]
    unit = view.unit[:, None, None]
    return (-x * axis[:, 1] + y * axis[:, 0]) / unit, -(x * axis[:, 0] + y * axis[:, 1]) / unit


def _is_on(hair: Hair, is_there: Bool[Tensor, "b"]) -> Float[Tensor, "b 1 1"]:
    """Where there is hair at all."""
    return (hair.is_there & is_there).float()[:, None, None]


def _strands(
    draws: Draws,
    place: Float[Tensor, "b h w"],
    length: Float[Tensor, "b strands"],
    along: Float[Tensor, "b h w"],
    rest: Float[Tensor, "b h w"],
) -> Float[Tensor, "b h w"]:
    """How much strands hide: one at each whole `place`, some missing, thinner to where `along` reaches their length or `rest` ends."""
    count = len(place)
    density = draws.uniform(count, 1, low=0.3, high=1.0)
    ends = torch.where(draws.uniform(count, _STRANDS) < density, length, -1e3)
    index = place.floor()
    left = ends.gather(1, (index.long() % _STRANDS).flatten(1)).view_as(place) - along
    profile = 1 - (2 * (place - index) - 1).square()
    return (torch.minimum(left / 8, rest / 10).clamp(0, 1).sqrt() * profile * 1.4).clamp(0, 1)


def _lay(draws: Draws, picture: Picture, hair: Hair, view: FaceView, opacity: Float[Tensor, "b h w"]) -> Picture:
    """The picture with strands, lit as the forehead is."""
    count = len(view.unit)
    forehead = torch.nn.functional.normalize(draws.constant(0.0, 0.4, 1.0), dim=0).expand(count, 1, 3)
    light = shade(forehead, view.lighting).clamp(min=0.05).mT[..., None] * draws.uniform(count, 1, 1, 1, low=0.5, high=1.2)
    colour = lit(hair.colour[..., None, None], light).expand_as(picture.image)
    return Picture(torch.lerp(picture.image, colour, opacity[:, None]), picture.visible * (1 - opacity))
