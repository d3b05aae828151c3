"""Edge crossings in plain torch, for CUDA and as a check of the compiled path; the same rules as `kernels_raster.find_edge_crossings`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.rendering.rasterize import expand_counts, is_drawable
from focus_backend.rendering.topology import MeshTopology


def edge_crossings_torch(
    points: Float[Tensor, "b v 3"], ids: Int[Tensor, "b h w"], topology: MeshTopology, tolerance: float
) -> Int[Tensor, "n 7"]:
    """(image, edge, axis, row inside, column inside, row outside, column outside) of each visible crossing."""
    points = points.double()
    size = torch.tensor([ids.shape[2], ids.shape[1]], device=ids.device)
    image, edge, kind, front = _silhouette_edges(points, topology)
    ends = points[image[:, None], topology.edges.long()[edge]]
    axis = ((ends[:, 1, 1] - ends[:, 0, 1]).abs() < (ends[:, 1, 0] - ends[:, 0, 0]).abs()).long()
    along, across = _pick(ends, axis), _pick(ends, 1 - axis)
    slope = (along[:, 1] - along[:, 0]) / (across[:, 1] - across[:, 0])
    corners = topology.triangles.long()[front]
    third = points[image, corners.sum(1) - topology.edges.long()[edge].sum(1)][:, None]
    is_inside_low = _pick(third, axis)[:, 0] - along[:, 0] < slope * (_pick(third, 1 - axis)[:, 0] - across[:, 0])
    lines = size[1 - axis]
    first = torch.minimum((across.amin(1) - 0.5).ceil().clamp(min=0), lines).long()
    last = torch.minimum((across.amax(1) - 0.5).floor().clamp(min=-1), lines - 1).long()
    counts = torch.where(across[:, 0] == across[:, 1], 0, (last - first + 1).clamp(min=0))
    pair, offset = expand_counts(counts)
    line = first[pair] + offset
    crossing = along[pair, 0] + slope[pair] * (line + 0.5 - across[pair, 0]) - 0.5
    on_grid = (crossing >= 0) & (crossing < size[axis[pair]] - 1)
    pair, line, crossing = pair[on_grid], line[on_grid], crossing[on_grid]
    low, is_low, axis = crossing.long(), is_inside_low[pair], axis[pair]
    inside, outside = torch.where(is_low, low, low + 1), torch.where(is_low, low + 1, low)
    fraction = (line + 0.5 - across[pair, 0]) / (across[pair, 1] - across[pair, 0])
    nearness = (1.0 - fraction) / ends[pair, 0, 2] + fraction / ends[pair, 1, 2]
    pixel_in, pixel_out = _pixel(axis, inside, line), _pixel(axis, outside, line)
    found = torch.cat([image[pair, None], edge[pair, None], axis[:, None], pixel_in, pixel_out], dim=1)
    is_visible = _is_visible(points, ids, topology, kind[pair], nearness, found, tolerance)
    return _farthest_out(found[is_visible], (crossing - inside).abs()[is_visible], ids.shape)


def _pick(values: Float[Tensor, "n k d"], axis: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
    return values.gather(2, axis[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


def _pixel(axis: Int[Tensor, "n"], along: Int[Tensor, "n"], line: Int[Tensor, "n"]) -> Int[Tensor, "n 2"]:
    """(row, column) of a pixel `along` its axis."""
    return torch.stack([torch.where(axis == 0, line, along), torch.where(axis == 0, along, line)], dim=1)


def _silhouette_edges(points: Float[Tensor, "b v 3"], topology: MeshTopology) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, edge, kind (1 silhouette or border, 2 border of the region) and inner triangle of each edge to consider."""
    triangles, sides = topology.triangles.long(), topology.edge_triangles.long()
    corners = points[:, triangles]
    x, y, depth = corners.unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])
    drawable = is_drawable(x.flatten(0, 1), y.flatten(0, 1), depth.flatten(0, 1)).view(area.shape)
    is_front = ((area < 0) & drawable)[:, sides.clamp(min=0)] & (sides >= 0)
    in_region = topology.in_region[sides.clamp(min=0)]
    both, one = is_front.all(-1), is_front.any(-1)
    kind = torch.where(both, torch.where(in_region[:, 0] == in_region[:, 1], 0, 2), one.long())
    image, edge = kind.nonzero(as_tuple=True)
    kind = kind[image, edge]
    takes_first = torch.where(kind == 2, in_region[edge, 0], is_front[image, edge, 0])
    return image, edge, kind, torch.where(takes_first, sides[edge, 0], sides[edge, 1])


def _nearness_at(
    points: Float[Tensor, "b v 3"], topology: MeshTopology, image: Int[Tensor, "n"], ids: Int[Tensor, "n"], pixel: Int[Tensor, "n 2"]
) -> Float[Tensor, "n"]:
    """1 / depth at a pixel (row, column) of the plane of a triangle."""
    corners = points[image[:, None], topology.triangles.long()[ids.clamp(min=0)]]
    x, y = corners[..., 0] - (pixel[:, 1:] + 0.5), corners[..., 1] - (pixel[:, :1] + 0.5)
    weights = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)
    return (weights / corners[..., 2]).sum(1) / weights.sum(1)


def _is_visible(
    points: Float[Tensor, "b v 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
    kind: Int[Tensor, "n"],
    nearness: Float[Tensor, "n"],
    found: Int[Tensor, "n 7"],
    tolerance: float,
) -> Bool[Tensor, "n"]:
    """Whether each edge is what separates its two pixels."""
    image, pixel_in, pixel_out = found[:, 0], found[:, 3:5], found[:, 5:7]
    id_in, id_out = ids[image, pixel_in[:, 0], pixel_in[:, 1]], ids[image, pixel_out[:, 0], pixel_out[:, 1]]
    near_in = _nearness_at(points, topology, image, id_in, pixel_in)
    near_out = _nearness_at(points, topology, image, id_out, pixel_out)
    shown_in = (id_in >= 0) & topology.in_region[id_in.clamp(min=0)]
    shown_out = (id_out >= 0) & topology.in_region[id_out.clamp(min=0)]
    is_surface = near_in >= nearness * (1.0 - tolerance)
    is_beside = ((near_in - nearness).abs() <= tolerance * nearness) & ((near_out - nearness).abs() <= tolerance * nearness)
    against_mesh = torch.where(kind == 1, (near_out < nearness) & is_surface, is_beside & shown_in & ~shown_out)
    return (id_in >= 0) & (shown_in | shown_out) & torch.where(id_out < 0, is_surface, against_mesh)


def _farthest_out(found: Int[Tensor, "n 7"], extent: Float[Tensor, "n"], shape: torch.Size) -> Int[Tensor, "m 7"]:
    """One crossing for each pair of pixels: the one farthest from the inner pixel, the first of equals."""
    batch, height, width = shape
    row, column = torch.minimum(found[:, 3], found[:, 5]), torch.minimum(found[:, 4], found[:, 6])
    slot = ((found[:, 0] * 2 + found[:, 2]) * height + row) * width + column
    order = torch.arange(len(found), device=found.device)
    key = (extent.float().view(torch.int32).long() << 32) | (0x7FFFFFFF - order)
    best = key.new_full((batch * 2 * height * width,), -1).scatter_reduce(0, slot, key, "amax")
    return found[best[slot] == key]
