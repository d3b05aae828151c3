"""Points that a landmark detector finds on renders of two heads: what lies where before surfaces can be matched."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from calibration.scans import ScanStatistics
from calibration.surface import points_on
from focus_backend.landmarks.embedding import embed
from focus_backend.landmarks.mediapipe import MediaPipeDetector
from focus_backend.morphable.anny_source import AnnyHead
from focus_backend.morphable.face_model import FaceModel, SurfacePoints


def shared_points(head: AnnyHead, scans: ScanStatistics) -> tuple[tuple[ndarray, ndarray], Float[ndarray, "m 3"]]:
    """Points found on both heads: triangles and weights on ours, positions on the scans' mean."""
    detector = MediaPipeDetector()
    padded = np.concatenate([scans.triangles, np.full((len(scans.triangles), 1), -1)], 1)
    ours, theirs = (embed(plain_model(*mesh), detector, people=0) for mesh in ((head.vertices, head.quads), (scans.vertices, padded)))
    common = sorted(set(ours.points.names) & set(theirs.points.names))
    mine, other = ([found.points.names.index(name) for name in common] for found in (ours, theirs))
    places = theirs.points.triangles[other].numpy(), theirs.points.barycentric[other].double().numpy()
    goals = points_on(scans.vertices, scans.triangles, *places)
    return (ours.points.triangles[mine].numpy(), ours.points.barycentric[mine].double().numpy()), goals


def plain_model(vertices: Float[ndarray, "v 3"], quads: Int[ndarray, "q 4"]) -> FaceModel:
    """A head of one colour that has no components."""
    nothing = SurfacePoints((), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3))
    polygons = torch.from_numpy(quads.astype(np.int64))
    return FaceModel(
        name="plain",
        mean_shape=torch.from_numpy(vertices).float(),
        shape_basis=torch.zeros(0, len(vertices), 3),
        expression_basis=torch.zeros(0, len(vertices), 3),
        expression_scale=torch.zeros(0),
        expression_names=(),
        quads=polygons,
        quad_uv=polygons.clamp(max=0),
        uv=torch.full((1, 2), 0.5),
        quad_in_face=torch.ones(len(quads), dtype=torch.bool),
        texture_size=2,
        texels=torch.arange(4),
        albedo_mean=torch.tensor([0.5, 0.32, 0.24]).repeat(4, 1),
        albedo_basis=torch.zeros(0, 4, 3),
        landmarks68=nothing,
        now_landmarks=nothing,
    )
