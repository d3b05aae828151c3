"""Where on the texture lies what: lips, brows, beard, iris, freckles ... as maps over the stored texels.

Everything is computed from the geometry: landmarks are read off the mesh (rims of the skin, profile in the middle), every texel
knows its place on the head, and maps are drawn in a reference frame in which the landmarks of any mean head fall on the same millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from focus_backend.errors import ModelError
from focus_backend.morphable.uv_atlas import UvMesh, border_loops, mesh_islands, name_islands, ramp

DILATION = 4.0  # texels stored beyond an island's edge, so that bilinear sampling at seams meets skin

# Millimetres of the reference frame: heights of landmarks, half distances of pupils and mouth corners.
REFERENCE_HEIGHTS = {"chin": -106.0, "mouth": -67.4, "subnasale": -46.0, "eyes": 0.0}
REFERENCE_EYE_X, REFERENCE_MOUTH_X = 29.6, 21.7

# Contours in the reference frame: (x, y) knots for x >= 0, from measured landmark positions on a mean head.
UPPER_LIP = ((0.0, -60.6), (5.5, -59.4), (12.5, -61.3), (17.0, -64.2), (20.0, -66.2), (22.6, -68.3))
LOWER_LIP = ((0.0, -80.0), (7.0, -79.6), (13.0, -77.0), (18.0, -73.3), (20.5, -70.7), (22.6, -68.3))
BROW_LINE = ((9.0, 10.8), (14.0, 12.2), (26.0, 15.0), (37.0, 16.8), (45.0, 15.2), (52.0, 11.2), (58.0, 6.5))
BROW_HALF_WIDTH = ((9.0, 3.2), (14.0, 3.8), (26.0, 3.6), (38.0, 2.9), (48.0, 1.9), (58.0, 0.8))
HAIRLINE = ((0.0, 66.0), (22.0, 67.0), (40.0, 62.0), (52.0, 55.0), (60.0, 40.0))
TEMPLE_LINE = ((-10.0, -54.0), (0.0, -52.0), (20.0, -46.0), (40.0, -34.0), (60.0, -12.0), (75.0, 4.0))  # (y, z)
NASOLABIAL = ((15.5, -36.0), (20.0, -44.0), (24.5, -54.0), (28.0, -66.0))
EYE_BAG = ((14.0, -7.0), (20.0, -13.0), (29.0, -16.0), (37.0, -14.5), (43.0, -10.0))
BEARD_LINE = ((0.0, -60.0), (24.0, -60.0), (34.0, -56.0), (48.0, -46.0), (60.0, -30.0), (70.0, -10.0))


@dataclass(frozen=True)
class TexelPlaces:
    """The stored texels of an atlas and where each lies on the head.

    Attributes:
        texels: flat index, row 0 at the top, ascending.
        position: model space, mm.
        normal: unit normal of the triangle's surface, smooth.
        role: name of the texel's island ("head", "eye_front", ...).
    """

    texels: Int[ndarray, "t"]
    position: Float[ndarray, "t 3"]
    normal: Float[ndarray, "t 3"]
    role: ndarray


@dataclass(frozen=True)
class HeadLandmarks:
    """Landmarks read off the mesh, model space, mm."""

    eye_centres: Float[ndarray, "2 3"]  # subject's right, left
    eye_radius: float
    lid_rims: Float[ndarray, "n 3"]
    mouth_y: float
    mouth_x: float
    nose_tip: Float[ndarray, "3"]
    subnasale_y: float
    chin_y: float
    nostrils: Float[ndarray, "pits 3"]


def place_texels(
    points: Float[ndarray, "v 3"], quads: Int[ndarray, "q 4"], uv: Float[ndarray, "u 2"], quad_uv: Int[ndarray, "q 4"], size: int
) -> tuple[TexelPlaces, HeadLandmarks]:
    """The texels of the atlas with their places, and the landmarks that the maps are drawn by."""
    mesh = mesh_islands(quads, uv, quad_uv)
    roles = name_islands(mesh, points, quads)
    triangles = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
    corners = np.concatenate([quad_uv[:, :3], quad_uv[:, [0, 2, 3]]])
    owner, weights = _cover(uv[corners], size)
    far, nearest = distance_transform_edt(owner < 0, return_indices=True)
    stored = np.flatnonzero(far.ravel() <= DILATION)
    source = (nearest[0] * size + nearest[1]).ravel()[stored]
    triangle, weight = owner.ravel()[source], weights.reshape(-1, 3)[source]
    normals = _vertex_normals(points, triangles)
    normal = (normals[triangles[triangle]] * weight[..., None]).sum(1)
    places = TexelPlaces(
        texels=stored,
        position=(points[triangles[triangle]] * weight[..., None]).sum(1),
        normal=normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9),
        role=np.array([name for name, _ in roles])[np.concatenate([mesh.island, mesh.island])[triangle]],
    )
    return places, _find_landmarks(mesh, roles, points, quads, normals)


def _cover(corners: Float[ndarray, "f 3 2"], size: int) -> tuple[Int[ndarray, "size size"], Float[ndarray, "size size 3"]]:
    """Triangle (-1: none) and barycentric weights at each texel's centre."""
    owner = np.full((size, size), -1, dtype=np.int64)
    weights = np.zeros((size, size, 3))
    pixels = np.stack([corners[..., 0] * size - 0.5, (1 - corners[..., 1]) * size - 0.5], axis=-1)
    low = np.maximum(np.ceil(pixels.min(1) - 1e-9).astype(int), 0)
    high = np.minimum(np.floor(pixels.max(1) + 1e-9).astype(int), size - 1)
    for f in np.flatnonzero((low <= high).all(1)):
        (ax, ay), (bx, by), (cx, cy) = pixels[f]
        doubled = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(doubled) < 1e-12:
            continue
        x, y = np.meshgrid(np.arange(low[f, 0], high[f, 0] + 1), np.arange(low[f, 1], high[f, 1] + 1))
        first = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / doubled
        second = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / doubled
        inside = (first >= -1e-9) & (second >= -1e-9) & (first + second <= 1 + 1e-9)
        owner[y[inside], x[inside]] = f
        weights[y[inside], x[inside]] = np.stack([first, second, 1 - first - second], axis=-1)[inside]
    return owner, weights


