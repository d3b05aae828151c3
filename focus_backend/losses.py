"""The equations of FOCUS, one small function each, numbered as in the paper.

What is summed and what is averaged: a sum over pixels is divided by S_R, the image's own number of rendered pixels (at least one), a sum
over landmarks by 68, and every loss is at last averaged over the batch. So a weight means the same at any batch and image size. A
function that ends in `_per_image` stops before the average over the batch.

Shapes: photo I_T and rendering I_R are sRGB images, channels last; the region holds the pixels that the face model was drawn to; the
mask M is 1 for face and 0 for outlier, and counts in the region only, whether or not it was cut to it before. A region of floats weighs
its pixels. Nothing here waits for the device, and an empty region or mask gives finite values and gradients.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, NonNegativeFloat
from torch import Tensor

LANDMARKS = 68
NOSE_RIDGE, INNER_LIP = slice(27, 31), slice(60, 68)
HEAVY_LANDMARK = 20.0
# Landmark distances are pixels of a crop of this size; the released code also divides the sum of squared coefficients by it.
CROP_SIZE = 224
# Squared length of the constant coordinate that keeps the cosine of zero features defined.
COSINE_FLOOR = 1e-6

Image = Float[Tensor, "b h w 3"]
Mask = Float[Tensor, "b h w"]
Region = Bool[Tensor, "b h w"] | Float[Tensor, "b h w"]


class SegmentationWeights(BaseModel):
    """Weights of the losses of S, eta1 to eta5 in the paper; `preserve` is 0.25 in the released code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # eta1, eq 1 and 12.
    neighbour: NonNegativeFloat = 15.0
    # eta2, eq 2.
    distance: NonNegativeFloat = 3.0
    # eta3, eq 3.
    area: NonNegativeFloat = 0.5
    # eta4, eq 4.
    preserve: NonNegativeFloat = 2.5
    # eta5.
    binary: NonNegativeFloat = 10.0
    # Instead of `neighbour` in the variant `baseline`.
    difference: NonNegativeFloat = 0.0


class EncoderWeights(BaseModel):
    """Weights of the losses of R, lambda1 to lambda4 in the paper; the released code adds `outlier_area` 0.06."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # lambda1, eq 5.
    pixel: NonNegativeFloat = 0.5
    # lambda2, eq 6.
    perceptual: NonNegativeFloat = 0.25
    # lambda3, eq 7.
    landmark: NonNegativeFloat = 5e-4
    # lambda4.
    regulariser: NonNegativeFloat = 0.1
    # Share of the rendered pixels that S calls outlier.
    outlier_area: NonNegativeFloat = 0.0


def region_sum(values: Float[Tensor, "b h w"], region: Region) -> Float[Tensor, "b"]:
    """Sum of the values over each image's region, at least in single precision."""
    # Not a product alone: a value that is not finite outside the region must not reach the sum.
    return (_precise(values).masked_fill(region == 0, 0.0) * region).sum((1, 2))


def region_mean(values: Float[Tensor, "b h w"], region: Region) -> Float[Tensor, "b"]:
    """Sum of the values over each image's region, divided by its size S_R, or by 1 where the region is smaller than a pixel."""
    size = region.to(torch.promote_types(values.dtype, torch.float32)).sum((1, 2))
    return region_sum(values, region) / size.clamp(min=1)


def neighbour_distance(photo: Image, rendering: Image, region: Region, window: int = 3) -> Float[Tensor, "b h w"]:
    """Squared distance of each photo pixel to the nearest rendered colour in a window around it (eq 1, 12).

    Only neighbours in the region count. Pixels without any have distance 0; those of the region have at least themselves.

    Args:
        window: width and height of the neighbourhood, odd, pixels of these images.
    """
    margin, (height, width) = window // 2, photo.shape[1:3]
    counts = F.pad(region > 0, (margin, margin, margin, margin))
    colours = F.pad(rendering, (0, 0, margin, margin, margin, margin))
    nearest = photo.new_full(photo.shape[:3], torch.inf)
    for row in range(2 * margin + 1):
        for column in range(2 * margin + 1):
            here = (slice(None), slice(row, row + height), slice(column, column + width))
            distance = (photo - colours[here]).square().sum(-1)
            nearest = torch.minimum(nearest, distance.masked_fill(~counts[here], torch.inf))
    return nearest.masked_fill(torch.isinf(nearest), 0.0)


def neighbour_loss_per_image(
    photo: Image, rendering: Image, mask: Mask, region: Region, window: int = 3, *, squared: bool = True
) -> Float[Tensor, "b"]:
    """`neighbour_loss`, one value an image."""
    return _masked_difference(neighbour_distance(photo, rendering, region, window), mask, region, squared)


