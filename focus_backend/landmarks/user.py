"""A user's own landmarks: the way out when no detector finds a face; their places on a face model."""

from __future__ import annotations

import torch

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import FIVE_POINT_NAMES
from focus_backend.landmarks.embedding import Embedding
from focus_backend.landmarks.surface import nearest_points
from focus_backend.landmarks.user_points import FIVE_IN_68, LANDMARKS68_NAMES, NAME, NOW_NAMES, check_inside, read_landmarks
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

__all__ = ["LANDMARKS68_NAMES", "NAME", "NOW_NAMES", "check_inside", "embed_names", "read_landmarks"]

# A person's click on an eye or a mouth corner, mm along one axis.
_NOISE = 2.0


def embed_names(model: FaceModel, names: tuple[str, ...]) -> Embedding:
    """Points that a user can name, on a model: the five, the seven of NoW and the 68.

    Raises:
        LandmarkError: the model has no such point.
    """
    triangles, barycentric = zip(*(_place(model, name) for name in names), strict=True)
    points = SurfacePoints(names, torch.stack(triangles), torch.stack(barycentric))
    noise = torch.full((len(names),), _NOISE, dtype=model.mean_shape.dtype, device=model.device)
    return Embedding(NAME, points, torch.arange(len(names), device=model.device), noise, ())


def _place(model: FaceModel, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangle and barycentric weights of a named point."""
    if name in LANDMARKS68_NAMES or (name == "nose_tip"):
        return _pick(model.landmarks68, 30 if name == "nose_tip" else LANDMARKS68_NAMES.index(name), name, model)
    if name in NOW_NAMES:
        return _pick(model.now_landmarks, NOW_NAMES.index(name), name, model)
    return _eye_centre(model, FIVE_IN_68[FIVE_POINT_NAMES.index(name)])


def _pick(points: SurfacePoints, index: int, name: str, model: FaceModel) -> tuple[torch.Tensor, torch.Tensor]:
    if index >= len(points.names):
        raise LandmarkError(f"model {model.name!r} has no point {name!r}", "leave that point out")
    return points.triangles[index], points.barycentric[index]


def _eye_centre(model: FaceModel, lids: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The place on the front of the eye nearest to the middle of its lids."""
    if len(model.landmarks68.names) <= max(lids):
        raise LandmarkError(f"model {model.name!r} has no points of the eyes", "name the corners of the eyes instead")
    vertices = model.mean_shape.double().cpu()
    middle = model.landmarks68.to("cpu").on(vertices.float(), model.triangles.cpu())[list(lids)].double().mean(0)
    corners = vertices[model.triangles.cpu()]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # The lids' middle lies inside the eyeball: start from a little in front, and take what faces there.
    front = (normals[:, 2] > 0).nonzero()[:, 0]
    nearest, barycentric = nearest_points((middle + torch.tensor([0.0, 0.0, 8.0]))[None], corners[front])
    return front[nearest[0]].to(model.device), barycentric[0].to(model.mean_shape)
