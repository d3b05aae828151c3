"""What the renderer needs of a mesh that does not change with its vertices: triangles, texture corners, region, edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel

Region = Literal["face", "head"]


@dataclass(frozen=True)
class MeshTopology:
    """Connectivity of one triangle mesh, counter-clockwise seen from outside.

    Attributes:
        triangles: vertex indices.
        uv: texture coordinates of each triangle corner, origin bottom left.
        in_region: triangles that are shown; the others only hide what is behind them.
        edges: the two vertices of each edge.
        edge_triangles: the triangles at both sides of each edge, -1 at a border of the mesh.
    """

    triangles: Int[Tensor, "faces 3"]
    uv: Float[Tensor, "faces 3 2"]
    in_region: Bool[Tensor, "faces"]
    edges: Int[Tensor, "edges 2"]
    edge_triangles: Int[Tensor, "edges 2"]

    @classmethod
    def build(
        cls,
        triangles: Int[Tensor, "faces 3"],
        uv: Float[Tensor, "faces 3 2"],
        in_region: Bool[Tensor, "faces"] | None = None,
    ) -> MeshTopology:
        """The topology of a triangle list; without `in_region` every triangle is shown."""
        if in_region is None:
            in_region = torch.ones(len(triangles), dtype=torch.bool, device=triangles.device)
        triangles = triangles.int().contiguous()
        edges, edge_triangles = _edges_of(triangles.cpu().long())
        device = triangles.device
        return cls(triangles, uv.contiguous(), in_region.contiguous(), edges.to(device), edge_triangles.to(device))

    @classmethod
    def of(cls, model: FaceModel, region: Region = "face") -> MeshTopology:
        """The topology of a face model; built once a model and region, kept with the model like its own cached properties."""
        cached = vars(model).setdefault("_rendering_topology", {})
        if region not in cached:
            in_region = model.triangle_in_face if region == "face" else torch.ones_like(model.triangle_in_face)
            cached[region] = cls.build(model.triangles, model.uv[model.triangle_uv], in_region)
        return cached[region]


def _edges_of(triangles: Int[Tensor, "faces 3"]) -> tuple[Int[Tensor, "edges 2"], Int[Tensor, "edges 2"]]:
    """Unique edges and the (up to) two triangles of each; of more than two, as on a non-manifold edge, the first two are kept."""
    count = len(triangles)
    half_edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).sort(dim=1).values
    owner = torch.arange(count).repeat(3)
    edges, edge_of = half_edges.unique(dim=0, return_inverse=True)
    order = torch.argsort(edge_of * count + owner)
    edge_of, owner = edge_of[order], owner[order]
    start = torch.searchsorted(edge_of, torch.arange(len(edges)))
    position = torch.arange(len(edge_of)) - start[edge_of]
    edge_triangles = torch.full((len(edges), 2), -1, dtype=torch.int64)
    is_kept = position < 2
    edge_triangles[edge_of[is_kept], position[is_kept]] = owner[is_kept]
    return edges.int(), edge_triangles.int()
