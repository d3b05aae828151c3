"""Outlier masks against ground truth, counted inside the rendered region, per photo and then averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from train.evaluate.datasets import EvaluationPhoto, EvaluationSet
from train.evaluate.errors import EvaluationError
from train.evaluate.per_photo import ScoreReport, score_photos
from train.evaluate.results import read_masks, read_truth

FACE, NOT_JUDGED = 255, 128
SCORES = ("ACC", "PPV", "TPR", "F1", "IoU")
# Paint on skin is an outlier to a face model but face to its masks: neither answer is wrong.
UNJUDGED_KINDS = frozenset({"paint"})


def evaluate_segmentation(dataset: Path | EvaluationSet, results: Path, *, subset: str | None = None, jobs: int = 1) -> ScoreReport:
    """ACC, PPV, TPR, F1 and IoU of the face masks of finished results.

    Args:
        dataset: with masks.
        results: what `focus-backend reconstruct` wrote.
        subset: of the dataset.
        jobs: processes, 0 for as many as processors.

    Raises:
        EvaluationError: wrong layout, no masks, no usable result.
    """
    return score_photos("segmentation", SCORES, score_masks, dataset, results, subset, jobs)


def score_masks(photo: EvaluationPhoto, folder: Path) -> dict[str, float]:
    """The scores of one result.

    Raises:
        EvaluationError: a mask is missing, damaged or of another shape.
    """
    if photo.mask is None:
        raise EvaluationError(f"photo {photo.name} has no ground-truth mask", "give a dataset with masks")
    face, outlier = read_masks(folder)
    truth = read_truth(photo.mask, face.shape)
    if photo.kind in UNJUDGED_KINDS:
        return dict.fromkeys(SCORES, float("nan"))
    return mask_scores(truth, face, outlier)


def mask_scores(
    truth: UInt8[np.ndarray, "height width"], face: Bool[np.ndarray, "height width"], outlier: Bool[np.ndarray, "height width"]
) -> dict[str, float]:
    """Scores of a face mask, in [0, 1]; face is positive.

    ACC, PPV (precision), TPR (recall) and F1 look at the rendered region alone, so that what the mesh does not reach counts neither
    way. IoU compares the face mask with all of the true face, in the region and outside. What has nothing to count is nan, but a mask that
    finds none of a face that is there has PPV 0.

    Args:
        truth: 255 face, 128 not judged, 0 other.
        face, outlier: together the rendered region.
    """
    judged = truth != NOT_JUDGED
    is_face = truth == FACE
    region = (face | outlier) & judged
    hit, false, missed = (int((region & part).sum()) for part in (face & is_face, face & ~is_face, ~face & is_face))
    size = int(region.sum())
    whole = int((judged & (face | is_face)).sum())
    return {
        "ACC": _ratio(size - false - missed, size),
        "PPV": 0.0 if missed and not hit + false else _ratio(hit, hit + false),
        "TPR": _ratio(hit, hit + missed),
        "F1": _ratio(2 * hit, 2 * hit + false + missed),
        "IoU": _ratio(int((judged & face & is_face).sum()), whole),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
