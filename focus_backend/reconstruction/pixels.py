"""The visible face as a table of pixels: what each shows, what the model predicts there, and the derivatives (eq 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.landmark_fit import pose_jacobian, project_with_slope
from focus_backend.reconstruction.state import FaceState
from focus_backend.rendering import Camera, encode_srgb, rasterize_model
from focus_backend.rendering.camera import cross_matrix
from focus_backend.rendering.lighting import SH_BAND1, SH_BAND2, SH_BAND2_XX_YY, SH_BAND2_ZZ, SRGB_GAMMA, SRGB_KNEE, SRGB_OFFSET, SRGB_SLOPE

# Below this linear value the photo is noise; it also keeps the slope of the sRGB curve bounded.
_LEAST_RADIANCE = 2e-3


class PixelTables:
    """What fitting needs of a face model beside the model, computed once: bases arranged for fast gathers.

    Attributes:
        model: the face model.
        geometry: shape then expression offsets, one row a vertex, [vertices 3 * geometry].
        texel_mean, texel_basis: albedo by stored texel, [texels 3] and [texels 3 * albedo].
    """

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        basis = torch.cat([model.shape_basis, model.expression_basis])
        self.geometry_size = len(basis)
        self.geometry = basis.permute(1, 2, 0).contiguous()
        self.texel_mean = model.albedo_mean
        self.texel_basis = model.albedo_basis.permute(1, 2, 0).contiguous()
        size = model.texture_size
        stored = torch.full((size * size,), -1, dtype=torch.int64, device=model.device)
        stored[model.texels] = torch.arange(len(model.texels), device=model.device)
        self._stored = stored
        near = _ring(model.triangles, model.triangle_in_face)
        self.normal_triangles = model.triangles[near]
        corners = self.geometry[self.normal_triangles]
        self._edge_basis = (corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self._to_vertices = _incidence(self.normal_triangles, len(model.mean_shape))

    def texel(self, uv: Float[Tensor, "pixels 2"]) -> Int[Tensor, "pixels"]:
        """Stored texel nearest to texture coordinates; -1 where none is stored."""
        size = self.model.texture_size
        column = (uv[:, 0] * size).long().clamp(0, size - 1)
        row = ((1 - uv[:, 1]) * size).long().clamp(0, size - 1)
        return self._stored[row * size + column]

    def normals_with_slope(
        self, vertices: Float[Tensor, "vertices 3"]
    ) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "vertices 3 geometry"]]:
        """Unit vertex normals near the face region (model space) and their derivative by shape and expression."""
        corners = vertices[self.normal_triangles]
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        face = torch.linalg.cross(first, second)
        # Of a cross product by each coefficient: (d first) x second + first x (d second).
        slope = cross_matrix(first) @ self._edge_basis[1] - cross_matrix(second) @ self._edge_basis[0]
        stacked = torch.cat([face[..., None], slope], -1).flatten(1)
        summed = torch.sparse.mm(self._to_vertices, stacked).unflatten(1, (3, -1))
        normal, slope = summed[..., 0], summed[..., 1:]
        length = normal.norm(dim=-1).clamp(min=1e-9)
        unit = normal / length[:, None]
        tangent = torch.eye(3, device=unit.device) - unit[:, :, None] * unit[:, None, :]
        return unit, (tangent / length[:, None, None]) @ slope


def _ring(triangles: Int[Tensor, "faces 3"], chosen: Bool[Tensor, "faces"]) -> Bool[Tensor, "faces"]:
    """The chosen triangles and those that share a vertex with them."""
    touched = torch.zeros(int(triangles.max()) + 1, dtype=torch.bool, device=triangles.device)
    touched[triangles[chosen].flatten()] = True
    return touched[triangles].any(-1)


def _incidence(triangles: Int[Tensor, "faces 3"], vertices: int) -> Tensor:
    """Sparse [vertices faces] matrix that sums over the triangles around each vertex."""
    faces = torch.arange(len(triangles), device=triangles.device).repeat_interleave(3)
    index = torch.stack([triangles.flatten(), faces])
    values = torch.ones(index.shape[1], device=triangles.device)
    return torch.sparse_coo_tensor(index, values, (vertices, len(triangles)), check_invariants=True).coalesce()


@dataclass(frozen=True)
class VisiblePixels:
    """The pixels of a picture that show the face region, and what the model knows of each.

    Attributes:
        rows, columns: of the pixels.
        corners: vertices of the triangle seen.
        barycentric: weights of those corners.
        texels: stored texel seen.
    """

    rows: Int[Tensor, "pixels"]
    columns: Int[Tensor, "pixels"]
    corners: Int[Tensor, "pixels 3"]
    barycentric: Float[Tensor, "pixels 3"]
    texels: Int[Tensor, "pixels"]

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, keep: Bool[Tensor, "pixels"]) -> VisiblePixels:
        """Only the pixels where `keep` is true."""
        return VisiblePixels(self.rows[keep], self.columns[keep], self.corners[keep], self.barycentric[keep], self.texels[keep])

    def interpolate(self, values: Float[Tensor, "vertices *rest"]) -> Float[Tensor, "pixels *rest"]:
        """Vertex values at the pixels."""
        weights = self.barycentric.view(len(self), 3, *[1] * (values.ndim - 1))
        return (values[self.corners] * weights).sum(1)

    def scatter(self, values: Tensor, height: int, width: int, fill: float = 0.0) -> Tensor:
        """Pixel values [pixels *rest] as a picture [height width *rest]."""
        picture = values.new_full((height, width, *values.shape[1:]), fill)
        picture[self.rows, self.columns] = values
        return picture


def visible_pixels(tables: PixelTables, vertices: Float[Tensor, "vertices 3"], camera: Camera) -> VisiblePixels:
    """The pixels that show the face region of `vertices` (model space, mm)."""
    model = tables.model
    seen = rasterize_model(model, vertices[None].float(), camera)
    rows, columns = (seen.triangle_ids[0] >= 0).nonzero(as_tuple=True)
    triangle = seen.triangle_ids[0][rows, columns]
    barycentric = seen.barycentric[0][rows, columns]
    uv = (model.uv[model.triangle_uv[triangle]] * barycentric[..., None]).sum(1)
    texels = tables.texel(uv)
    kept = texels >= 0
    return VisiblePixels(rows[kept], columns[kept], model.triangles[triangle[kept]], barycentric[kept], texels[kept])


@dataclass(frozen=True)
class Prediction:
    """What the model predicts at visible pixels.

    Attributes:
        colour: sRGB-encoded.
        shading: linear RGB.
        albedo: linear RGB.
    """

    colour: Float[Tensor, "pixels 3"]
    shading: Float[Tensor, "pixels 3"]
    albedo: Float[Tensor, "pixels 3"]


def predict(tables: PixelTables, state: FaceState, pixels: VisiblePixels, harmonics: Float[Tensor, "pixels 9"]) -> Prediction:
    """Colours of the pixels under a state's albedo and lighting."""
    shading = harmonics @ state.lighting.float()
    albedo = tables.texel_mean[pixels.texels] + tables.texel_basis[pixels.texels] @ state.albedo.float()
    return Prediction(encode_srgb((albedo * shading).clamp(min=_LEAST_RADIANCE)), shading, albedo)


