"""Things in front of faces: drawn for every face in fixed numbers, where its landmarks say, and made transparent where it has none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train.data.draws import Draws
from train.data.layers import Layer, lit, round_shading
from train.data.shapes import Capsules, Grid, capsule_distance
from train.data.textures import draw_colour

# A right hand with its palm to the camera: the middle of the palm at 0, fingers along +y; mm.
_KNUCKLES = (-30.0, -10.0, 10.0, 29.0)
_FINGER_LENGTHS = (68.0, 78.0, 73.0, 58.0)
# Of hands, strands and writing alike.
_CAPSULES = 14


class FaceView(NamedTuple):
    """What occluders need to know of the face they go with.

    Attributes:
        landmarks: the 68 points, pixels.
        unit: pixels a millimetre at the face.
        lighting: spherical harmonics, camera space.
        skin: mean albedo, linear RGB.
    """

    landmarks: Float[Tensor, "b 68 2"]
    unit: Float[Tensor, "b"]
    lighting: Float[Tensor, "b 9 3"]
    skin: Float[Tensor, "b 3"]


def choose(condition: Bool[Tensor, "b"], yes: Tensor, no: Tensor) -> Tensor:
    """`where` by picture, for values of any shape behind the batch."""
    return torch.where(condition.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def hand_capsules(draws: Draws, view: FaceView) -> Capsules:
    """Four fingers of two parts, a thumb of two, the palm and the forearm; pixels."""
    count = len(view.unit)
    reach = draws.uniform(count, 4, low=0.45, high=1.0) * draws.constant(*_FINGER_LENGTHS)
    spread, bend = draws.uniform(count, 1, low=-0.1, high=0.5), draws.normal(count, 4, scale=0.12)
    base_x = draws.constant(*_KNUCKLES).expand(count, 4)
    lean = base_x / 45 * spread + 0.06 * draws.normal(count, 4)
    knuckle = torch.stack([base_x, 40 - 0.008 * base_x.square()], -1)
    middle = knuckle + 0.55 * reach[..., None] * torch.stack([lean.sin(), lean.cos()], -1)
    tip = middle + 0.45 * reach[..., None] * torch.stack([(lean + bend).sin(), (lean + bend).cos()], -1)
    fixed = draws.constant(-32, -25, -60, 12, -60, 12, -68, 48, -20, -35, -22, 34, 18, -36, 20, 34, 0, -30, 0, 30, 0, -40, 0, -300)
    rest = fixed.view(1, 6, 2, 2).expand(count, -1, -1, -1) + draws.normal(count, 6, 1, 2, scale=2.0)
    start = torch.cat([knuckle, middle, rest[:, :, 0]], 1)
    end = torch.cat([middle, tip, rest[:, :, 1]], 1)
    radii = [*[9.5] * 4, *[8.2] * 4, 13.0, 10.0, 21.0, 22.0, 20.0, 27.0], [*[8.2] * 4, *[7.0] * 4, 10.5, 8.5, 17.0, 17.0, 20.0, 36.0]
    thickness = draws.uniform(count, 1, low=0.85, high=1.15) * view.unit[:, None]
    place = _hand_place(draws, view)
    return Capsules(place(start), place(end), draws.constant(*radii[0]) * thickness, draws.constant(*radii[1]) * thickness)


def _hand_place(draws: Draws, view: FaceView):  # type: ignore[no-untyped-def]
    """The map from the hand's millimetres to pixels: fingers on the face, the arm away from its middle."""
    count = len(view.unit)
    picked = draws.integers(60, count)
    target = view.landmarks.gather(1, picked[:, None, None].expand(-1, 1, 2))[:, 0] + draws.normal(count, 2) * 12 * view.unit[:, None]
    # Where the fingers point, clockwise from up: arms come from below and from the sides.
    angle = draws.normal(count, scale=0.75)
    up = torch.stack([angle.sin(), -angle.cos()], -1)
    side = torch.stack([angle.cos(), angle.sin()], -1) * (2 * draws.integers(2, count, 1) - 1)
    scale = view.unit * draws.uniform(count, low=0.9, high=1.25)
    origin = target - up * (scale * draws.uniform(count, low=-20, high=110))[:, None]

    def place(points: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n 2"]:
        return origin[:, None] + scale[:, None, None] * (points[..., :1] * side[:, None] + points[..., 1:] * up[:, None])

    return place


def draw_capsule_things(
    draws: Draws, view: FaceView, grid: Grid, noise: Float[Tensor, "b h w"], hair: Float[Tensor, "b 3"], is_there: Bool[Tensor, "b"]
) -> Layer:
    """A hand, loose strands of hair, or strokes as of writing laid over the picture."""
    count = len(view.unit)
    hand, strands, writing = hand_capsules(draws, view), _strand_capsules(draws, view), _writing_capsules(draws, view, grid)
    kind = draws.uniform(count)
    is_hand, is_strands = kind < 0.68, kind < 0.85
    chosen = Capsules(*(choose(is_hand, a, choose(is_strands, b, c)) for a, b, c in zip(hand, strands, writing, strict=True)))
    distance, radius = capsule_distance(grid, chosen)
    # Between fingers it is dark.
    depth = (1 + distance / radius.clamp(min=0.5)).clamp(0, 1)
    crease = 1 - draws.uniform(count, 1, 1, high=0.6) * depth.square().square()
    shading = round_shading(distance, radius, view.lighting) * (draws.uniform(count, 1, 1, low=0.6, high=1.05) * crease)[:, None]
    ink = draw_colour(draws, count)[..., 0, 0]
    colour = choose(is_hand, _hand_colour(draws, view), choose(is_strands, hair, ink))
    mottled = (colour[..., None, None] * (1 + 0.06 * noise[:, None])).clamp(0.004, 1)
    flat = colour[..., None, None].expand_as(shading)
    picture = torch.where((is_strands)[:, None, None, None], lit(mottled, shading), flat)
    shadow = draws.uniform(count, low=0.1, high=0.6) * is_strands
    return Layer(distance, picture, is_there.float(), shadow)


def _hand_colour(draws: Draws, view: FaceView) -> Float[Tensor, "b 3"]:
    """Mostly the person's own skin, a little tanned or flushed, sometimes another person's or a glove; linear RGB."""
    count = len(view.unit)
    own = view.skin * (1 + draws.normal(count, 1, scale=0.12) + draws.normal(count, 3, scale=0.04)).clamp(0.6, 1.4)
    other = draws.constant(0.45, 0.27, 0.19) * draws.log_uniform(count, 1, low=0.15, high=1.4)
    kind = draws.uniform(count)
    return choose(kind < 0.75, own, choose(kind < 0.92, other, draws.uniform(count, 3).square()))


def _strand_capsules(draws: Draws, view: FaceView) -> Capsules:
    """Seven locks of two parts that fall from the hairline over brow and cheek; pixels."""
    count, unit = len(view.unit), view.unit[:, None, None]
    brow = view.landmarks[:, 17:27].mean(1, keepdim=True)
    side = draws.uniform(count, 1, low=-60, high=60)
    root_x = side + draws.normal(count, 7, scale=14.0)
    root = brow + unit * torch.stack([root_x, -55 + draws.normal(count, 7, scale=6.0)], -1)
    fall = draws.uniform(count, 1, low=30, high=150) * draws.uniform(count, 7, low=0.7, high=1.1)
    lean = draws.normal(count, 1, scale=0.25) + draws.normal(count, 7, scale=0.1)
    half = root + unit * (fall / 2)[..., None] * torch.stack([lean, torch.ones_like(lean)], -1)
    lean = lean + draws.normal(count, 1, scale=0.35) + draws.normal(count, 7, scale=0.1)
    tip = half + unit * (fall / 2)[..., None] * torch.stack([lean, torch.ones_like(lean)], -1)
    thick = draws.log_uniform(count, 7, low=0.8, high=6) * view.unit[:, None]
    radii = torch.cat([thick, 0.75 * thick], 1), torch.cat([0.75 * thick, 0.1 * thick], 1)
    return Capsules(torch.cat([root, half], 1), torch.cat([half, tip], 1), *radii)


def _writing_capsules(draws: Draws, view: FaceView, grid: Grid) -> Capsules:
    """Strokes between the corners and middles of letter boxes along a line; pixels."""
    count, size = len(view.unit), grid.x.shape[-1]
    box = size * draws.log_uniform(count, 1, low=0.04, high=0.16)
    ends = (draws.integers(3, 2, count, _CAPSULES, 2).float() / 2) * draws.constant(0.7, 1.2)
    letter = draws.constant(*[index // 3 for index in range(_CAPSULES)]) - 2.3
    ends = ends + torch.stack([letter, torch.zeros_like(letter)], -1)
    angle = draws.normal(count, 1, scale=0.25)
    right, down = torch.stack([angle.cos(), angle.sin()], -1), torch.stack([-angle.sin(), angle.cos()], -1)
    place = size * draws.uniform(count, 1, 2, low=0.2, high=0.8)
    start, end = (place + box[..., None] * (part[..., :1] * right + part[..., 1:] * down) for part in ends.unbind(0))
    radius = (box * draws.uniform(count, 1, low=0.06, high=0.16)).expand(count, _CAPSULES)
    return Capsules(start, end, radius, radius)
