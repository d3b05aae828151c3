"""How well an encoder knew coefficients in training, and what its answer therefore tells a fit that starts from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.weights import Weights
from focus_backend.reconstruction.state import CoefficientPrior

# Standard deviations; a coefficient that hardly varied in training is still not known better than this in a photo.
LEAST_SPREAD = 0.1
# Share of the variance that an answer must explain to be heard: below it the answer would mostly be magnified noise.
LEAST_EXPLAINED = 0.1
# Real photos err more than renders.
INFLATION = 1.5
# The training note that tells how much of the entropy of true masks S explained.
MASK_SKILL = "mask_explained"
_REMEDY = "get the weights again, or train them again"


@dataclass(frozen=True)
class EncoderSkill:
    """How well an encoder knows coefficients of one kind, by synthetic faces.

    Attributes:
        spread: root mean square of truth minus answer, standard deviations of the face model.
        variation: root mean square of the truth.
    """

    spread: Float[Tensor, "n"]
    variation: Float[Tensor, "n"]

    def prior(self, answer: Float[Tensor, "n"]) -> CoefficientPrior:
        """What a fit should expect of coefficients of which the encoder says `answer`.

        An answer is the truth as expected among the faces of training, which differ less than the face model allows, mostly in expression.
        What it adds is a measurement of precision 1/spread^2 - 1/variation^2, which joins the face model's own prior.
        """
        explained = 1 - (self.spread / self.variation) ** 2
        is_heard = explained > LEAST_EXPLAINED
        information = torch.where(is_heard, explained / self.spread**2, 0.0) / INFLATION
        measured = torch.where(is_heard, answer / explained, 0.0)
        return CoefficientPrior(measured * information / (1 + information), (1 + information) ** -0.5)


def encoder_skills(weights: Weights, model: FaceModel) -> dict[str, EncoderSkill]:
    """The skill of each kind of coefficient ("shape", "expression", "albedo") of which the weights' training notes tell it.

    The notes `<kind>_spread` and `<kind>_variation` hold one number for all coefficients of a kind or one for each; both are needed.

    Raises:
        WeightsError: a note does not fit the face model or is negative.
    """
    notes = weights.description.get("training", {})
    sizes = {"shape": model.shape_size, "expression": model.expression_size, "albedo": model.albedo_size}
    return {
        kind: EncoderSkill(_numbers(notes, f"{kind}_spread", size).clamp(min=LEAST_SPREAD), _numbers(notes, f"{kind}_variation", size))
        for kind, size in sizes.items()
        if f"{kind}_spread" in notes and f"{kind}_variation" in notes
    }


def mask_skill(weights: Weights) -> float:
    """How much of what hides faces S knew in training, 0 to 1; 0 where that is not noted.

    Raises:
        WeightsError: the note is no number.
    """
    value = weights.description.get("training", {}).get(MASK_SKILL, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WeightsError(f"{MASK_SKILL} of the weights is no number", _REMEDY)
    return min(max(float(value), 0.0), 1.0)


def _numbers(notes: Mapping[str, Any], name: str, size: int) -> Float[Tensor, "n"]:
    value = notes[name]
    values = value if isinstance(value, list) else [value] * size
    numbers = [float(number) for number in values if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) != len(values) or len(values) != size or not all(math.isfinite(n) and n >= 0 for n in numbers):
        raise WeightsError(f"{name} of the weights is not {size} numbers from 0", _REMEDY)
    return torch.tensor(numbers, dtype=torch.float64)