def neighbour_loss(
    photo: Image, rendering: Image, mask: Mask, region: Region, window: int = 3, *, squared: bool = True
) -> Float[Tensor, ""]:
    """Eq 1 and 12: sum over the region of (M(x) min over the window around x of ||I_T(x) - I_R(x')||)^2, divided by S_R.

    The mask weighs the difference before it is squared, as in eq 5, so M^2 stands before the squared distance. `squared=False` is the
    released form, M times the distance, which it takes over a window of 5.

    Where the photo and the rendering have no gradient, as in the S-step, no window is kept in memory. The window is counted in pixels: an
    image enlarged n times gives the same value at a window of 2n + 1.
    """
    return neighbour_loss_per_image(photo, rendering, mask, region, window, squared=squared).mean()


def difference_loss(photo: Image, rendering: Image, mask: Mask, region: Region) -> Float[Tensor, ""]:
    """What the variant `baseline` has in place of eq 1: the difference pixel by pixel; sum over the region of M^2 ||I_T - I_R||^2 / S_R."""
    return _masked_difference(_pixel_distance(photo, rendering), mask, region, squared=True).mean()


def cosine_distance_per_image(first: Float[Tensor, "b c *place"], second: Float[Tensor, "b c *place"]) -> Float[Tensor, "b"]:
    """1 - cosine similarity over the channels, averaged over the places of a feature map.

    Both vectors get one more coordinate of 1e-3. That changes nothing at usual lengths, and gives features that vanish a finite gradient,
    distance 0 from each other and 1 from any other.
    """
    first, second = _precise(first), _precise(second)
    dot = (first * second).sum(1) + COSINE_FLOOR
    lengths = [(features.square().sum(1) + COSINE_FLOOR).sqrt() for features in (first, second)]
    cosine = dot / (lengths[0] * lengths[1])
    return 1 - cosine.reshape(len(first), -1).mean(1)


def distance_loss(
    features_photo_masked: Float[Tensor, "b c *place"], features_rendering_masked: Float[Tensor, "b c *place"]
) -> Float[Tensor, ""]:
    """Eq 2: cos(F(I_T M), F(I_R M)), 1 - cosine similarity averaged over the places of the shallow features."""
    return cosine_distance_per_image(features_photo_masked, features_rendering_masked).mean()


def area_loss(mask: Mask, region: Region) -> Float[Tensor, ""]:
    """Eq 3: - S_M / S_R, the sum of the mask over the region divided by the region's size, averaged over the batch."""
    return -region_mean(mask, region).mean()


def preserve_loss(features_photo_masked: Float[Tensor, "b c *place"], features_photo: Float[Tensor, "b c *place"]) -> Float[Tensor, ""]:
    """Eq 4: cos(F(I_T M), F(I_T)), 1 - cosine similarity averaged over the places of the shallow features."""
    return cosine_distance_per_image(features_photo_masked, features_photo).mean()


def binary_loss(mask: Mask, region: Region, form: Literal["paper", "released"] = "paper") -> Float[Tensor, ""]:
    """Drives the mask to 0 or 1: - sum over the region of (M - 0.5)^2 / S_R, from 0 for an undecided mask to -0.25.

    The released form is 0.5 - mean of |M - 0.5|, from 0.5 to 0.
    """
    if form == "released":
        return 0.5 - region_mean((mask - 0.5).abs(), region).mean()
    return -region_mean((mask - 0.5).square(), region).mean()


def pixel_loss_per_image(
    photo: Image, rendering: Image, mask: Mask, region: Region, normalise: Literal["region", "mask"] = "region"
) -> Float[Tensor, "b"]:
    """`pixel_loss`, one value an image."""
    squared_distance = _pixel_distance(photo, rendering)
    if normalise == "region":
        return _masked_difference(squared_distance, mask, region, squared=True)
    return region_sum(mask * _root(squared_distance), region) / region_sum(mask, region).clamp(min=1)


def pixel_loss(
    photo: Image, rendering: Image, mask: Mask, region: Region, normalise: Literal["region", "mask"] = "region"
) -> Float[Tensor, ""]:
    """Eq 5: ||(I_T - I_R) M||^2, summed over the region with M^2 before the squared distance, divided by S_R.

    Dividing by S_R and not by S_M keeps the paper's trade: a photo that is mostly outliers pulls less at the face than a clean one.
    `normalise="mask"` is the released form: the sum of M ||I_T - I_R|| divided by S_M, the mean distance over the face's pixels.
    """
    return pixel_loss_per_image(photo, rendering, mask, region, normalise).mean()


