"""Edge crossings in plain torch, for CUDA and as a check of the compiled path; the same rules as `kernels_antialias.find_edge_crossings`.

Every shape follows from the sizes of mesh and image, so the host never waits for the device. Lists that depend on the picture have a
fixed capacity instead; what exceeds it, the edges of highest index, is left out. A head needs a fifth to a third of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.rendering.rasterize import ID_MASK, is_drawable
from focus_backend.rendering.topology import MeshTopology

# Room in an image, per pixel of its height and width: for places where any silhouette edge meets a line of pixels, seen or not, and for
# visible crossings.
CANDIDATES_PER_BORDER_PIXEL = 32
CROSSINGS_PER_BORDER_PIXEL = 8


class Silhouettes(NamedTuple):
    """What each edge of the mesh is in each picture.

    Attributes:
        kind: 1 silhouette or border of the mesh, 2 border of the region within the surface, 0 neither.
        inner: the triangle inside of it; meaningless for kind 0.
    """

    kind: Int[Tensor, "b e"]
    inner: Int[Tensor, "b e"]


class Candidates(NamedTuple):
    """Where edges meet the lines through pixel centres that they could separate; n is the batch times a fixed number.

    Attributes:
        image: index in the batch.
        edge: of the mesh.
        line: row (steep edges) or column (level edges).
        is_real: the others fill up the list and mean nothing.
    """

    image: Int[Tensor, "n"]
    edge: Int[Tensor, "n"]
    line: Int[Tensor, "n"]
    is_real: Bool[Tensor, "n"]


@torch.no_grad()
def edge_crossings_torch(
    points: Float[Tensor, "b v 3"], ids: Int[Tensor, "b h w"], topology: MeshTopology, tolerance: float
) -> Int[Tensor, "n 7"]:
    """(image, edge, axis, row inside, column inside, row outside, column outside) of each visible crossing, and rows of -1 to fill up."""
    batch, height, width = ids.shape
    if ids.numel() == 0 or len(topology.edges) == 0:
        return ids.new_empty(0, 7)
    points = points.double()
    silhouettes = classify_edges(points, topology)
    candidates = _find_candidates(points, silhouettes.kind, topology, height, width)
    found, extent, is_visible = _cross(points, ids, topology, silhouettes, candidates, tolerance)
    is_kept = _is_farthest_out(found, extent, is_visible, ids.shape)
    return _compact(found, is_kept, batch, CROSSINGS_PER_BORDER_PIXEL * (height + width))


def classify_edges(points: Float[Tensor, "b v 3"], topology: MeshTopology) -> Silhouettes:
    """Kind and inner triangle of every edge."""
    triangles, sides = topology.triangles.long(), topology.edge_triangles.long()
    x, y, depth = points[:, triangles].unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])
    drawable = is_drawable(x.flatten(0, 1), y.flatten(0, 1), depth.flatten(0, 1)).view(area.shape)
    is_front = ((area < 0) & drawable)[:, sides.clamp(min=0)] & (sides >= 0)
    in_region = topology.in_region[sides.clamp(min=0)]
    both, one = is_front.all(-1), is_front.any(-1)
    kind = torch.where(both, torch.where(in_region[:, 0] == in_region[:, 1], 0, 2), one.long())
    takes_first = torch.where(kind == 2, in_region[:, 0], is_front[..., 0])
    return Silhouettes(kind, torch.where(takes_first, sides[:, 0], sides[:, 1]))


def _find_candidates(
    points: Float[Tensor, "b v 3"], kind: Int[Tensor, "b e"], topology: MeshTopology, height: int, width: int
) -> Candidates:
    """Number the lines that the silhouette edges meet, edge by edge, into a list of fixed length for each image."""
    batch, edges = kind.shape
    ends = points[:, topology.edges.long()]
    axis = _axis_of(ends)
    across = torch.where(axis[..., None] == 0, ends[..., 1], ends[..., 0])
    lines = torch.where(axis == 0, height, width)
    first = torch.minimum((across.amin(-1) - 0.5).ceil().clamp(min=0), lines)
    last = torch.minimum((across.amax(-1) - 0.5).floor().clamp(min=-1), lines - 1)
    # A vertex that is not finite belongs to no drawn triangle.
    counts = torch.where((kind > 0) & (across[..., 0] != across[..., 1]), (last - first + 1).clamp(min=0), 0).long()
    until = counts.cumsum(1)
    place = torch.arange(CANDIDATES_PER_BORDER_PIXEL * (height + width), device=kind.device).expand(batch, -1).contiguous()
    edge = torch.searchsorted(until, place, right=True).clamp(max=edges - 1)
    offset = place - (until - counts).gather(1, edge)
    line = torch.where(first.isfinite(), first, 0).long().gather(1, edge) + offset
    image = torch.arange(batch, device=kind.device)[:, None].expand_as(edge)
    return Candidates(image.flatten(), edge.flatten(), line.flatten(), (place < until[:, -1:]).flatten())


def _axis_of(ends: Float[Tensor, "*n 2 3"]) -> Int[Tensor, "*n"]:
    """0 for steep edges, which separate neighbours in a row, 1 for level ones, which separate neighbours in a column."""
    change = (ends[..., 1, :] - ends[..., 0, :]).abs()
    return (change[..., 1] < change[..., 0]).long()


def _cross(
    points: Float[Tensor, "b v 3"],
    ids: Int[Tensor, "b h w"],
    topology: MeshTopology,
    silhouettes: Silhouettes,
    candidates: Candidates,
    tolerance: float,
) -> tuple[Int[Tensor, "n 7"], Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Each candidate as a row of the result, how far the edge lies from the inner pixel's centre, and whether it is a visible crossing."""
    image, edge, line, is_real = candidates
    kind, inner = silhouettes.kind[image, edge], silhouettes.inner[image, edge]
    vertices = topology.edges.long()[edge]
    ends = points[image[:, None], vertices]
    axis = _axis_of(ends)
    along, across = _along_and_across(ends, axis)
    slope = (along[:, 1] - along[:, 0]) / (across[:, 1] - across[:, 0])
    third = points[image, topology.triangles.long()[inner].sum(1) - vertices.sum(1)][:, None]
    third_along, third_across = _along_and_across(third, axis)
    is_low = third_along[:, 0] - along[:, 0] < slope * (third_across[:, 0] - across[:, 0])
    crossing = along[:, 0] + slope * (line + 0.5 - across[:, 0]) - 0.5
    columns = torch.where(axis == 0, ids.shape[2], ids.shape[1])
    is_real = is_real & (crossing >= 0) & (crossing < columns - 1)
    low, line = torch.where(is_real, crossing, 0).long(), torch.where(is_real, line, 0)
    inside, outside = torch.where(is_low, low, low + 1), torch.where(is_low, low + 1, low)
    # Images of one row or column have no second pixel.
    outside = torch.minimum(outside, columns - 1)
    inside = torch.minimum(inside, columns - 1)
    fraction = (line + 0.5 - across[:, 0]) / (across[:, 1] - across[:, 0])
    nearness = (1.0 - fraction) / ends[:, 0, 2] + fraction / ends[:, 1, 2]
    pixel_in, pixel_out = _pixel(axis, inside, line), _pixel(axis, outside, line)
    found = torch.cat([image[:, None], edge[:, None], axis[:, None], pixel_in, pixel_out], dim=1)
    is_visible = is_real & _is_visible(points, ids, topology, kind, nearness, found, tolerance)
    return found, (crossing - inside).abs(), is_visible


