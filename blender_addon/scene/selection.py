# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is selected once new heads are there."""

from __future__ import annotations

from collections.abc import Iterator

import bpy


def select_head(head: bpy.types.Object, scene: bpy.types.Scene, *, alone: bool) -> None:
    """Selects a head where the scene is shown; the first of a photo alone, and as the active object.

    Nothing changes for a user who is in the middle of editing another object.
    """
    for view_layer in shown_view_layers(scene):
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


def shown_view_layers(scene: bpy.types.Scene) -> Iterator[bpy.types.ViewLayer]:
    """Those of a scene that windows show; its first where none does."""
    names = {window.view_layer.name for window in bpy.context.window_manager.windows if window.scene == scene}
    shown = [view_layer for view_layer in scene.view_layers if view_layer.name in names]
    return iter(shown or [scene.view_layers[0]])
