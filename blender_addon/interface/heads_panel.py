# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heads of the scene, in the sidebar."""

from __future__ import annotations

import bpy

from ..scene import appearance
from ..scene.camera import overlay_of
from . import rows, runtime
from .panel import Sidebar

_EXPRESSION, _IDENTITY = "Fitted expression", "Identity "


class FOCUS_FACE_PT_heads(Sidebar, bpy.types.Panel):
    """List of the heads, and what can be done with the active one."""

    bl_label = "Heads"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return bool(rows.listed(context))

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.template_list(
            "FOCUS_FACE_UL_heads", "", bpy.data, "objects", context.window_manager.focus_face, "head_row", rows=2, maxrows=6
        )
        head = rows.active_head(context)
        if head is None:
            layout.label(text="Choose a head in the list", icon="INFO")
            return
        camera = runtime.running().listed_heads.camera_of(head, context)
        if camera is not None:
            layout.operator("focus_face.look_through", icon="CAMERA_DATA").head = head.name
        _draw_appearance(layout, head, overlay_of(camera))
        row = layout.row(align=True)
        row.operator_menu_enum("focus_face.export", "file_format", text="Export", icon="EXPORT")
        row.operator("focus_face.remove_head", text="Remove", icon="TRASH").head = head.name


def _draw_appearance(layout: bpy.types.UILayout, head: bpy.types.Object, overlay: bpy.types.CameraBackgroundImage | None) -> None:
    shown = appearance.texture_of(head)
    row = layout.row(align=True)
    for which, text, icon in (("photo", "Photo", "IMAGE_RGB"), ("albedo", "Albedo", "MATERIAL")):
        button = row.operator("focus_face.show_texture", text=text, icon=icon, depress=shown == which)
        button.head, button.which = head.name, which
    if overlay is not None:
        is_shown = overlay.show_background_image
        button = layout.operator("focus_face.show_overlay", text="Outliers over Photo", icon="OVERLAY", depress=is_shown)
        button.head, button.is_shown = head.name, not is_shown


def _sliders(context: bpy.types.Context) -> list[bpy.types.ShapeKey]:
    head = rows.active_head(context)
    keys = head.data.shape_keys if head is not None else None
    # The first is the neutral head itself.
    return list(keys.key_blocks)[1:] if keys is not None else []


class FOCUS_FACE_PT_expression(Sidebar, bpy.types.Panel):
    """Sliders of expression."""

    bl_label = "Expression"
    bl_parent_id = "FOCUS_FACE_PT_heads"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return bool(_sliders(context))

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for key in _sliders(context):
            if not key.name.startswith(_IDENTITY):
                column.prop(key, "value", text=key.name, translate=False, slider=True)


class FOCUS_FACE_PT_identity(Sidebar, bpy.types.Panel):
    """Sliders of identity."""

    bl_label = "Identity"
    bl_parent_id = "FOCUS_FACE_PT_heads"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return any(key.name.startswith(_IDENTITY) for key in _sliders(context))

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for key in _sliders(context):
            if key.name.startswith(_IDENTITY):
                column.prop(key, "value", text=key.name, translate=False, slider=True)


CLASSES = (FOCUS_FACE_PT_heads, FOCUS_FACE_PT_expression, FOCUS_FACE_PT_identity)