def _vertex_normals(points: Float[ndarray, "v 3"], triangles: Int[ndarray, "f 3"]) -> Float[ndarray, "v 3"]:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    total = np.stack([np.bincount(triangles.ravel(), np.repeat(face[:, k], 3), minlength=len(points)) for k in range(3)], axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _find_landmarks(
    mesh: UvMesh, roles: list[tuple[str, float]], points: Float[ndarray, "v 3"], quads: Int[ndarray, "q 4"], normals: Float[ndarray, "v 3"]
) -> HeadLandmarks:
    """Eyes from the eyeballs, mouth and lids from the skin's rims, nose and chin from the profile in the middle."""
    centres, radii = [], []
    for side in (-1.0, 1.0):
        front = points[np.unique(quads[mesh.island == roles.index(("eye_front", side))])]
        low, high = front.min(0), front.max(0)
        centres.append(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]))
        radii.append((high[0] - low[0]) / 2)
    rims = [points[mesh.vertex[loop]] for loop in border_loops(mesh.quad_uv[mesh.island == 0])]
    mouths = [rim for rim in rims if rim[:, 0].min() < 0 < rim[:, 0].max() and np.ptp(rim[:, 1]) < 40]
    lids = [rim for rim in rims if rim[:, 0].min() > 0 or rim[:, 0].max() < 0]
    if len(mouths) != 1 or len(lids) < 2:
        raise ModelError(f"the skin has {len(mouths)} mouth and {len(lids)} eye openings", "use a head with one mouth and two eyes")
    mouth = mouths[0]
    skin = np.unique(quads[mesh.island == 0])
    tip = points[skin[np.argmax(points[skin, 2])]]
    profile = points[skin[(np.abs(points[skin, 0]) < 1.0) & (normals[skin, 2] > -0.3) & (points[skin, 2] > -20)]]
    mouth_y = float(mouth[np.abs(mouth[:, 0]) < 1.5, 1].mean())
    above = profile[(profile[:, 1] < tip[1]) & (profile[:, 1] > mouth_y + 0.5 * (tip[1] - mouth_y))]
    below = profile[profile[:, 1] < mouth_y]
    pit = skin[(np.abs(points[skin] - tip) < np.array([18.0, 15.0, 25.0])).all(1) & (normals[skin, 2] < -0.1)]
    return HeadLandmarks(
        eye_centres=np.array(centres),
        eye_radius=float(np.mean(radii)),
        lid_rims=np.concatenate([_dense(rim) for rim in lids]),
        mouth_y=mouth_y,
        mouth_x=float(np.abs(mouth[:, 0]).max()),
        nose_tip=tip,
        subnasale_y=float(above[np.argmin(above[:, 2] - 0.6 * above[:, 1]), 1]),
        chin_y=float(below[np.argmax(0.5 * below[:, 2] - 0.866 * below[:, 1]), 1]),
        nostrils=points[pit],
    )


