"""Drawn faces as they reach the networks: through a landmark detector, whose errors are part of what is to be learnt."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from focus_backend.landmarks.crop_landmarks import CropLandmarks
from focus_backend.morphable.face_model import FaceModel
from train.data.batch import FaceBatch, FaceSource


class DetectedFaces:
    """A `FaceSource` over one of larger crops: a detector looks at them, then they shrink. A face that it does not find would never reach
    the networks; another one of the batch takes its place.

    Args:
        source: of the larger crops; faces with exact landmarks and masks, on the CPU.
        model: whose 68 points are wanted.
        detector: its name.
        shrink: how many times larger the crops are.

    Raises:
        ConfigError: there is no such detector.
    """

    def __init__(self, source: FaceSource, model: FaceModel, detector: str, shrink: int) -> None:
        self._source, self._shrink = source, shrink
        self._landmarks = CropLandmarks(model, detector)

    def batch(self, step: int, size: int) -> FaceBatch:
        """The faces of a step, shrunk, with what the detector saw."""
        drawn = self._source.batch(step, size)
        pixels = (drawn.image.clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        found = [self._landmarks.find(*face) for face in zip(pixels, drawn.landmarks.cpu().numpy(), strict=True)]
        rows = [torch.full((68, 2), math.nan) if points is None else torch.from_numpy(points).float() for points in found]
        detected = torch.stack(rows).to(drawn.landmarks)
        smaller = _shrunk(dataclasses.replace(drawn, detected=detected), self._shrink)
        return smaller.chosen(_replacements(detected))


def _shrunk(batch: FaceBatch, times: int) -> FaceBatch:
    """The batch on crops of a `times` smaller side."""
    assert batch.mask is not None
    assert batch.detected is not None
    if times == 1:
        return batch
    outside = max_pool2d((~batch.inside).float()[:, None], times)[:, 0]
    return dataclasses.replace(
        batch,
        image=avg_pool2d(batch.image, times),
        mask=avg_pool2d(batch.mask[:, None], times)[:, 0],
        inside=outside == 0,
        landmarks=batch.landmarks / times,
        detected=batch.detected / times,
    )


def _replacements(detected: Float[Tensor, "b 68 2"]) -> Int[Tensor, "b"]:
    """Which face stands at each place of the batch: itself where it was found, else one that was, in turn."""
    is_found = detected.isfinite().flatten(1).all(1)
    own, found = torch.arange(len(detected), device=detected.device), is_found.nonzero()[:, 0]
    return own if len(found) == 0 else torch.where(is_found, own, found[own % len(found)])
