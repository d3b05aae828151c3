"""How far the truth lies from an encoder's answer, coefficient by coefficient: what a fit that starts from it should allow."""

from __future__ import annotations

import torch
from torch import Tensor

from focus_backend.networks.encoder import Encoder
from focus_backend.networks.frame import DISTANCE, FOCAL_LENGTH_IN_HALF_SIZES
from train.data.batch import FaceSource

_BATCH = 32


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
        misses += [moved[-1] - true for moved, true in zip(encoder.moved_landmarks(outputs), batch.landmarks, strict=True) if len(moved)]
    if encoder.branch is not None:
        encoder.branch.measure(torch.stack(misses) * DISTANCE / (FOCAL_LENGTH_IN_HALF_SIZES * encoder.image_size / 2))
    return {name: [round(value, 4) for value in torch.cat(parts).mean(0).sqrt().tolist()] for name, parts in squares.items()}
