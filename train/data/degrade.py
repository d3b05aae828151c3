"""What cameras, apps and files do to pictures: blur, few pixels, noise, JPEG, colour. sRGB in [0, 1], channels first."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from train.data.draws import Draws
from train.data.synthetic_config import SyntheticConfig

_LUMA = (0.299, 0.587, 0.114)
_BLUR_TAPS = 7
# First quantisation step and its growth with frequency, fitted to what encoders use at middle quality, in 1 / 255.
_LUMA_STEP, _CHROMA_STEP = (10.0, 7.5), (17.0, 14.0)
_BLOCK = 8


def degrade(image: Float[Tensor, "b 3 h w"], config: SyntheticConfig, draws: Draws) -> Float[Tensor, "b 3 h w"]:
    """The picture as it reaches us."""
    count = len(image)
    image = _blur(image, draws.chance(config.blur_share, count), draws)
    image = _shrink(image, draws.chance(config.low_resolution_share, count), draws)
    image = _shift_colours(image, draws.chance(config.colour_share, count), draws.chance(config.grey_share, count), draws)
    image = _add_noise(image, draws.chance(config.noise_share, count), draws)
    return _compress(image.clamp(0, 1), draws.chance(config.jpeg_share, count), draws).clamp(0, 1)


def _per_picture(values: Tensor) -> Tensor:
    """One value a picture, to broadcast over its pixels."""
    return values[:, None, None, None]


def _blur(image: Tensor, is_on: Tensor, draws: Draws) -> Tensor:
    """Out of focus, and shaken along a line."""
    count = len(image)
    place = torch.arange(_BLUR_TAPS, device=image.device) - _BLUR_TAPS // 2
    x, y = place[None, None, :], place[None, :, None]
    angle = draws.uniform(count, 1, 1, high=math.pi)
    # Mostly little.
    width = (0.25 + 1.2 * draws.uniform(count, 1, 1).square()) * image.shape[-1] / 224
    long = width * torch.where(draws.chance(0.3, count, 1, 1), draws.uniform(count, 1, 1, low=1, high=3), 1.0)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    weights = torch.exp(-0.5 * ((along / long).square() + (across / width).square()))
    sharp = ((x == 0) & (y == 0)).float()
    weights = torch.where(is_on[:, None, None], weights / weights.sum((1, 2), keepdim=True), sharp)
    stacked = pad(image, [_BLUR_TAPS // 2] * 4, mode="replicate").flatten(0, 1)[None]
    return conv2d(stacked, weights[:, None].expand(-1, 3, -1, -1).flatten(0, 1)[:, None], groups=3 * count)[0].view_as(image)


def _shrink(image: Tensor, is_on: Tensor, draws: Draws) -> Tensor:
    """From a picture of half or a quarter of the pixels, or somewhere between."""
    count, size = len(image), image.shape[-2:]
    amount = 2 * draws.uniform(count).square() * is_on
    half = avg_pool2d(image, 2)
    mode = "bilinear"
    small = interpolate(half, size, mode=mode)
    tiny = interpolate(avg_pool2d(half, 2), size, mode=mode)
    blended = torch.lerp(image, small, _per_picture(amount.clamp(max=1)))
    return torch.lerp(blended, tiny, _per_picture((amount - 1).clamp(min=0)))


def _shift_colours(image: Tensor, is_on: Tensor, is_grey: Tensor, draws: Draws) -> Tensor:
    """White balance, contrast, saturation and gamma of cameras and apps; some pictures are grey or sepia."""
    count = len(image)
    on = _per_picture(is_on.float())
    gamma = (draws.normal(count, 1, 1, 1, scale=0.12) * on).exp()
    image = image.clamp(min=1e-4) ** gamma
    image = image * (1 + draws.normal(count, 3, 1, 1, scale=0.04) * on)
    middle = image.mean((1, 2, 3), keepdim=True)
    image = torch.lerp(middle.expand_as(image), image, (draws.normal(count, 1, 1, 1, scale=0.12) * on).exp())
    luma = (image * draws.constant(*_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    saturation = (1 + (draws.normal(count, 1, 1, 1, scale=0.16) - 0.05) * on).clamp(0, 1.4)
    tone = 1 + draws.uniform(count, 1, 1, 1).square() * draws.constant(0.2, 0.0, -0.25).view(1, 3, 1, 1)
    coloured = torch.lerp(luma.expand_as(image), image, saturation)
    return torch.where(_per_picture(is_grey), luma * tone, coloured)


def _add_noise(image: Tensor, is_on: Tensor, draws: Draws) -> Tensor:
    """Grain of sensors, stronger in the dark, partly the same in all colours, fine or of two pixels."""
    count, size = len(image), image.shape[-2:]
    level = _per_picture(draws.log_uniform(count, low=0.003, high=0.035) * is_on)
    grain = draws.normal(count, 3, *size)
    coarse = interpolate(avg_pool2d(grain, 2) * 2, size, mode="bilinear")
    grain = torch.lerp(grain, coarse, draws.uniform(count, 1, 1, 1))
    grain = torch.lerp(grain, grain.mean(1, keepdim=True) * 1.7, draws.uniform(count, 1, 1, 1))
    return image + level * (1.2 - 0.6 * image) * grain


def _compress(image: Tensor, is_on: Tensor, draws: Draws) -> Tensor:
    """JPEG: half the colour resolution, cosine transform of 8 x 8 blocks, rounding to multiples that grow with frequency."""
    count, (height, width) = len(image), image.shape[-2:]
    coarse = draws.log_uniform(count, low=0.1, high=2.5)
    full = pad(image, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    luma = (full * draws.constant(*_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    chroma = torch.cat([full[:, 2:] - luma, full[:, :1] - luma], 1)
    chroma = interpolate(avg_pool2d(chroma, 2), scale_factor=2)
    planes = torch.cat([luma - 0.5, chroma], 1)
    cosines = draws.constant(*_cosines()).view(_BLOCK, _BLOCK)
    blocks = planes.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4)
    spectrum = cosines @ blocks @ cosines.T
    index = torch.arange(_BLOCK, device=image.device)
    frequency = index[:, None] + index
    steps = [(first + slope * frequency) / 255 for first, slope in (_LUMA_STEP, _CHROMA_STEP, _CHROMA_STEP)]
    step = torch.stack(steps)[None, :, None, None] * coarse[:, None, None, None, None, None]
    blocks = cosines.T @ (torch.round(spectrum / step) * step) @ cosines
    planes = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    luma = planes[:, :1] + 0.5
    red, blue = planes[:, 2:] + luma, planes[:, 1:2] + luma
    green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    packed = torch.cat([red, green, blue], 1)[..., :height, :width]
    return torch.where(_per_picture(is_on), packed, image)


def _cosines() -> list[float]:
    """The orthonormal cosine transform of 8 values, row by row."""
    rows = [
        [math.sqrt((1 if k == 0 else 2) / _BLOCK) * math.cos(math.pi * (n + 0.5) * k / _BLOCK) for n in range(_BLOCK)]
        for k in range(_BLOCK)
    ]
    return [value for row in rows for value in row]
