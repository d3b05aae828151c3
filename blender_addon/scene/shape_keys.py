# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shape keys of a head: the fitted expression, the 52 expressions, sliders of identity."""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import numpy as np
from numpy import ndarray

from ..head import ShapeKey
from ..planning.names import BASIS, FITTED_EXPRESSION
from ..shapes import Float32

# Which keys are ours, one name a line: the user's own stay when ours go.
_OURS = "focus_mark_shape_keys"


def write_shape_keys(head: bpy.types.Object, vertices: Float32[ndarray, "vertices 3"], keys: Sequence[ShapeKey]) -> None:
    """Brings the shape keys of a head to what the plan says.

    Sliders that were there before stay where the user put them, but for the fitted expression, which the options decide. Keys that
    the user made move along with the neutral head.

    Args:
        vertices: the neutral head, object space.
        keys: in the order of the sliders.
    """
    _remove_keys_no_longer_planned(head, {key.name for key in keys})
    if not keys and head.data.shape_keys is None:
        return
    is_new = head.data.shape_keys is None
    if is_new:
        head.shape_key_add(name=BASIS, from_mix=False)
    _write_basis(head.data.shape_keys, vertices, {key.name for key in keys})
    present = set(head.data.shape_keys.key_blocks.keys())
    for key in keys:
        _write_key(head, key, vertices, key.name not in present)
    head.data[_OURS] = "\n".join(key.name for key in keys)
    if is_new:
        head.active_shape_key_index = 0


def forget_shape_keys(head: bpy.types.Object) -> None:
    """Removes all of them: their vertices are to change."""
    if head.data.shape_keys is not None:
        head.shape_key_clear()
    if _OURS in head.data:
        del head.data[_OURS]


def _remove_keys_no_longer_planned(head: bpy.types.Object, planned: set[str]) -> None:
    if head.data.shape_keys is None:
        return
    for name in str(head.data.get(_OURS, "")).splitlines():
        block = head.data.shape_keys.key_blocks.get(name)
        if name not in planned and block is not None and block != head.data.shape_keys.reference_key:
            head.shape_key_remove(block)


def _write_basis(keys: bpy.types.Key, vertices: Float32[ndarray, "vertices 3"], planned: set[str]) -> None:
    basis = keys.reference_key
    before = _read(basis, len(vertices))
    after = np.ascontiguousarray(vertices, dtype=np.float32).ravel()
    moved = after - before
    basis.points.foreach_set("co", after)
    if not moved.any():
        return
    for block in keys.key_blocks:
        if block != basis and block.name not in planned:
            block.points.foreach_set("co", _read(block, len(vertices)) + moved)


def _read(block: bpy.types.ShapeKey, vertices: int) -> Float32[ndarray, "coordinates"]:
    coordinates = np.empty(3 * vertices, dtype=np.float32)
    block.points.foreach_get("co", coordinates)
    return coordinates


def _write_key(head: bpy.types.Object, key: ShapeKey, vertices: Float32[ndarray, "vertices 3"], is_new: bool) -> None:
    block = head.shape_key_add(name=key.name, from_mix=False) if is_new else head.data.shape_keys.key_blocks[key.name]
    # `points` takes an array at once; the older `data` goes item by item, twenty times slower.
    block.points.foreach_set("co", np.ascontiguousarray(vertices + key.offsets, dtype=np.float32).ravel())
    if not is_new:
        if key.name == FITTED_EXPRESSION:
            block.value = key.value
        return
    block.slider_min, block.slider_max = key.minimum, key.maximum
    block.value = key.value