def appearance_jacobian(
    tables: PixelTables, pixels: VisiblePixels, harmonics: Float[Tensor, "pixels 9"], prediction: Prediction
) -> Float[Tensor, "pixels 3 appearance"]:
    """Derivative of the predicted colours by albedo coefficients, then by the 27 of lighting."""
    gain = srgb_slope(prediction.albedo * prediction.shading)
    albedo = (gain * prediction.shading)[..., None] * tables.texel_basis[pixels.texels]
    channel = torch.diag_embed(gain * prediction.albedo)
    lighting = (harmonics[:, None, :, None] * channel[:, :, None, :]).flatten(2)
    return torch.cat([albedo, lighting], -1)


def srgb_slope(linear: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Derivative of the sRGB curve; 0 where the prediction is clamped."""
    slope = (1 + SRGB_OFFSET) / SRGB_GAMMA * linear.clamp(min=SRGB_KNEE) ** (1 / SRGB_GAMMA - 1)
    slope = torch.where(linear > SRGB_KNEE, slope, torch.full_like(linear, SRGB_SLOPE))
    return torch.where(linear > _LEAST_RADIANCE, slope, torch.zeros_like(linear))


def geometry_jacobian(
    tables: PixelTables,
    state: FaceState,
    vertices: Float[Tensor, "vertices 3"],
    pixels: VisiblePixels,
    prediction: Prediction,
    gradient: Float[Tensor, "pixels 3 2"],
    camera: Camera,
    beat: Beat = quiet,
) -> Float[Tensor, "pixels 3 geometry_and_pose"]:
    """Derivative of (photo - predicted colour) by shape and expression, then by the pose.

    The photo is sampled where the surface point projects to, hence its `gradient` (by column, by row); the shading turns with the normal.
    `beat` is called at every part of the work.
    """
    rotation = state.rotation.float()
    normals, normal_slope = tables.normals_with_slope(vertices)
    beat()
    turned = pixels.interpolate(vertices) @ rotation.T
    position = turned + state.translation.float()
    screen, slope = project_with_slope(position, camera.focal_length, camera.principal_point)
    by_position = gradient @ slope
    by_colour = srgb_slope(prediction.albedo * prediction.shading) * prediction.albedo
    normal = torch.nn.functional.normalize(pixels.interpolate(normals) @ rotation.T, dim=-1)
    by_normal = by_colour[..., None] * torch.einsum("pkj,kc->pcj", harmonics_slope(normal), state.lighting.float())
    geometry = (by_position @ rotation) @ pixels.interpolate(tables.geometry)
    beat()
    geometry -= (by_normal @ rotation) @ pixels.interpolate(normal_slope)
    beat()
    pose = gradient @ pose_jacobian(slope, turned, screen - camera.principal_point)
    pose[..., :3] += by_normal @ cross_matrix(normal)
    return torch.cat([geometry, pose], -1)


def harmonics_slope(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 9 3"]:
    """Derivative of `spherical_harmonics` by the normal."""
    x, y, z = normals.unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows = [
        (zero, zero, zero),
        (zero, SH_BAND1 * one, zero),
        (zero, zero, SH_BAND1 * one),
        (SH_BAND1 * one, zero, zero),
        (SH_BAND2 * y, SH_BAND2 * x, zero),
        (zero, SH_BAND2 * z, SH_BAND2 * y),
        (zero, zero, 6 * SH_BAND2_ZZ * z),
        (SH_BAND2 * z, zero, SH_BAND2 * x),
        (2 * SH_BAND2_XX_YY * x, -2 * SH_BAND2_XX_YY * y, zero),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def image_gradient(picture: Float[np.ndarray, "height width 3"]) -> Float[Tensor, "height width 3 2"]:
    """Derivative of a picture by column and by row, per pixel (Scharr's kernel)."""
    import cv2

    by_column, by_row = (cv2.Scharr(picture, cv2.CV_32F, *order) / 32 for order in ((1, 0), (0, 1)))
    return torch.from_numpy(np.stack([by_column, by_row], -1))
