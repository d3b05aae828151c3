"""People's skin, hair and eyes: a random population that the albedo basis is drawn from.

Spreads follow what is published where it is: melanin so that the typology angle covers its measured range (about -60 to 60 degrees),
blood as fractions of a few per cent, dark hair and eyes with dark skin and a wide mixture with pale skin, beards for men, grey hair
and lines with age.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from focus_backend.morphable.skin_pigments import Pigments, melanin_for_luminance

LUMINANCE_MEAN, LUMINANCE_SPREAD, LUMINANCE_LIMITS = 0.26, 0.085, (0.05, 0.47)

BLACK_HAIR, BROWN_HAIR, BLOND_HAIR = (0.012, 0.009, 0.0075), (0.070, 0.040, 0.023), (0.24, 0.165, 0.092)
RED_HAIR, GREY_HAIR = (0.16, 0.062, 0.026), (0.30, 0.29, 0.28)
IRIS_COLOURS = np.array([(0.030, 0.015, 0.009), (0.085, 0.042, 0.020), (0.12, 0.105, 0.052), (0.13, 0.185, 0.25), (0.17, 0.19, 0.20)])


@dataclass(frozen=True)
class People:
    """One row a person; colours in linear RGB, lengths in mm, ages and densities in 0..1.

    Attributes:
        pigments: of the skin at large.
        lightness: luminance of the skin at large.
        is_man, age: 0 or 1; 0 (18 years) to 1 (80).
        hair: colour of brows, beard and scalp.
        brow: thickness factor, coverage, raise, arch, reach inwards, tilt.
        beard: coverage of moustache, chin, jaw and cheeks.
        scalp: coverage of the skull by short hair, by a low, a usual and a receding hairline.
        lash: coverage of the upper and lower lid lines.
        lips: change of the logarithm of colour.
        iris, sclera: colours.
        pupil: radius over the iris's.
    """

    pigments: Pigments
    lightness: Float[ndarray, "n"]
    is_man: Float[ndarray, "n"]
    age: Float[ndarray, "n"]
    hair: Float[ndarray, "n 3"]
    brow: Float[ndarray, "n 6"]
    beard: Float[ndarray, "n 4"]
    scalp: Float[ndarray, "n 3"]
    lash: Float[ndarray, "n 2"]
    lips: Float[ndarray, "n 3"]
    iris: Float[ndarray, "n 3"]
    sclera: Float[ndarray, "n 3"]
    pupil: Float[ndarray, "n"]


def sample_people(count: int, random: Generator) -> People:
    """A population of `count` adults of both sexes, all ages and all skin tones."""
    is_man = (random.random(count) < 0.5).astype(float)
    age = random.random(count)
    lightness = _soft_clip(random.normal(LUMINANCE_MEAN, LUMINANCE_SPREAD, count) - 0.008 * (is_man - 0.5), *LUMINANCE_LIMITS)
    pallor = np.clip((lightness - 0.14) / 0.22, 0, 1)
    pigments = _sample_pigments(lightness, pallor, random)
    fairness = _sample_fairness(pallor, random)
    hair = _hair_colour(fairness, age, pallor, random)
    return People(
        pigments=pigments,
        lightness=lightness,
        is_man=is_man,
        age=age,
        hair=hair,
        brow=_sample_brows(is_man, random),
        beard=_sample_beards(is_man, random),
        scalp=_sample_scalps(is_man, age, random),
        lash=np.clip(random.normal((0.72, 0.34), (0.12, 0.12), (count, 2)) + 0.08 * (0.5 - is_man[:, None]), 0.1, 0.95),
        lips=_sample_lips(pallor, is_man, random),
        iris=_iris_colour(fairness, pallor, random),
        sclera=_sclera_colour(age, random),
        pupil=np.clip(random.normal(0.36, 0.05, count), 0.22, 0.55),
    )


def _soft_clip(value: Float[ndarray, "n"], low: float, high: float) -> Float[ndarray, "n"]:
    """Values folded back at the limits, so that none pile up there."""
    folded = np.where(value < low, 2 * low - value, value)
    folded = np.where(folded > high, 2 * high - folded, folded)
    return np.clip(folded, low, high)


def _sample_pigments(lightness: Float[ndarray, "n"], pallor: Float[ndarray, "n"], random: Generator) -> Pigments:
    count = len(lightness)
    blood = 0.034 * np.exp(random.normal(0, 0.28, count))
    oxygenation = np.clip(random.normal(0.75, 0.06, count), 0.5, 0.95)
    carotene = 0.4 * np.exp(random.normal(0, 0.5, count)) + 0.6 * (random.random(count) < 0.3)
    rest = Pigments(np.full(count, 0.1), blood, oxygenation, carotene)
    return Pigments(melanin_for_luminance(lightness, rest), blood, oxygenation, carotene)


def _sample_fairness(pallor: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n"]:
    """0: black hair and dark eyes, 1: blond; only pale skins spread out."""
    fair = random.beta(1.3, 1.9, len(pallor))
    return np.where(random.random(len(pallor)) < 0.62 * pallor, fair, 0.08 * fair)


def _hair_colour(
    fairness: Float[ndarray, "n"], age: Float[ndarray, "n"], pallor: Float[ndarray, "n"], random: Generator
) -> Float[ndarray, "n 3"]:
    black, brown, blond = (np.array(colour) for colour in (BLACK_HAIR, BROWN_HAIR, BLOND_HAIR))
    f = fairness[:, None]
    colour = np.where(f < 0.45, black + (brown - black) * f / 0.45, brown + (blond - brown) * (f - 0.45) / 0.55)
    red = (random.random(len(f)) < 0.05 * pallor)[:, None] * np.clip(f * 2, 0, 1)
    colour = colour + red * (np.array(RED_HAIR) - colour)
    grey = np.clip((age + random.normal(0, 0.15, len(age)) - 0.7) * 2.0, 0, 0.8)[:, None]
    colour = colour + grey * (np.array(GREY_HAIR) - colour)
    return colour * np.exp(random.normal(0, 0.12, len(f)))[:, None]


def _sample_brows(is_man: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 6"]:
    count = len(is_man)
    coverage = np.clip(random.normal(0.66, 0.14, count) + 0.05 * is_man, 0.2, 0.92)
    coverage = np.where(random.random(count) < 0.03, 0.12 * coverage, coverage)
    columns = [
        np.exp(random.normal(0, 0.25, count) + 0.24 * (is_man - 0.5)),
        coverage,
        random.normal(0, 1.5, count) - 1.4 * (is_man - 0.5),
        random.normal(0, 0.9, count) - 1.0 * (is_man - 0.5),
        random.normal(0, 1.6, count) + 1.0 * (is_man - 0.5),
        random.normal(0, 0.035, count),
    ]
    return np.stack(columns, axis=1)


def _sample_scalps(is_man: Float[ndarray, "n"], age: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 3"]:
    """Coverage within a low, a usual and a receding hairline: shaven or thin, as a dark cap would show wherever hair hides the skull."""
    density = np.clip(random.normal(0.34, 0.15, len(age)) - 0.15 * is_man * age, 0.0, 0.8)
    return density[:, None] * random.dirichlet((0.9, 0.9, 0.9), len(age))


def _sample_beards(is_man: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 4"]:
    """Coverage of moustache, chin, jaw, cheeks: shaven shadow, stubble or beard; none for women."""
    count = len(is_man)
    kind = random.random(count)[:, None]
    shadow, stubble, beard = (random.uniform(*limits, (count, 1)) for limits in ((0.02, 0.22), (0.2, 0.48), (0.5, 0.85)))
    overall = np.where(kind < 0.5, shadow, np.where(kind < 0.8, stubble, beard))
    parts = np.array([0.95, 1.0, 0.85, 0.5]) * np.exp(random.normal(0, (0.3, 0.22, 0.3, 0.4), (count, 4)))
    is_goatee = (random.random((count, 1)) < 0.18) & (kind > 0.6)
    parts = parts * np.where(is_goatee, np.array([1.0, 1.1, 0.35, 0.2]), 1.0)
    return np.clip(overall * parts, 0, 0.9) * is_man[:, None]


def _sample_lips(pallor: Float[ndarray, "n"], is_man: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 3"]:
    """Change of log colour from skin to vermilion: redder on pale skin, mostly darker or even on dark skin."""
    count = len(pallor)
    pale, dark = np.array([-0.20, -0.62, -0.44]), np.array([-0.10, -0.28, -0.10])
    base = dark + (pale - dark) * pallor[:, None]
    saturation = np.exp(random.normal(0, 0.25, count) - 0.2 * (is_man - 0.5))[:, None]
    shade = random.normal(0, 0.13, count)[:, None]
    is_painted = ((random.random(count) < 0.22) * (1 - is_man))[:, None]
    paint = is_painted * random.uniform((-0.35, -0.9, -0.7), (0.05, -0.1, 0.05), (count, 3))
    return base * saturation + shade + paint + random.normal(0, 0.05, (count, 3))


def _iris_colour(fairness: Float[ndarray, "n"], pallor: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 3"]:
    count = len(fairness)
    light = np.clip(fairness * 1.6 + random.normal(0, 0.25, count), 0, 1) * pallor
    scores = np.stack([np.exp(-7 * light), 0.55 + 0 * light, 0.8 * light, 1.5 * light**2, 0.5 * light**2], axis=1)
    edges = np.cumsum(scores / scores.sum(1, keepdims=True), axis=1)
    chosen = np.minimum((random.random((count, 1)) > edges).sum(1), len(IRIS_COLOURS) - 1)
    return IRIS_COLOURS[chosen] * np.exp(random.normal(0, 0.2, (count, 1)) + random.normal(0, 0.07, (count, 3)))


def _sclera_colour(age: Float[ndarray, "n"], random: Generator) -> Float[ndarray, "n 3"]:
    count = len(age)
    white = np.array([0.47, 0.43, 0.405])
    yellow = np.array([0.0, -0.03, -0.12]) * (np.abs(random.normal(0, 0.7, count)) * (0.4 + age))[:, None]
    red = np.array([0.0, -0.14, -0.12]) * np.abs(random.normal(0, 0.5, count))[:, None]
    return white * np.exp(yellow + red + random.normal(0, 0.1, (count, 1)))
