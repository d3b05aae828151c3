# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where new heads stand, and what is selected once they are there."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from .find import heads

# Metres from one head to the next.
SPACING = 0.35


def free_place(scene: bpy.types.Scene, unit_scale: float) -> tuple[float, float, float]:
    """World coordinates for a new head: the origin, or the first place beside it, along +x, where no head stands."""
    spacing = SPACING * unit_scale
    taken = [head.location if head.parent is None else head.matrix_world.translation for head in heads(scene)]
    for place in range(len(taken) + 1):
        x = place * spacing
        if all(abs(other[0] - x) >= 0.5 * spacing or max(abs(other[1]), abs(other[2])) >= spacing for other in taken):
            break
    return x, 0.0, 0.0


def select_head(head: bpy.types.Object, scene: bpy.types.Scene, *, alone: bool) -> None:
    """Selects a head where the scene is shown; the first of a photo alone, and as the active object.

    Nothing changes for a user who is in the middle of editing another object.
    """
    for view_layer in _shown_view_layers(scene):
        active = view_layer.objects.active
        if active is not None and active.mode != "OBJECT":
            continue
        others = [block for block in view_layer.objects.selected if block != head] if alone else []
        try:
            head.select_set(True, view_layer=view_layer)
        except RuntimeError:
            # The view layer leaves out the head's collection.
            continue
        for block in others:
            block.select_set(False, view_layer=view_layer)
        if alone:
            view_layer.objects.active = head


def _shown_view_layers(scene: bpy.types.Scene) -> Iterator[bpy.types.ViewLayer]:
    names = {window.view_layer.name for window in bpy.context.window_manager.windows if window.scene == scene}
    shown = [view_layer for view_layer in scene.view_layers if view_layer.name in names]
    return iter(shown or [scene.view_layers[0]])
