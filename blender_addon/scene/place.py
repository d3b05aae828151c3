# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a new head stands: in nobody's way, and with a free view from the photo's camera."""

from __future__ import annotations

import bpy
import numpy as np
from numpy import ndarray

from ..head import MatchedCamera
from ..shapes import Float32
from .find import heads
from .marks import role_of
from .selection import shown_view_layers

# Metres from one head to the next.
SPACING = 0.35
# Metres around a head that nothing else may reach into, and behind it where the photo's camera looks.
_CLEARANCE, _BEHIND = 0.6, 1.2
# Metres: what is larger is the scenery that heads stand in, not an obstacle.
_REACH = 20.0
_SOLID = {"MESH", "CURVE", "SURFACE", "META", "FONT", "CURVES", "POINTCLOUD", "VOLUME", "GPENCIL", "GREASEPENCIL"}


def free_place(scene: bpy.types.Scene, camera: MatchedCamera | None, unit_scale: float, begin: float = 0.0) -> tuple[float, float, float]:
    """World coordinates for a new head: the origin, or the first place beside it, along +x, where it and its photo's view are free.

    Only the bounding boxes of visible objects are looked at. A floor that would cut the head lifts it.

    Args:
        scene: where it is to stand.
        camera: of its photo, whose view is to be free; None where that does not matter.
        unit_scale: Blender units a metre.
        begin: where along x to begin.
    """
    spacing, tolerance, lift = SPACING * unit_scale, 1e-4 * unit_scale, 2 * _CLEARANCE * unit_scale
    low, high = _needed_room(camera, unit_scale)
    boxes = _boxes_along_x(scene, low, high + np.array([0, 0, lift]))
    is_scenery = np.abs(boxes).max((1, 2), initial=0) > _REACH * unit_scale
    z = _height_over_floor(boxes[is_scenery], unit_scale)
    obstacles = boxes[~is_scenery & (boxes[:, 0, 2] < z + high[2]) & (boxes[:, 1, 2] > z + low[2])]
    places = [head.location if head.parent is None else head.matrix_world.translation for head in heads(scene)]
    # A head needs less room beside another, so that a group stays together.
    taken = np.array([place[0] for place in places if max(abs(place[1]), abs(place[2] - z)) < spacing])
    x = begin
    while True:
        is_met = (obstacles[:, 0, 0] < x + high[0] - tolerance) & (obstacles[:, 1, 0] > x + low[0] + tolerance)
        ends = [*(obstacles[is_met, 1, 0] - low[0]), *(taken[np.abs(taken - x) < spacing - tolerance] + spacing)]
        if not ends:
            return float(x), 0.0, z
        x = max(ends)


def _needed_room(camera: MatchedCamera | None, unit_scale: float) -> tuple[ndarray, ndarray]:
    """Lowest and highest corner of what has to be free, from the place of the head: around it, and what its camera sees of that."""
    clearance = np.full(3, _CLEARANCE * unit_scale)
    if camera is None:
        return -clearance, clearance
    matrix = camera.matrix.astype(np.float64)
    depth = np.linalg.norm(matrix[:3, 3]) + _BEHIND * unit_scale
    across, down = camera.principal_point_px
    edges = [(x - across, down - y, -camera.focal_length_px) for x in (0, camera.width_px) for y in (0, camera.height_px)]
    seen = np.array(edges) * (depth / camera.focal_length_px) @ matrix[:3, :3].T + matrix[:3, 3]
    # Nobody needs a whole hall to stand in.
    seen = np.clip(np.vstack([seen, matrix[None, :3, 3]]), -0.5 * _REACH * unit_scale, 0.5 * _REACH * unit_scale)
    return np.minimum(seen.min(0), -clearance), np.maximum(seen.max(0), clearance)


def _height_over_floor(scenery: Float32[ndarray, "boxes 2 3"], unit_scale: float) -> float:
    """How high a head has to be for a floor at its height to lie below; 0 for walls, skies and landscapes around it."""
    clearance = _CLEARANCE * unit_scale
    is_here = ((scenery[:, 0, :2] < clearance) & (scenery[:, 1, :2] > -clearance)).all(1)
    tops = scenery[is_here, 1, 2]
    floors = tops[np.abs(tops) < clearance]
    return float(floors.max()) + clearance if len(floors) else 0.0


def _boxes_along_x(scene: bpy.types.Scene, low: ndarray, high: ndarray) -> Float32[ndarray, "boxes 2 3"]:
    """World bounds of the visible objects of the user's that a head would meet on its way along +x, wherever that ends."""
    # All objects of the file: a view layer's own list may still hold such as were removed, and reading them all at once then crashes.
    blocks, view_layers = bpy.data.objects, list(shown_view_layers(scene))
    corners, matrices = _read("bound_box", 24).reshape(-1, 8, 3), _read("matrix_world", 16).reshape(-1, 4, 4)
    # Blender hands matrices over column by column, so they are transposed already.
    corners = corners @ matrices[:, :3, :3] + matrices[:, 3:, :3]
    bounds = np.stack([corners.min(1), corners.max(1)], axis=1)
    is_met = ((bounds[:, 0] < (np.inf, high[1], high[2])) & (bounds[:, 1] > low)).all(1)
    kept = [place for place in np.flatnonzero(is_met) if _is_obstacle(blocks[int(place)], view_layers)]
    return bounds[kept]


def _is_obstacle(block: bpy.types.Object, view_layers: list[bpy.types.ViewLayer]) -> bool:
    return block.type in _SOLID and not role_of(block) and any(block.visible_get(view_layer=each) for each in view_layers)


def _read(name: str, length: int) -> Float32[ndarray, "numbers"]:
    numbers = np.empty(len(bpy.data.objects) * length, np.float32)
    bpy.data.objects.foreach_get(name, numbers)
    return numbers
