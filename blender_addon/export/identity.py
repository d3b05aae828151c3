# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identity sliders made part of the head."""

from __future__ import annotations

import re

import bpy
import numpy as np
from numpy import ndarray

from ..shapes import Float32

_IDENTITY = re.compile(r"Identity \d+")


def bake_identity(head: bpy.types.Object) -> None:
    """Moves base and other shape keys by what the identity sliders stand at, and takes the sliders away.

    Args:
        head: a mesh object whose mesh nobody else uses.
    """
    keys = head.data.shape_keys
    sliders = [block for block in keys.key_blocks if _IDENTITY.fullmatch(block.name)] if keys is not None else []
    if not sliders:
        return
    moved = np.zeros(3 * len(head.data.vertices), np.float32)
    for slider in sliders:
        if not slider.mute:
            moved += slider.value * (_points(slider.points) - _points(slider.relative_key.points))
    for slider in sliders:
        head.shape_key_remove(slider)
    for block in keys.key_blocks:
        block.points.foreach_set("co", _points(block.points) + moved)
    head.data.vertices.foreach_set("co", _points(head.data.vertices) + moved)
    head.data.update()


def _points(source: bpy.types.bpy_prop_collection) -> Float32[ndarray, "coordinates"]:
    points = np.empty(3 * len(source), np.float32)
    source.foreach_get("co", points)
    return points
