"""Mirrored faces: theta and landmarks of a picture whose left and right are exchanged, for models whose two sides are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.landmarks.landmarks68 import mirrored68
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.theta import Theta
from focus_backend.rendering import spherical_harmonics

# Millimetres between a vertex and the mirror image of its twin.
_LARGEST_GAP = 0.01
# Share of a mirrored basis that the basis cannot express: none of the geometry; texels lie a little unevenly.
_LARGEST_REST, _LARGEST_ALBEDO_REST = 1e-3, 0.1


@dataclass(frozen=True)
class FaceMirror:
    """How coefficients of one face model change in a mirror.

    Attributes:
        shape, expression, albedo: multiply coefficients from the right.
        lighting: sign of each spherical harmonic.
        order68: for each of the 68 points the one that takes its place.
    """

    shape: Float[Tensor, "shape shape"]
    expression: Float[Tensor, "expression expression"]
    albedo: Float[Tensor, "albedo albedo"]
    lighting: Float[Tensor, "9 1"]
    order68: Int[Tensor, "68"]

    @classmethod
    def of(cls, model: FaceModel) -> FaceMirror | None:
        """The mirror of a model, on its device; None where its sides are not alike."""
        twins = _twins(model.mean_shape)
        if twins is None:
            return None
        flip = model.mean_shape.new_tensor([-1.0, 1.0, 1.0])
        shape, expression = (
            _in_basis(basis, basis[:, twins] * flip, _LARGEST_REST) for basis in (model.shape_basis, model.expression_basis)
        )
        albedo = _albedo(model)
        if shape is None or expression is None or albedo is None:
            return None
        some = torch.nn.functional.normalize(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
        signs = (spherical_harmonics(some) * spherical_harmonics(some * flip.cpu())).sum(0).sign()
        return cls(shape, expression, albedo, signs[:, None].to(flip), torch.from_numpy(mirrored68()).to(model.device))

    def theta(self, theta: Theta) -> Theta:
        """Theta of the mirrored picture."""
        rotation, translation = theta.rotation, theta.translation
        return Theta(
            shape=theta.shape @ self.shape,
            expression=theta.expression @ self.expression,
            albedo=theta.albedo @ self.albedo,
            lighting=theta.lighting * self.lighting,
            rotation=rotation * rotation.new_tensor([1.0, -1.0, -1.0]),
            translation=translation * translation.new_tensor([-1.0, 1.0, 1.0]),
        )

    def landmarks(self, points: Float[Tensor, "*b 68 2"], width: int) -> Float[Tensor, "*b 68 2"]:
        """The 68 points, pixels, of the mirrored picture, which is `width` pixels wide."""
        x, y = points[..., self.order68, :].unbind(-1)
        return torch.stack([width - x, y], -1)


def _twins(vertices: Float[Tensor, "v 3"]) -> Int[Tensor, "v"] | None:
    """The vertex at the mirror image of each; None where there is none."""
    from scipy.spatial import cKDTree

    points = vertices.cpu().numpy()
    gaps, twins = cKDTree(points).query(points * [-1, 1, 1])
    return torch.from_numpy(twins).to(vertices.device) if gaps.max() < _LARGEST_GAP else None


def _albedo(model: FaceModel) -> Float[Tensor, "albedo albedo"] | None:
    """The mirror of albedo by the texels whose mirror image is a texel too."""
    size = model.texture_size
    column = model.texels % size
    opposite = model.texels - column + size - 1 - column
    place = model.texels.new_full((size * size,), -1)
    place[model.texels] = torch.arange(len(model.texels), device=model.device)
    twin = place[opposite]
    has_twin = twin >= 0
    if not bool(has_twin.float().mean() > 1 - _LARGEST_ALBEDO_REST):
        return None
    return _in_basis(model.albedo_basis[:, has_twin], model.albedo_basis[:, twin[has_twin]], _LARGEST_ALBEDO_REST)


def _in_basis(basis: Float[Tensor, "n p 3"], mirrored: Float[Tensor, "n p 3"], largest_rest: float) -> Float[Tensor, "n n"] | None:
    """The matrix by which mirrored coefficients follow; None where the basis cannot express its mirror image."""
    own, wanted = basis.flatten(1).double(), mirrored.flatten(1).double()
    gram = own @ own.T
    matrix = torch.linalg.lstsq(gram, own @ wanted.T).solution.T
    rest = (wanted - matrix @ own).norm() / wanted.norm().clamp(min=1e-12)
    return matrix.float() if rest < largest_rest else None
