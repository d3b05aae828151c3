"""Places a detector's points on any face model: render its heads, run the detector on the pictures, keep the points that agree.

Every picture gives each point a place on the mesh. Places on different heads of one model compare, because the mesh is the same; so
the pictures show the mean head from many sides and random people too, and what scatters among them is the point's noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import LandmarkDetector
from focus_backend.landmarks.head_pictures import HeadPicture, head_pictures
from focus_backend.landmarks.surface import hit_points, nearest_points
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

# Part of the key of cached embeddings: raise it when anything here changes the result.
EMBEDDING_VERSION = "1"
# Random people looked at, besides the mean head.
PEOPLE = 48
# A point seen at a shallow angle moves far over the mesh for a small error in the picture.
_LEAST_COSINE = 0.35
_LEAST_SHARE_OF_PICTURES = 0.25
_LARGEST_NOISE = 5.0
_LEAST_NOISE = 0.3
_LEAST_POINTS = 5


@dataclass(frozen=True)
class Embedding:
    """A detector's points on a face model.

    Attributes:
        detector: name of the detector.
        points: the points that could be placed, with the detector's names.
        indices: which of the detector's points they are.
        noise: standard deviation of each along one axis, mm, over people and views.
        dropped: names of the points that could not be placed: hidden inside the mouth, or never at one place.
    """

    detector: str
    points: SurfacePoints
    indices: Int[Tensor, "points"]
    noise: Float[Tensor, "points"]
    dropped: tuple[str, ...]


def embed(model: FaceModel, detector: LandmarkDetector, people: int = PEOPLE) -> Embedding:
    """Places a detector's points on a model, from pictures of its mean head and of random people. Some seconds.

    Raises:
        LandmarkError: the detector sees no face in the model's renders.
    """
    model = model.to("cpu")
    places, visible = [], torch.zeros(len(model.triangles), dtype=torch.bool)
    for picture in head_pictures(model, people):
        found = detector.detect(picture.pixels)
        visible[picture.ids[picture.ids >= 0]] = True
        if found:
            places.append(_places_on_mean(model, picture, found[0].points))
    if len(places) < 3:
        raise LandmarkError(
            f"{detector.name} sees no face in renders of model {model.name!r}",
            "choose another detector with --landmarks, or give your own points",
        )
    return _consensus(model, detector, torch.stack(places), visible)


def _places_on_mean(model: FaceModel, picture: HeadPicture, points: Float[np.ndarray, "points 2"]) -> Float[Tensor, "points 3"]:
    """Where on the mean head each detected point lies, NaN where the picture does not tell."""
    hit, barycentric = hit_points(torch.from_numpy(points), picture.screen.double(), model.triangles, picture.ids)
    is_told = (hit >= 0) & (picture.facing[hit.clamp(min=0)] > _LEAST_COSINE)
    corners = model.mean_shape.double()[model.triangles[hit.clamp(min=0)]]
    places = (corners * barycentric[:, :, None]).sum(1)
    return torch.where(is_told[:, None], places, math.nan)


def _consensus(model: FaceModel, detector: LandmarkDetector, places: Float[Tensor, "pictures points 3"], visible: Tensor) -> Embedding:
    """The middle of each point's places, put back on the surface, and their scatter."""
    count = (~places.isnan().any(-1)).sum(0)
    middle = places.nanmedian(0).values
    distance = (places - middle).norm(dim=-1)
    # Twice a robust deviation: what lies beyond was seen through the nose or guessed in the dark.
    limit = 2 * 1.4826 * distance.nanmedian(0).values.clamp(min=_LEAST_NOISE)
    is_near = (distance < limit) & ~distance.isnan()
    middle = torch.where(is_near[..., None], places, 0.0).sum(0) / is_near.sum(0)[:, None]
    # Two axes on the surface. The median of a two-axis normal's length is 1.1774 standard deviations.
    noise = ((places - middle).norm(dim=-1).nanmedian(0).values / 1.1774).clamp(min=_LEAST_NOISE)
    is_kept = (count >= _LEAST_SHARE_OF_PICTURES * len(places)) & (noise < _LARGEST_NOISE) & ~middle.isnan().any(-1)
    kept = is_kept.nonzero()[:, 0]
    if len(kept) < _LEAST_POINTS:
        raise LandmarkError(
            f"the points of {detector.name} find no steady place on model {model.name!r}", "choose another detector with --landmarks"
        )
    shown = visible.nonzero()[:, 0]
    nearest, barycentric = nearest_points(middle[kept], model.mean_shape.double()[model.triangles[shown]])
    names = detector.point_names
    points = SurfacePoints(tuple(names[i] for i in kept.tolist()), shown[nearest], barycentric.to(model.mean_shape.dtype))
    dropped = tuple(name for name, keep in zip(names, is_kept.tolist(), strict=True) if not keep)
    return Embedding(detector.name, points, kept, noise[kept].to(model.mean_shape.dtype), dropped)
