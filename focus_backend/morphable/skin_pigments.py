"""Colour of skin from its pigments: a two-layer model, melanin over blood, from spectra to linear RGB.

The epidermis only absorbs (melanin, carotene) and is crossed twice; the dermis scatters and holds blood (Kubelka-Munk, infinitely deep).
Absorption and scattering laws: S. Jacques, "Optical properties of biological tissues", 2013. Haemoglobin: S. Prahl's compilation.
Eye response: the multi-lobe fit of Wyman, Sloan and Shirley, 2013, under D65.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

WAVELENGTHS = np.arange(400.0, 701.0, 20.0)  # nm
# Molar extinction, 1/(cm M), of oxygenated and deoxygenated haemoglobin at WAVELENGTHS.
OXYGENATED = np.array(
    [266232, 480360, 102580, 44480, 26629, 20932, 24202, 53236, 32613, 50104, 3200, 942, 442, 320, 278, 290], dtype=np.float64
)
DEOXYGENATED = np.array(
    [223296, 407560, 413280, 23389, 14550, 20862, 31590, 46592, 53788, 37020, 14677, 6510, 4345, 3227, 2408, 1794], dtype=np.float64
)
# Relative power of daylight (CIE D65) at WAVELENGTHS.
DAYLIGHT = np.array([82.8, 93.4, 104.9, 117.8, 115.9, 109.4, 104.8, 104.4, 100.0, 95.8, 90.0, 87.7, 83.7, 80.2, 78.3, 71.6])
XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
EPIDERMIS_CM = 0.008
SURFACE_REFLECTION = 0.018  # of light that never enters, less the gloss that a cross-polarised or matte capture drops
MELANIN_SPREAD = 0.9  # shape of the gamma distribution of melanin over the skin; infinite = evenly spread
MELANIN_RANGE = (0.002, 4.0)  # effective volume fraction of the epidermis


@dataclass(frozen=True)
class Pigments:
    """Pigment contents of a number of skins.

    Attributes:
        melanin: volume fraction of the epidermis.
        blood: volume fraction of the dermis.
        oxygenation: share of the haemoglobin.
        carotene: in units of a common content.
    """

    melanin: Float[ndarray, "n"]
    blood: Float[ndarray, "n"]
    oxygenation: Float[ndarray, "n"]
    carotene: Float[ndarray, "n"]


def skin_colour(pigments: Pigments) -> Float[ndarray, "n 3"]:
    """Linear RGB albedo of skins."""
    return np.maximum(_reflectance(pigments) @ _response() @ XYZ_TO_RGB.T, 1e-3)


def luminance(colour: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n"]:
    """Relative luminance Y of linear RGB."""
    return colour @ LUMINANCE


def typology_angle(colour: Float[ndarray, "*n 3"]) -> Float[ndarray, "*n"]:
    """Individual typology angle, degrees, of linear RGB: above 55 very light, below -30 dark (Chardon et al., 1991)."""
    xyz = colour @ np.linalg.inv(XYZ_TO_RGB).T / np.array([0.9505, 1.0, 1.089])
    curve = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lightness, yellowness = 116 * curve[..., 1] - 16, 200 * (curve[..., 1] - curve[..., 2])
    return np.degrees(np.arctan2(lightness - 50, yellowness))


def melanin_for_luminance(target: Float[ndarray, "n"], pigments: Pigments) -> Float[ndarray, "n"]:
    """The melanin content that gives each skin its luminance, the other pigments as in `pigments`; within MELANIN_RANGE."""
    low, high = (np.full(len(target), np.log(limit)) for limit in MELANIN_RANGE)
    for _ in range(40):
        middle = (low + high) / 2
        trial = Pigments(np.exp(middle), pigments.blood, pigments.oxygenation, pigments.carotene)
        is_lighter = luminance(skin_colour(trial)) > target
        low, high = np.where(is_lighter, middle, low), np.where(is_lighter, high, middle)
    return np.exp((low + high) / 2)


def log_colour_slopes(pigments: Pigments) -> tuple[Float[ndarray, "n 3"], Float[ndarray, "n 3"]]:
    """Change of the logarithm of colour for melanin, and for blood, times e: first-order effect of local pigment."""
    step = 0.05
    base = np.log(skin_colour(pigments))
    more_melanin = Pigments(pigments.melanin * np.exp(step), pigments.blood, pigments.oxygenation, pigments.carotene)
    more_blood = Pigments(pigments.melanin, pigments.blood * np.exp(step), pigments.oxygenation, pigments.carotene)
    return (np.log(skin_colour(more_melanin)) - base) / step, (np.log(skin_colour(more_blood)) - base) / step


def _reflectance(pigments: Pigments) -> Float[ndarray, "n wavelengths"]:
    """Diffuse reflectance at WAVELENGTHS."""
    nm = WAVELENGTHS
    baseline = 0.244 + 85.3 * np.exp(-(nm - 154) / 66.2)
    melanosome = 6.6e11 * nm**-3.33
    carotene = 14.0 * np.exp(-(((nm - 460) / 38) ** 2))
    melanin = pigments.melanin[:, None]
    clear = (1 - melanin) * baseline + pigments.carotene[:, None] * carotene
    # Melanin is packed in grains over an undulating layer: the mean of exp(-depth) over gamma-distributed optical depths.
    pigmented = (1 + 2 * EPIDERMIS_CM * melanin * melanosome / MELANIN_SPREAD) ** -MELANIN_SPREAD
    epidermis = pigmented * np.exp(-2 * EPIDERMIS_CM * clear)
    share = pigments.oxygenation[:, None]
    blood = 2.303 * 150 / 64500 * (share * OXYGENATED + (1 - share) * DEOXYGENATED)
    # Vessels shade themselves: blood absorbs less than its volume says where it absorbs strongly.
    blood = blood * (1 - np.exp(-0.006 * blood)) / (0.006 * blood)
    content = pigments.blood[:, None]
    dermis = content * blood + (1 - content) * baseline
    scattering = 46 * (nm / 500) ** -1.421
    ratio = 2 * dermis / (0.75 * scattering)
    deep = 1 + ratio - np.sqrt(ratio**2 + 2 * ratio)
    return SURFACE_REFLECTION + (1 - SURFACE_REFLECTION) * epidermis * deep


def _response() -> Float[ndarray, "wavelengths 3"]:
    """Weights from reflectance to XYZ, white at Y = 1."""

    def lobe(peak: float, below: float, above: float) -> Float[ndarray, "wavelengths"]:
        offset = WAVELENGTHS - peak
        return np.exp(-0.5 * (offset * np.where(offset < 0, below, above)) ** 2)

    x = 0.362 * lobe(442.0, 0.0624, 0.0374) + 1.056 * lobe(599.8, 0.0264, 0.0323) - 0.065 * lobe(501.1, 0.0490, 0.0382)
    y = 0.821 * lobe(568.8, 0.0213, 0.0247) + 0.286 * lobe(530.9, 0.0613, 0.0322)
    z = 1.217 * lobe(437.0, 0.0845, 0.0278) + 0.681 * lobe(459.0, 0.0385, 0.0725)
    weights = np.stack([x, y, z], axis=1) * DAYLIGHT[:, None]
    return weights / weights.sum(0) * np.array([0.9505, 1.0, 1.089])