def perceptual_loss(final_photo: Float[Tensor, "b n"], final_rendering: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Eq 6: cos(F(I_T), F(I_R)), 1 - cosine similarity of the final features, averaged over the batch."""
    return cosine_distance_per_image(final_photo, final_rendering).mean()


def landmark_weights(device: torch.device | str = "cpu") -> Float[Tensor, "68"]:
    """Weights of the 68 points in eq 7: nose ridge and inner lip 20, the rest 1."""
    weights = torch.ones(LANDMARKS, device=device)
    # Assigning a number would copy it to the device.
    weights[NOSE_RIDGE].fill_(HEAVY_LANDMARK)
    weights[INNER_LIP].fill_(HEAVY_LANDMARK)
    return weights


def landmark_loss_per_image(
    target: Float[Tensor, "b 68 2"],
    projected: Float[Tensor, "b 68 2"],
    weight_of_points: Float[Tensor, "68"],
    has_landmarks: Float[Tensor, "b"] | Bool[Tensor, "b"],
    image_size: int,
) -> Float[Tensor, "b"]:
    """`landmark_loss`, one value an image; 0 for images whose landmarks are not known."""
    # Unknown landmarks may be anything, NaN too, which a product with 0 would keep.
    known = (has_landmarks > 0)[:, None, None]
    difference = torch.where(known, target - projected, 0.0) * (CROP_SIZE / image_size)
    return has_landmarks * (difference.square().sum(-1) * weight_of_points).mean(1)


def landmark_loss(
    target: Float[Tensor, "b 68 2"],
    projected: Float[Tensor, "b 68 2"],
    weight_of_points: Float[Tensor, "68"],
    has_landmarks: Float[Tensor, "b"] | Bool[Tensor, "b"],
    image_size: int,
) -> Float[Tensor, ""]:
    """Eq 7: mean over the 68 points of weight times squared distance, in pixels of a 224 px crop.

    Images without landmarks add 0 and still count in the average over the batch: what one image pulls must not depend on the others.

    Args:
        target: pixels of a square crop of side `image_size`.
        projected: the same points of the face model, same unit.
        has_landmarks: 1 where the landmarks are known, 0 where not.
    """
    return landmark_loss_per_image(target, projected, weight_of_points, has_landmarks, image_size).mean()


def regulariser(
    shape: Float[Tensor, "b shape"], expression: Float[Tensor, "b expression"], albedo: Float[Tensor, "b albedo"]
) -> Float[Tensor, ""]:
    """||theta||^2 of shape, expression and albedo: the sum of squares of all coefficients divided by 224, averaged over the batch.

    A sum over the coefficients, as in the paper: it is minus twice the log prior, whatever their number. The released code divides it by
    the image size, which is always 224 there; the constant keeps lambda4's meaning, at any image size.
    """
    coefficients = torch.cat([_precise(part) for part in (shape, expression, albedo)], 1)
    return coefficients.square().sum(1).mean() / CROP_SIZE


def outlier_area(mask: Mask, region: Region) -> Float[Tensor, ""]:
    """Share of the rendered pixels that S calls outlier, sum over the region of (1 - M) / S_R; the released code adds 0.06 of it for R."""
    return region_mean(1 - mask, region).mean()


def preliminary_mask(photo: Image, rendering: Image, region: Region, threshold: float = 0.17) -> Mask:
    """Eq 9 and 10: 1 for pixels of the region where ||I_T - I_R||^2, summed over the colours, is below xi, else 0; without gradient."""
    is_inlier = _pixel_distance(photo.detach(), rendering.detach()) < threshold
    return (is_inlier & (region > 0)).to(photo.dtype)


def preliminary_mask_likelihood(photo: Image, rendering: Image, region: Region, sigma: float = 0.043, deviations: float = 3.0) -> Mask:
    """The released form of eq 9 and 10: inlier where a Gaussian around I_R is likelier than outliers; without gradient.

    Outliers are equally likely everywhere, as likely as an inlier at so many deviations, so the threshold is (deviations * sigma)^2.
    """
    return preliminary_mask(photo, rendering, region, threshold=(deviations * sigma) ** 2)


def mask_cross_entropy(logits: Mask, target: Mask, region: Region) -> Float[Tensor, ""]:
    """Stage 2: binary cross-entropy of the mask's logits against a target mask, summed over the region, divided by S_R."""
    return region_mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), region).mean()


def _pixel_distance(photo: Image, rendering: Image) -> Float[Tensor, "b h w"]:
    """Squared distance of colours, summed over the channels."""
    return (photo - rendering).square().sum(-1)


def _masked_difference(squared_distance: Float[Tensor, "b h w"], mask: Mask, region: Region, squared: bool) -> Float[Tensor, "b"]:
    """(M d)^2, or M d, averaged over the region."""
    return region_mean(mask.square() * squared_distance if squared else mask * _root(squared_distance), region)


def _root(squared_distance: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Distance, with gradient 0 where it is 0."""
    is_zero = squared_distance == 0
    return squared_distance.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)


def _precise(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """At least single precision: sums over an image or a feature vector overflow half."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
