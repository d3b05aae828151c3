"""The rasterizer of pytorch3d behind our interface; imported only when asked for."""

from __future__ import annotations

import importlib.util

import torch
from jaxtyping import Float, Int
from torch import Tensor

from focus_backend.errors import MissingDependencyError


def is_pytorch3d_available() -> bool:
    """Whether pytorch3d can be imported, without importing it."""
    return importlib.util.find_spec("pytorch3d") is not None


def rasterize_pytorch3d(
    points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], height: int, width: int, cull_backfaces: bool = False
) -> Int[Tensor, "b h w"]:
    """`rasterize` by pytorch3d: the same ids but for pixel centres on an edge, which it decides in float32.

    Raises:
        MissingDependencyError: pytorch3d is not installed.
    """
    if not is_pytorch3d_available():
        raise MissingDependencyError("pytorch3d is not installed", "use another rasterizer backend, or install pytorch3d from its sources")
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    batch, faces = len(points), len(triangles)
    corners = _drop_undrawable(to_ndc(points, height, width)[:, triangles.long()], cull_backfaces)
    # Each triangle gets corners of its own, so that one can be dropped without its neighbours.
    own = torch.arange(3 * faces, device=points.device).view(1, faces, 3).expand(batch, -1, -1)
    meshes = Meshes(corners.flatten(1, 2), own)
    packed_ids = rasterize_meshes(meshes, image_size=(height, width), blur_radius=0.0, faces_per_pixel=1, perspective_correct=True)[0]
    packed_ids = packed_ids[..., 0]
    # pytorch3d numbers the triangles of the whole batch in one go.
    return torch.where(packed_ids < 0, -1, packed_ids % faces)


def to_ndc(points: Float[Tensor, "b v 3"], height: int, width: int) -> Float[Tensor, "b v 3"]:
    """Screen points in pytorch3d's frame: x left, y up, the shorter image side spans [-1, 1]."""
    size = points.new_tensor([width, height])
    plane = (size - 2 * points[..., :2]) / min(height, width)
    return torch.cat([plane, points[..., 2:]], dim=-1)


def _drop_undrawable(corners: Float[Tensor, "b f 3 3"], cull_backfaces: bool) -> Float[Tensor, "b f 3 3"]:
    """Collapse triangles that our rasterizer does not draw into one far point, which has no area and covers no pixel."""
    x, y, depth = corners.unbind(-1)
    # Both axes are flipped against the screen, so the sign of the area is that of the screen: negative is the outside.
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])
    is_drawn = ((area < 0) if cull_backfaces else (area != 0)) & corners.isfinite().all(-1).all(-1) & (depth > 0).all(-1)
    return torch.where(is_drawn[..., None, None], corners, corners.new_tensor([1e3, 1e3, 1.0]))
