"""How far the truth lies from an encoder's answer, coefficient by coefficient: what a fit that starts from it should allow."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from focus_backend.networks.encoder import Encoder
from focus_backend.networks.frame import DISTANCE, FOCAL_LENGTH_IN_HALF_SIZES
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


def _seen(batch: FaceBatch) -> Bool[Tensor, "b 68"]:
    """The 68 points beside which the face is seen."""
    assert batch.mask is not None
    reach = max(1, round(_BESIDE * batch.image.shape[-1]))
    face = max_pool2d(batch.mask[:, None], 2 * reach + 1, 1, reach)
    places = 2 * batch.landmarks / batch.image.shape[-1] - 1
    return grid_sample(face, places[:, None], mode="nearest", align_corners=False)[:, 0, 0] > 0.5
