"""From a face anywhere in an image to the 112 px picture that recognition networks were trained on, with gradients.

The picture is the one of ArcFace: a similarity transform brings the eyes, the nose tip and the mouth corners onto a fixed template.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from focus_backend.networks.frame import five_of_68

ALIGNED_SIZE = 112
# Subject's right eye, left eye, nose tip, right and left mouth corner. Published for pixel centres at whole numbers, ours are at +0.5.
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
# Squared squared pixels; the spread of the points of any face that can be seen is millions of times this.
SMALLEST_SPREAD = 1e-6


def template_points() -> Float[Tensor, "5 2"]:
    """Where the five points lie in the aligned picture, px, centres at +0.5."""
    return torch.tensor(TEMPLATE) + 0.5


def similarity_from_template(points: Float[Tensor, "b 5 2"], template: Float[Tensor, "5 2"]) -> Float[Tensor, "b 2 3"]:
    """The map from aligned pixels to image pixels, inverse of the best similarity transform from the image to the template.

    With points as complex numbers z (image) and w (template), both about their means, the least-squares transform w = a z has
    a = sum(conj(z) w) / sum(|z|^2); its inverse is 1 / a. Points that coincide give a map onto their mean, not a division by zero.

    Args:
        points: the five points in the image, px.
        template: `template_points`, on the same device.

    Returns:
        Matrices [m | t] with image = m @ aligned + t.
    """
    target_mean = template.mean(0)
    source_mean = points.mean(1)
    source, target = points - source_mean[:, None], template - target_mean
    real = (source * target).sum((1, 2))
    imaginary = (source[..., 0] * target[:, 1] - source[..., 1] * target[:, 0]).sum(1)
    spread = source.square().sum((1, 2))
    shrink = spread / (real.square() + imaginary.square() + SMALLEST_SPREAD)
    cosine, sine = real * shrink, -imaginary * shrink
    turn = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    return torch.cat([turn, (source_mean - turn @ target_mean)[..., None]], -1)


def align_face(
    image: Float[Tensor, "b c h w"], landmarks: Float[Tensor, "b 68 2"], template: Float[Tensor, "5 2"] | None = None
) -> Float[Tensor, "b c 112 112"]:
    """The face of each image in the template's place; zero (black) where the image ends.

    Args:
        image: any range.
        landmarks: the 68 points, px of `image`.
        template: `template_points` where they already lie on the images' device, which saves a copy to it.

    Returns:
        The aligned pictures; differentiable in `image` and `landmarks`.
    """
    dtype = torch.promote_types(image.dtype, landmarks.dtype)
    template = (template_points() if template is None else template).to(image.device, dtype)
    matrix = similarity_from_template(five_of_68(landmarks.to(dtype)), template)
    height, width = image.shape[-2:]
    centres = torch.arange(ALIGNED_SIZE, dtype=dtype, device=image.device) + 0.5
    across = matrix[:, None, None, :, 0] * centres[None, None, :, None]
    down = matrix[:, None, None, :, 1] * centres[None, :, None, None]
    places = across + down + matrix[:, None, None, :, 2]
    # Pixels to [-1, 1] from edge to edge of the image; a factor each, for a tensor of sizes would wait for a copy to the device.
    grid = torch.stack([places[..., 0] * (2 / width) - 1, places[..., 1] * (2 / height) - 1], -1)
    return functional.grid_sample(image.to(dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
