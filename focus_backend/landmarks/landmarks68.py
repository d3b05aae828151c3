"""The 68 points of the Multi-PIE scheme from the points of any detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.calibration import DetectorCalibration
from focus_backend.landmarks.embedding import Embedding
from focus_backend.morphable.face_model import FaceModel

# Detected points that carry each of the 68. On 60 renders of random people the mean error is 3.8 mm with 4, 2.9 with 8 to 24; the
# largest weights shrink with the number.
_NEIGHBOURS = 12
_LEAST_NEIGHBOURS = 4
# Which point takes the place of which in a mirrored picture: jaw, brows, nose, eyes, outer and inner lip.
_MIRRORED = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46),
    *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)


def mirrored68() -> Int[np.ndarray, "68"]:
    """For each of the 68 points the one that takes its place when the picture is mirrored."""
    return np.array(_MIRRORED)


@dataclass(frozen=True)
class Landmarks68:
    """Turns the points of one detector into the 68 points of one face model.

    Each of the 68 is a weighted mean of detected points near it. The weights reproduce its place on the mean head, so any affine
    motion of the head, hence any pose seen from afar, carries it along exactly.

    Attributes:
        matrix: weight of each of the detector's points, rows summing to 1; zero for points that have no place on the model.
    """

    matrix: Float[np.ndarray, "68 points"]

    @classmethod
    def of(cls, model: FaceModel, calibration: DetectorCalibration, point_count: int | None = None) -> Landmarks68:
        """For a detector with this calibration on this model.

        Args:
            model: any face model.
            calibration: of the detector; see `calibration_store.calibration_for`.
            point_count: how many points the detector gives; by default up to the last that was placed.

        Raises:
            LandmarkError: the model lacks the 68 points, or fewer than four of the detector's points were placed.
        """
        return cls.from_embedding(model, calibration.embedding, point_count)

    @classmethod
    def from_embedding(cls, model: FaceModel, embedding: Embedding, point_count: int | None = None) -> Landmarks68:
        """As `of`, without the noise."""
        model = model.to("cpu")
        vertices = model.mean_shape.double()
        targets = model.landmarks68.on(vertices, model.triangles)
        carriers = embedding.points.to("cpu").on(vertices, model.triangles)
        _check(model, embedding, len(targets), len(carriers))
        indices = embedding.indices.cpu()
        matrix = np.zeros((68, point_count or int(indices.max()) + 1))
        for row, target in zip(matrix, targets, strict=True):
            near = (carriers - target).norm(dim=1).argsort(stable=True)[:_NEIGHBOURS]
            row[indices[near].numpy()] = affine_weights(target, carriers[near]).numpy()
        return cls(matrix)

    def __call__(self, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "68 2"]:
        """The 68 points, in the frame of `points`: all points of a detection, in the detector's order.

        Raises:
            LandmarkError: another number of points than this was made for.
        """
        count = self.matrix.shape[1]
        # Points after the last one with a place may have been left out of the matrix.
        if len(points) < count:
            raise LandmarkError(
                f"{len(points)} points where the detector gives {count}", "use the detector that the points were placed for"
            )
        return self.matrix @ points[:count]


def affine_weights(target: Float[Tensor, "3"], points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
    """The smallest weights that sum to 1 and put the weighted mean of `points` on `target`, or as near as it gets where they are flat."""
    middle = points.mean(0)
    # Equal weights are orthogonal to every correction that keeps the sum, so the sum of both is the smallest.
    return 1 / len(points) + torch.linalg.pinv((points - middle).T) @ (target - middle)


def _check(model: FaceModel, embedding: Embedding, targets: int, carriers: int) -> None:
    if targets != 68:
        raise LandmarkError(f"model {model.name!r} has {targets} of the 68 landmarks", "choose a model that has them all")
    if carriers < _LEAST_NEIGHBOURS:
        raise LandmarkError(
            f"only {carriers} points of {embedding.detector} have a place on model {model.name!r}",
            "choose another detector with --landmarks",
        )
