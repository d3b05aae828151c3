"""Faces that are not trained on: pictures of what the networks make of them, and measures where the truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from train.autoencoder import Parts, Reconstructed, reconstruct, segment
from train.data.batch import FaceSource
from train.masks import MaskOf


@torch.no_grad()
def validate(
    parts: Parts, source: FaceSource, count: int, mask_of: MaskOf | None = None
) -> tuple[dict[str, float], UInt8[np.ndarray, "height width 3"]]:
    """Measures over `count` faces, and a panel of them: photo, reconstruction, mask; a column a face.

    Args:
        parts: the networks; called directly, as one process alone may do.
        source: faces.
        count: how many.
        mask_of: what stands for the mask; None for S.
    """
    parts = parts.unwrapped()
    for network in parts.calls().values():
        network.eval()
    seen = reconstruct(parts, source.batch(0, count))
    mask = segment(parts, seen) if mask_of is None else mask_of(seen)
    return measures(parts.model, seen, mask), panel(seen, mask)


def measures(model: FaceModel, seen: Reconstructed, mask: Float[Tensor, "b h w"]) -> dict[str, float]:
    """What can be measured: landmark error (pixels of a 224 px crop), error of the neutral face region (mm, not aligned), F1 of the mask
    inside the region, RMSE of colours where the mask says face (0 to 255)."""
    found: dict[str, Tensor] = {}
    weight = seen.batch.landmark_weight
    distance = (seen.batch.landmarks - seen.decoded.landmarks).norm(dim=-1).mean(1) * 224 / mask.shape[-1]
    found["landmark_px"] = (weight * distance).sum() / weight.sum().clamp(min=1)
    if seen.batch.theta is not None:
        vertices = model.triangles[model.triangle_in_face].unique()
        difference = model.decode_shape(seen.theta.shape) - model.decode_shape(seen.batch.theta.shape)
        found["shape_mm"] = difference[:, vertices].norm(dim=-1).mean()
    face = (mask > 0.5).float()
    if seen.batch.mask is not None:
        truth = seen.batch.mask * seen.region
        hit = (face * truth).sum((1, 2))
        found["mask_f1"] = (2 * hit / (face.sum((1, 2)) + truth.sum((1, 2))).clamp(min=1)).mean()
    squared = (seen.photo - seen.rendering).square().mean(-1)
    found["colour_rmse"] = 255 * ((squared * face).sum() / face.sum().clamp(min=1)).sqrt()
    return {name: float(value) for name, value in found.items()}


def panel(seen: Reconstructed, mask: Float[Tensor, "b h w"]) -> UInt8[np.ndarray, "height width 3"]:
    """Rows: photo, reconstruction over the photo, mask (green face, red outlier). Columns: faces."""
    photo = seen.photo
    region = seen.region[..., None]
    over = photo * (1 - region) + seen.rendering.clamp(0, 1) * region
    colour = torch.stack([1 - mask, mask, torch.zeros_like(mask)], -1)
    marked = photo * (1 - 0.5 * region) + 0.5 * colour * region
    rows = [torch.cat(list(row), 1) for row in (photo, over, marked)]
    picture = (torch.cat(rows).clamp(0, 1) * 255).byte().cpu().numpy()
    return (
        np.ascontiguousarray(picture) if picture.shape[0] > 300 else cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    )
