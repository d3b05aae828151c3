"""Things laid over a picture, one after the other, and what of the face stays visible."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from focus_backend.rendering import Rendering, VisibleSurface
from focus_backend.rendering.lighting import SH_BAND0, SH_BAND1, SH_BAND2, SH_BAND2_XX_YY, SH_BAND2_ZZ
from train.data.shapes import COARSE_FROM, coverage

# Least squares of the sRGB curve on 0.002 to 1 by the powers 1/2, 1/4 and 1 and a constant.
_SRGB_FIT = (0.8186, 0.3104, -0.0500, -0.0794)


class Layer(NamedTuple):
    """Something in front of the face.

    Attributes:
        distance: to its outline, pixels, negative inside.
        colour: sRGB.
        opacity: 0 where a face does not have it.
        shadow: how much of the light the thing takes from what lies just beside it.
    """

    distance: Float[Tensor, "b h w"]
    colour: Float[Tensor, "b 3 h w"]
    opacity: Float[Tensor, "b"]
    shadow: Float[Tensor, "b"]


class Picture(NamedTuple):
    """A picture in the making.

    Attributes:
        image: sRGB.
        visible: share of what lies under the layers that is still seen.
    """

    image: Float[Tensor, "b 3 h w"]
    visible: Float[Tensor, "b h w"]


def lay_over(picture: Picture, layer: Layer, light: Float[Tensor, "b 2"], reach: Float[Tensor, "b"]) -> Picture:
    """The picture with a layer and its soft shadow.

    Args:
        picture: so far.
        layer: the thing.
        light: where the light comes from, unit vector in pixel axes (right, down), shorter when it comes from the front.
        reach: how far shadows fall, pixels.
    """
    opacity = coverage(layer.distance) * layer.opacity[:, None, None]
    reach = reach[:, None, None]
    down, right = _slopes(layer.distance)
    # To first order the distance at the place whose light ray passes here.
    moved = layer.distance + 0.7 * reach * (right * light[:, 0, None, None] + down * light[:, 1, None, None])
    shade = (0.5 - moved / (2 * reach)).clamp(0, 1) * (layer.shadow * layer.opacity)[:, None, None]
    darkened = picture.image * (1 - shade)[:, None]
    return Picture(torch.lerp(darkened, layer.colour, opacity[:, None]), picture.visible * (1 - opacity))


def round_shading(
    distance: Float[Tensor, "b h w"], radius: Float[Tensor, "b h w"], lighting: Float[Tensor, "b 9 3"]
) -> Float[Tensor, "b 3 h w"]:
    """Linear light on something round of a radius (pixels), as its distances tell its normals; camera space."""
    down, right = _slopes(distance)
    tilt = (1 + distance / radius.clamp(min=0.5)).clamp(0, 0.95) / torch.hypot(down, right).clamp(min=1e-3)
    return slope_shading(right * tilt, -down * tilt, lighting)


def slope_shading(x: Float[Tensor, "b h w"], y: Float[Tensor, "b h w"], lighting: Float[Tensor, "b 9 3"]) -> Float[Tensor, "b 3 h w"]:
    """Linear light on normals that face the camera, given by their parts to the right and up; a little light is everywhere.

    `rendering.shade` with the channels first, which is several times faster on whole maps. Light changes slowly: in large pictures it is
    found at every second pixel and interpolated.
    """
    size = tuple(x.shape[1:])
    if min(size) >= COARSE_FROM:
        x, y = x[:, ::2, ::2], y[:, ::2, ::2]
    xx, yy = x * x, y * y
    zz = (1 - xx - yy).clamp(min=0.02)
    z = zz.sqrt()
    terms = torch.stack([y, z, x, x * y, y * z, 3 * zz - 1, x * z, xx - yy], 1).flatten(2)
    factors = [SH_BAND1] * 3 + [SH_BAND2, SH_BAND2, SH_BAND2_ZZ, SH_BAND2, SH_BAND2_XX_YY]
    weights = torch.stack([factor * lighting[:, index + 1] for index, factor in enumerate(factors)], 2)
    shading = torch.baddbmm(SH_BAND0 * lighting[:, 0, :, None], weights, terms)
    shading = shading.unflatten(2, tuple(x.shape[1:])).clamp_(min=0.02)
    return shading if shading.shape[2:] == size else interpolate(shading, size, mode="bilinear")


def lit(colour: Float[Tensor, "b 3 *places"], shading: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """sRGB of a linear colour under light, to 0.003 (of 1), in a third of the time of the curve's power."""
    root = (colour * shading).clamp(0, 1).sqrt()
    first, second, third, offset = _SRGB_FIT
    return (root.sqrt().mul_(second) + root * (first + third * root)).add_(offset).clamp_(0, 1)


def at_pixels(triangles: Int[Tensor, "f 3"], seen: Rendering | VisibleSurface, values: Float[Tensor, "b v c"]) -> Float[Tensor, "b h w c"]:
    """Values of vertices at the seen pixels, 0 beside the surface."""
    corners = triangles[seen.triangle_ids.clamp(min=0)].flatten(1)
    found = values.gather(1, corners[..., None].expand(-1, -1, values.shape[-1])).unflatten(1, seen.barycentric.shape[1:])
    return (found * seen.barycentric[..., None]).sum(-2)


def _slopes(distance: Float[Tensor, "b h w"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Change of the distance a pixel down and a pixel right, forward differences; the last ones are repeated."""
    down = torch.diff(distance, dim=1, append=distance[:, -1:])
    right = torch.diff(distance, dim=2, append=distance[:, :, -1:])
    return down, right