def _along_and_across(ends: Float[Tensor, "n k 3"], axis: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The coordinate along each one's axis, and the other."""
    is_row = (axis == 0)[:, None]
    x, y = ends[..., 0], ends[..., 1]
    return torch.where(is_row, x, y), torch.where(is_row, y, x)


def _pixel(axis: Int[Tensor, "n"], along: Int[Tensor, "n"], line: Int[Tensor, "n"]) -> Int[Tensor, "n 2"]:
    """(row, column) of a pixel `along` its axis."""
    return torch.stack([torch.where(axis == 0, line, along), torch.where(axis == 0, along, line)], dim=1)


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


def _is_farthest_out(
    found: Int[Tensor, "n 7"], extent: Float[Tensor, "n"], is_visible: Bool[Tensor, "n"], shape: torch.Size
) -> Bool[Tensor, "n"]:
    """One crossing for each pair of pixels: the one farthest from the inner pixel, the lowest edge of equals."""
    batch, height, width = shape
    row, column = torch.minimum(found[:, 3], found[:, 5]), torch.minimum(found[:, 4], found[:, 6])
    slots = batch * 2 * height * width
    slot = ((found[:, 0] * 2 + found[:, 2]) * height + row) * width + column
    # Candidates that are none write nothing, to places far from each other, where they do not wait for one another.
    slot = torch.where(is_visible, slot, torch.arange(len(slot), device=slot.device) % slots)
    key = torch.where(is_visible, (extent.float().view(torch.int32).long() << 32) | (ID_MASK - found[:, 1]), -1)
    best = key.new_full((slots,), -1).scatter_reduce(0, slot, key, "amax")
    return is_visible & (best[slot] == key)


def _compact(found: Int[Tensor, "n 7"], is_kept: Bool[Tensor, "n"], batch: int, capacity: int) -> Int[Tensor, "m 7"]:
    """The kept rows of each image in their order, followed by rows of -1 up to the capacity."""
    count = is_kept.view(batch, -1).cumsum(1)
    number = torch.arange(1, capacity + 1, device=found.device).expand(batch, -1).contiguous()
    place = torch.searchsorted(count, number).clamp(max=count.shape[1] - 1)
    rows = found.view(batch, -1, 7).gather(1, place[..., None].expand(-1, -1, 7))
    return torch.where((number <= count[:, -1:])[..., None], rows, -1).flatten(0, 1)
