"""The face model: coefficients in, posed-free geometry and albedo out (the 3DMM of FOCUS.md, "Parameters theta")."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SurfacePoints:
    """Named points on a triangle mesh, each a triangle and barycentric weights.

    Attributes:
        names: one name a point.
        triangles: index into `FaceModel.triangles`.
        barycentric: weights of that triangle's corners, summing to one.
    """

    names: tuple[str, ...]
    triangles: Int[Tensor, "points"]
    barycentric: Float[Tensor, "points 3"]

    def on(self, vertices: Float[Tensor, "*batch vertices 3"], triangles: Int[Tensor, "faces 3"]) -> Float[Tensor, "*batch points 3"]:
        """Positions of the points on `vertices`, in the frame of `vertices`."""
        corners = vertices[..., triangles[self.triangles], :]
        return (corners * self.barycentric[:, :, None]).sum(-2)

    def to(self, device: torch.device | str) -> SurfacePoints:
        """The same points with their tensors on `device`."""
        return SurfacePoints(self.names, self.triangles.to(device), self.barycentric.to(device))


@dataclass(frozen=True)
class FaceModel:
    """A linear face model. Geometry in model space, millimetres; albedo in linear RGB; coefficients in standard deviations.

    Attributes:
        name: such as "anny".
        metadata: source, licence, units, sha256 and how it was built.
        mean_shape: neutral mean face.
        shape_basis: offset of one standard deviation of each identity component.
        expression_basis: offset of one standard deviation of each expression.
        expression_scale: activation (1 = the full named expression) of one standard deviation.
        expression_names: one name an expression.
        quads: polygons as they came from the source; -1 in the last column pads a triangle.
        quad_uv: index into `uv` of each quad corner, -1 where `quads` is -1.
        uv: texture coordinates in [0, 1], origin bottom left.
        quad_in_face: quads of the face region, the part that is rendered and compared.
        texture_size: the albedo texture has `texture_size` rows and columns.
        texels: flat index (row * texture_size + column, row 0 at the top) of each stored texel.
        albedo_mean: mean albedo of each stored texel.
        albedo_basis: offset of one standard deviation of each albedo component.
        landmarks68: the 68 points of the Multi-PIE scheme, in its order.
        now_landmarks: the 7 points of NoW: subject's right eye outer, inner, left eye inner, outer, nose bottom,
            right and left mouth corner.
    """

    name: str
    mean_shape: Float[Tensor, "vertices 3"]
    shape_basis: Float[Tensor, "shape vertices 3"]
    expression_basis: Float[Tensor, "expression vertices 3"]
    expression_scale: Float[Tensor, "expression"]
    expression_names: tuple[str, ...]
    quads: Int[Tensor, "quads 4"]
    quad_uv: Int[Tensor, "quads 4"]
    uv: Float[Tensor, "uvs 2"]
    quad_in_face: Bool[Tensor, "quads"]
    texture_size: int
    texels: Int[Tensor, "texels"]
    albedo_mean: Float[Tensor, "texels 3"]
    albedo_basis: Float[Tensor, "albedo texels 3"]
    landmarks68: SurfacePoints
    now_landmarks: SurfacePoints
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape_size(self) -> int:
        """Number of shape coefficients."""
        return len(self.shape_basis)

    @property
    def expression_size(self) -> int:
        """Number of expression coefficients."""
        return len(self.expression_basis)

    @property
    def albedo_size(self) -> int:
        """Number of albedo coefficients."""
        return len(self.albedo_basis)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.mean_shape.device

    @cached_property
    def triangles(self) -> Int[Tensor, "faces 3"]:
        """The quads, each cut along its first diagonal: all first halves and second halves in quad order."""
        return _triangulate(self.quads)[0]

    @cached_property
    def triangle_uv(self) -> Int[Tensor, "faces 3"]:
        """Index into `uv` of each triangle corner."""
        corners, _ = _triangulate(self.quad_uv)
        return corners

    @cached_property
    def triangle_in_face(self) -> Bool[Tensor, "faces"]:
        """Triangles of the face region."""
        return self.quad_in_face[_triangulate(self.quads)[1]]

    def decode_shape(
        self,
        shape: Float[Tensor, "*batch shape"],
        expression: Float[Tensor, "*batch expression"] | None = None,
    ) -> Float[Tensor, "*batch vertices 3"]:
        """Vertices in model space, mm; without `expression` the neutral face."""
        vertices = self.mean_shape + torch.tensordot(shape, self.shape_basis, dims=1)
        if expression is not None:
            vertices = vertices + torch.tensordot(expression, self.expression_basis, dims=1)
        return vertices

    def decode_albedo(self, albedo: Float[Tensor, "*batch albedo"]) -> Float[Tensor, "*batch size size 3"]:
        """Albedo texture in linear RGB, row 0 at the top; zero where no texel is stored. Not clamped."""
        values = self.albedo_mean + torch.tensordot(albedo, self.albedo_basis, dims=1)
        flat = values.new_zeros(*values.shape[:-2], self.texture_size**2, 3)
        flat = flat.index_copy(-2, self.texels, values)
        return flat.unflatten(-2, (self.texture_size, self.texture_size))

    def decode(
        self,
        shape: Float[Tensor, "*batch shape"],
        expression: Float[Tensor, "*batch expression"],
        albedo: Float[Tensor, "*batch albedo"],
    ) -> tuple[Float[Tensor, "*batch vertices 3"], Float[Tensor, "*batch size size 3"]]:
        """Vertices (mm, model space) and albedo texture (linear RGB) of coefficients in standard deviations."""
        return self.decode_shape(shape, expression), self.decode_albedo(albedo)

    def to(self, device: torch.device | str) -> FaceModel:
        """The same model with every tensor on `device`."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor | SurfacePoints) else v for k, v in values.items()}
        return FaceModel(**moved)


def _triangulate(quads: Int[Tensor, "quads 4"]) -> tuple[Int[Tensor, "faces 3"], Int[Tensor, "faces"]]:
    """Triangles of (padded) quads and the quad each came from."""
    second = (quads[:, 3] >= 0).nonzero()[:, 0]
    triangles = torch.cat([quads[:, :3], quads[second][:, [0, 2, 3]]])
    return triangles, torch.cat([torch.arange(len(quads), device=quads.device), second])
