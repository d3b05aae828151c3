"""The misfit prior: takes away the bias that the way of fitting itself brings in (eq 11)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def apply_misfit(neutral_vertices: Float[Tensor, "v 3"], misfit: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3"]:
    """Corrected vertices P_v - E_MP (eq 11), mm, model space.

    Args:
        neutral_vertices: P_v, found in a photo, without expression, mm, model space.
        misfit: E_MP, the mean over synthetic faces of what was found minus the truth, mm, model space.
    """
    return neutral_vertices - misfit.to(neutral_vertices)
