"""How light a face's skin is: the individual typology angle (Chardon 1991) of its albedo, and the six groups it is divided into."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering.texture_atlas import TextureAtlas

# Each group's least angle in degrees, lightest first.
TONES = {"very light": 55.0, "light": 41.0, "intermediate": 28.0, "tan": 10.0, "brown": -30.0, "dark": -90.0}
# Linear sRGB to XYZ (IEC 61966-2-1), and the white it is seen under (D65).
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(1)


def typology_angle(skin: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """ITA = atan((L* - 50) / b*), degrees, of albedos in linear RGB; the lighter the larger."""
    share = (skin @ _TO_XYZ.T) / _WHITE
    # CIE 1976, with its straight piece for near black.
    response = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, yellow = 116 * response[:, 1] - 16, 200 * (response[:, 1] - response[:, 2])
    # Skin is yellowish; where it is not, the angle keeps to the side of its lightness.
    return np.degrees(np.arctan2(lightness - 50, np.maximum(yellow, 1e-6)))


def tone_of(angle: float) -> str:
    """The group of an angle in degrees."""
    return next(name for name, least in TONES.items() if angle > least or name == "dark")


class SkinSampler:
    """Tells the skin colour of people of a face model.

    Args:
        model: the face model, on the CPU.
    """

    def __init__(self, model: FaceModel) -> None:
        atlas = TextureAtlas.of(model, model.texture_size)
        is_skin = (atlas.face_weight > 0) & atlas.is_main[atlas.triangles]
        place = torch.full((model.texture_size**2,), -1).index_copy(0, model.texels, torch.arange(len(model.texels)))
        chosen: Int[Tensor, "texels"] = place[torch.from_numpy(is_skin).flatten()]
        chosen = chosen[chosen >= 0]
        self._mean, self._basis = model.albedo_mean[chosen], model.albedo_basis[:, chosen]

    def lightness_axis(self) -> Float[Tensor, "albedo"]:
        """The direction of albedo coefficients, a unit vector, along which skin gets lighter fastest."""
        rise = self._basis.mean(1) @ torch.tensor(_TO_XYZ[1], dtype=self._basis.dtype)
        return rise / rise.norm()

    def __call__(self, albedo: Float[Tensor, "b albedo"]) -> Float[np.ndarray, "b 3"]:
        """Skin of people (standard deviations), linear RGB: the median over the face, of which lips, brows and beards are a small part."""
        texels = self._mean + torch.einsum("bk,ktc->btc", albedo, self._basis)
        return texels.median(dim=1).values.clamp(1e-4, 1).double().numpy()