def _dense(rim: Float[ndarray, "n 3"]) -> Float[ndarray, "m 3"]:
    """A closed polyline with ten points a side."""
    steps = np.linspace(0, 1, 10, endpoint=False)[:, None, None]
    return (rim * (1 - steps) + np.roll(rim, -1, axis=0) * steps).reshape(-1, 3)


def reference_frame(places: TexelPlaces, marks: HeadLandmarks) -> Float[ndarray, "t 3"]:
    """Places with the landmarks of this head moved onto the reference heights and widths; x stays signed."""
    heights = [marks.chin_y, marks.mouth_y, marks.subnasale_y, marks.eye_centres[:, 1].mean()]
    wanted = list(REFERENCE_HEIGHTS.values())
    knots, values = [heights[0] - 1000, *heights, heights[3] + 1000], [wanted[0] - 1000, *wanted, wanted[3] + 1000]
    y = np.interp(places.position[:, 1], knots, values)
    eye_scale = REFERENCE_EYE_X / np.abs(marks.eye_centres[:, 0]).mean()
    x_scale = np.interp(y, [wanted[1], wanted[2]], [REFERENCE_MOUTH_X / marks.mouth_x, eye_scale])
    return np.stack([places.position[:, 0] * x_scale, y, places.position[:, 2]], axis=1)


def curve_height(x: Float[ndarray, "t"], knots: tuple[tuple[float, float], ...]) -> Float[ndarray, "t"]:
    """Height of a smooth symmetric curve through knots at |x|; beyond the ends the end value."""
    # Quadratic rounding of a piecewise line: mean over a window, so that the contour has no corners.
    table = np.array(knots)
    offsets = np.linspace(-2.0, 2.0, 7)
    return np.mean([np.interp(np.abs(np.abs(x) + d), table[:, 0], table[:, 1]) for d in offsets], axis=0)


def near_curve(place: Float[ndarray, "t 3"], knots: tuple[tuple[float, float], ...], width: float) -> Float[ndarray, "t"]:
    """Soft stripe around a symmetric curve drawn in the (|x|, y) plane; `width` is its sigma in mm."""
    table = np.array(knots)
    along = np.linspace(0, 1, 60) * (len(table) - 1)
    points = np.stack([np.interp(along, np.arange(len(table)), table[:, k]) for k in range(2)], axis=1)
    distance, nearest = cKDTree(points).query(np.stack([np.abs(place[:, 0]), place[:, 1]], axis=1))
    ends = np.sin(np.pi * np.clip((nearest + 3) / (len(points) + 5), 0, 1)) ** 0.5
    return np.exp(-0.5 * (distance / width) ** 2) * ends


def blob(place: Float[ndarray, "t 3"], centre: tuple[float, float], size: tuple[float, float]) -> Float[ndarray, "t"]:
    """Soft spot at (+-x, y) of the reference frame."""
    return np.exp(-0.5 * (((np.abs(place[:, 0]) - centre[0]) / size[0]) ** 2 + ((place[:, 1] - centre[1]) / size[1]) ** 2))


def in_front(place: Float[ndarray, "t 3"], low: float | int = -30, high: float | int = -10) -> Float[ndarray, "t"]:
    """1 on the front of the face, 0 behind."""
    return ramp(place[:, 2], low, high)


def is_skin(places: TexelPlaces) -> Bool[ndarray, "t"]:
    """Texels of skin: all but eyeballs, inside of the mouth and tongue."""
    return np.isin(places.role, ["head", "neck", "eye_cavity"])
