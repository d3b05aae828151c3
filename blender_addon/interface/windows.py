# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's windows: what the user is doing there, and what may be done to them."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from ..head import PhotoPlan
from ..scene import find, marks

CATEGORY = "FOCUS"
# While one of these runs, Blender holds pointers into the scene, and undo has to wait for its end.
_AMID = ("TRANSFORM_OT_", "SCULPT_OT_", "PAINT_OT_", "MESH_OT_", "OBJECT_OT_", "CURVE_OT_")


def is_user_amid(plan: PhotoPlan) -> bool:
    """Whether the scene must not change now: it is rendered, something is dragged, or a head of this very photo is edited."""
    if _is_rendering():
        return True
    for window in bpy.context.window_manager.windows:
        if any(operator.bl_idname.startswith(_AMID) for operator in window.modal_operators):
            return True
    sha256 = plan.heads[0].photo_sha256
    heads = (head for scene in bpy.data.scenes for head in find.heads(scene))
    return any(head.mode != "OBJECT" and marks.is_of_photo(head, plan.photo_path, sha256) for head in heads)


def _is_rendering() -> bool:
    return bpy.app.is_job_running("RENDER")


def scene_before_user() -> bpy.types.Scene:
    """The scene of the first window; the current one where there is none."""
    windows = bpy.context.window_manager.windows
    return windows[0].scene if windows else bpy.context.scene


def push_undo(scene: bpy.types.Scene, message: str) -> None:
    """Ends an undo step; nothing to do in background mode, where nobody undoes."""
    windows = list(bpy.context.window_manager.windows)
    if bpy.app.background or not windows:
        return
    window = next((each for each in windows if each.scene == scene), windows[0])
    with bpy.context.temp_override(window=window, screen=window.screen):
        if bpy.ops.ed.undo_push.poll():
            bpy.ops.ed.undo_push(message=message)


def redraw_panels() -> None:
    """Asks for the sidebars that show our panels, and our preferences, to be drawn again."""
    for area in _areas():
        if area.type == "VIEW_3D":
            for region in area.regions:
                # Of a sidebar that was never drawn Blender does not know the category yet.
                if region.type == "UI" and region.width > 1 and region.active_panel_category in (CATEGORY, "UNSUPPORTED"):
                    region.tag_redraw()
        elif area.type == "PREFERENCES":
            area.tag_redraw()


def reveal_panel(area: bpy.types.Area | None) -> None:
    """Opens the sidebar of a 3D viewport, on our panels where Blender allows."""
    if area is None or area.type != "VIEW_3D":
        return
    area.spaces.active.show_region_ui = True
    for region in area.regions:
        if region.type == "UI":
            try:
                region.active_panel_category = CATEGORY
            except (AttributeError, TypeError):
                # The sidebar was never drawn: it opens with whatever tab comes first.
                return
            region.tag_redraw()


def _areas() -> Iterator[bpy.types.Area]:
    for window in bpy.context.window_manager.windows:
        yield from window.screen.areas
