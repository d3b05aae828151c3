"""How far the truth lies from an encoder's answer, coefficient by coefficient: what a fit that starts from it should allow."""

from __future__ import annotations

import contextlib
import math

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample, max_pool2d

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.encoder import Encoder
from focus_backend.networks.frame import DISTANCE, FOCAL_LENGTH_IN_HALF_SIZES, CropFrame
from focus_backend.networks.segmentation import SegmentationNetwork
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits, mask_logits, reconstruct
from train.data.batch import FaceBatch, FaceSource

_BATCH = 32
# How near the seen face has to be to a point, for outlines lie on its edge; share of the crop.
_BESIDE = 0.01


@torch.no_grad()
def measure_errors(encoder: Encoder, faces: FaceSource, count: int) -> dict[str, list[float]]:
    """Root mean square of truth minus answer of each shape, expression and albedo coefficient, and of the truth itself ("variation").
    An encoder that moves landmarks is told how wrong those are.

    Args:
        encoder: in evaluation mode.
        faces: synthetic ones.
        count: how many, rounded up to whole batches.

    Returns:
        `shape_spread`, `shape_variation` and so on, standard deviations of the face model.
    """
    squares: dict[str, list[Tensor]] = {}
    misses: list[Tensor] = []
    seen: list[Tensor] = []
    for step in range(-(-count // _BATCH)):
        # Steps that neither pictures nor the misfit look at.
        batch = faces.batch(1_000 + step, _BATCH)
        assert batch.theta is not None
        outputs = encoder.outputs(batch.image, batch.detected)
        found = encoder.theta(outputs)
        for name in ("shape", "expression", "albedo"):
            true = getattr(batch.theta, name)
            squares.setdefault(f"{name}_spread", []).append((true - getattr(found, name)).square())
            squares.setdefault(f"{name}_variation", []).append(true.square())
        if encoder.branch is not None:
            misses.append(encoder.moved_landmarks(outputs)[:, -1] - batch.landmarks)
            seen.append(_seen(batch))
    if encoder.branch is not None:
        millimetres = DISTANCE / (FOCAL_LENGTH_IN_HALF_SIZES * encoder.image_size / 2)
        encoder.branch.measure(torch.cat(misses) * millimetres, torch.cat(seen))
    return {name: [round(value, 4) for value in torch.cat(parts).mean(0).sqrt().tolist()] for name, parts in squares.items()}


@torch.no_grad()
def measure_mask(
    encoder: Encoder, segmentation: SegmentationNetwork, model: FaceModel, frame: CropFrame, faces: FaceSource, count: int
) -> float:
    """Share of the entropy of the true masks, inside the rendered regions, that S explains: 1 for an S that knows, 0 for one that does not.

    Args:
        encoder, segmentation: in evaluation mode.
        model: the face model.
        frame: of the crops.
        faces: synthetic ones.
        count: how many, rounded up to whole batches.
    """
    calls = EncoderOutputs(encoder), SegmentationLogits(segmentation)
    parts = Parts(model, frame, encoder, segmentation, *calls, None, contextlib.nullcontext)
    loss, face, pixels = 0.0, 0.0, 0.0
    for step in range(-(-count // _BATCH)):
        batch = faces.batch(1_000 + step, _BATCH)
        assert batch.mask is not None
        seen = reconstruct(parts, batch)
        region = seen.region > 0
        logits, true = mask_logits(parts, seen)[region], batch.mask[region]
        loss += float(binary_cross_entropy_with_logits(logits, true, reduction="sum"))
        face, pixels = face + float(true.sum()), pixels + len(true)
    share = min(max(face / max(pixels, 1.0), 1e-6), 1 - 1e-6)
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    return round(1 - loss / max(pixels, 1.0) / entropy, 4)


def _seen(batch: FaceBatch) -> Bool[Tensor, "b 68"]:
    """The 68 points beside which the face is seen."""
    assert batch.mask is not None
    reach = max(1, round(_BESIDE * batch.image.shape[-1]))
    face = max_pool2d(batch.mask[:, None], 2 * reach + 1, 1, reach)
    places = 2 * batch.landmarks / batch.image.shape[-1] - 1
    return grid_sample(face, places[:, None], mode="nearest", align_corners=False)[:, 0, 0] > 0.5
