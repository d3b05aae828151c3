"""How well the reconstruction's colours explain the photo: root mean square error inside the true face."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from focus_backend.errors import FocusError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.photo import read_photo
from focus_backend.photo_paths import printable
from focus_backend.rendering import Camera
from train.evaluate.datasets import EvaluationPhoto, EvaluationSet
from train.evaluate.errors import EvaluationError
from train.evaluate.per_photo import ScoreReport, score_photos
from train.evaluate.results import read_document, read_masks, read_truth
from train.evaluate.segmentation import FACE

SCORES = ("RMSE",)
# Masks and rendering are of one pass, so that they differ by rounding alone; more is another model or a changed folder.
LEAST_OVERLAP = 0.98


@dataclass(frozen=True)
class RenderedResult:
    """The fitted face in the photo's light.

    Attributes:
        image: sRGB at photo size, valid inside `region`.
        region: where the face was rendered.
    """

    image: UInt8[np.ndarray, "height width 3"]
    region: Bool[np.ndarray, "height width"]


def evaluate_photometric(
    dataset: Path | EvaluationSet, results: Path, *, subset: str | None = None, jobs: int = 1, model: str | Path | None = None
) -> ScoreReport:
    """RMSE between photos and reconstructions.

    Args:
        dataset: photos with masks.
        results: what `focus-backend reconstruct` wrote.
        subset: of the dataset.
        jobs: processes, 0 for as many as processors.
        model: the face model's name or file; without one, the name each result has.

    Raises:
        EvaluationError: wrong layout, no masks, no usable result.
        ModelError: there is no such model.
    """
    if model is not None:
        load_model(model)
    scorer = partial(score_colours, model=None if model is None else str(model))
    return score_photos("photometric", SCORES, scorer, dataset, results, subset, jobs)


def score_colours(photo: EvaluationPhoto, folder: Path, model: str | None = None) -> dict[str, float]:
    """The RMSE of one result on the scale 0..255: over the pixels that are true face and rendered, and their three channels.

    Raises:
        FocusError: photo, mask, result or model cannot be used, or do not belong together.
    """
    if photo.mask is None:
        raise EvaluationError(f"photo {photo.name} has no ground-truth mask", "give a dataset with masks")
    rendered = render_result(folder, model)
    pixels = read_photo(photo.photo).pixels
    if pixels.shape != rendered.image.shape:
        raise EvaluationError(f"photo {printable(photo.name)} has another size than its result", "reconstruct the photo again")
    return {"RMSE": colour_error(pixels, rendered.image, rendered.region & (read_truth(photo.mask, pixels.shape) == FACE))}


def colour_error(
    photo: UInt8[np.ndarray, "height width 3"], rendering: UInt8[np.ndarray, "height width 3"], where: Bool[np.ndarray, "height width"]
) -> float:
    """Root mean square difference of sRGB values, 0..255; nan where there is no pixel to compare."""
    if not where.any():
        return float("nan")
    difference = photo[where].astype(np.float64) - rendering[where].astype(np.float64)
    return float(np.sqrt((difference**2).mean()))


def render_result(folder: Path, model: str | None = None) -> RenderedResult:
    """The rendering of a result, drawn again from its coefficients: the folder keeps only a JPEG of it.

    Raises:
        EvaluationError: the result is damaged, of another version of the model, or its masks show another region.
        ModelError: there is no such model.
    """
    # Not above: the reconstructor brings landmark detectors along.
    from focus_backend.reconstruction.reconstructor import draw

    document = read_document(folder)
    loaded = _model_of(document, folder, model)
    try:
        theta, camera = document["theta"], _camera(document["camera"])
        shape, albedo = (torch.tensor(theta[name], dtype=torch.float32) for name in ("shape", "albedo"))
        expression = torch.tensor([theta["expression"][name] for name in loaded.expression_names], dtype=torch.float32)
        lighting = torch.tensor(document["lighting"], dtype=torch.float32).reshape(9, 3)
        vertices, texture = loaded.decode(shape, expression, albedo)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"the coefficients in {printable(str(folder))} are damaged or of another model"
        raise EvaluationError(problem, "reconstruct the photo again") from error
    with torch.no_grad():
        image, region = draw(loaded, vertices, texture, lighting, camera)
    _check_region(folder, region)
    return RenderedResult(image, region)


def _model_of(document: dict[str, Any], folder: Path, model: str | None) -> FaceModel:
    said = document.get("model") or {}
    loaded = _load_once(model or str(said.get("name", "anny")))
    if said.get("sha256") not in ("", None, loaded.metadata.get("sha256")):
        problem = f"the result {printable(str(folder))} is of another version of the face model {loaded.name}"
        raise EvaluationError(problem, "reconstruct the photo again, or give the model with --model")
    return loaded


@lru_cache(maxsize=1)
def _load_once(name: str) -> FaceModel:
    """Photo after photo is of the same model."""
    return load_model(name)


def _camera(document: dict[str, Any]) -> Camera:
    rotation, translation, principal_point = (
        torch.tensor(document[name], dtype=torch.float32) for name in ("rotation", "translation_mm", "principal_point_px")
    )
    focal = torch.tensor(float(document["focal_length_px"]), dtype=torch.float32)
    return Camera(rotation, translation, focal, principal_point, int(document["width_px"]), int(document["height_px"]))


def _check_region(folder: Path, region: Bool[np.ndarray, "height width"]) -> None:
    try:
        face, outlier = read_masks(folder)
    except FocusError:
        return
    masked = face | outlier
    if masked.shape != region.shape or (masked & region).sum() < LEAST_OVERLAP * (masked | region).sum():
        problem = f"the rendering of {printable(str(folder))} does not fit its masks"
        raise EvaluationError(problem, "reconstruct the photo again, or give the face model with --model")
