# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heads of the scene: the list, and what can be done with one."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_rpt
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..scene import appearance, find
from . import rows, showing


class FOCUS_FACE_UL_heads(bpy.types.UIList):
    """Heads of the scene, one a row."""

    def draw_item(
        self,
        context: bpy.types.Context,
        layout: bpy.types.UILayout,
        data: bpy.types.BlendData,
        item: bpy.types.Object,
        icon: int,
        active_data: object,
        active_property: str,
        index: int = 0,
        flt_flag: int = 0,
    ) -> None:
        row = layout.row(align=True)
        row.prop(item, "name", text="", emboss=False, icon="USER")
        row.operator("focus_face.look_through", text="", icon="CAMERA_DATA", emboss=False).head = item.name

    def filter_items(self, context: bpy.types.Context, data: bpy.types.BlendData, property: str) -> tuple[list[int], list[int]]:  # noqa: A002
        wanted = self.filter_name.casefold()
        flags = [0] * len(data.objects)
        for name, row in rows.listed(context).items():
            if wanted in name.casefold() and row < len(flags):
                flags[row] = self.bitflag_filter_item
        return flags, []


class OfOneHead:
    """What operators on one head share."""

    head: StringProperty(name="Head", description="Name of the head's object; empty for the active one", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
        cls.poll_message_set("Only in Object Mode")
        return context.mode == "OBJECT"

    def chosen(self: bpy.types.Operator, context: bpy.types.Context) -> bpy.types.Object | None:
        """The head that is meant; None, and a word to the user, where there is none."""
        head = context.view_layer.objects.get(self.head) if self.head else rows.active_head(context)
        if find.is_head(head):
            return head
        self.report({"WARNING"}, pgettext_rpt("No head was chosen: select one, or give its name"))
        return None


class FOCUS_FACE_OT_select_head(OfOneHead, bpy.types.Operator):
    """Select this head alone and make it active"""

    bl_idname = "focus_face.select_head"
    bl_label = "Select Head"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        head = self.chosen(context)
        if head is None:
            return {"CANCELLED"}
        for other in list(context.view_layer.objects.selected):
            other.select_set(False)
        head.hide_set(False)
        head.select_set(True)
        context.view_layer.objects.active = head
        return {"FINISHED"}


class FOCUS_FACE_OT_remove_head(OfOneHead, bpy.types.Operator):
    """Remove a head with its camera, and all images and materials that nothing else uses"""

    bl_idname = "focus_face.remove_head"
    bl_label = "Remove Head"
    bl_options = {"REGISTER", "UNDO"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        head = self.chosen(context)
        if head is None:
            return {"CANCELLED"}
        find.remove_head(head)
        return {"FINISHED"}


class FOCUS_FACE_OT_look_through(OfOneHead, bpy.types.Operator):
    """See the head as the photo does: through its camera, with the photo's size, light and colours (view transform Standard)"""

    bl_idname = "focus_face.look_through"
    bl_label = "Look Through Photo"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        head = self.chosen(context)
        if head is None:
            return {"CANCELLED"}
        if find.camera_of(head) is None:
            self.report({"WARNING"}, pgettext_rpt("This head has no camera: reconstruct it again with Camera on"))
            return {"CANCELLED"}
        appearance.look_through(head, context.scene)
        if context.area is not None and context.area.type == "VIEW_3D":
            showing.look_through_camera(context.window, context.area)
        return {"FINISHED"}


class FOCUS_FACE_OT_show_texture(OfOneHead, bpy.types.Operator):
    """Choose what colours the head's skin"""

    bl_idname = "focus_face.show_texture"
    bl_label = "Show Texture"
    bl_options = {"REGISTER", "UNDO"}

    which: EnumProperty(
        name="Texture",
        items=(("photo", "Photo", "The photo's colours without its light"), ("albedo", "Albedo", "The model's albedo")),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    @classmethod
    def description(cls, context: bpy.types.Context, properties: bpy.types.OperatorProperties) -> str:
        """Each of the two buttons tells its own."""
        texts = {"photo": "Colour the skin with the photo, without its light", "albedo": "Colour the skin with the model's albedo"}
        return bpy.app.translations.pgettext_tip(texts[properties.which])

    def execute(self, context: bpy.types.Context) -> set[str]:
        head = self.chosen(context)
        if head is None:
            return {"CANCELLED"}
        appearance.show_texture(head, self.which)
        if appearance.texture_of(head) != self.which:
            self.report({"WARNING"}, pgettext_rpt("The head's material has no such texture"))
            return {"CANCELLED"}
        return {"FINISHED"}


class FOCUS_FACE_OT_show_overlay(OfOneHead, bpy.types.Operator):
    """Mark in the camera's view what covers the face in the photo"""

    bl_idname = "focus_face.show_overlay"
    bl_label = "Show Outliers"
    bl_options = {"REGISTER", "UNDO"}

    is_shown: BoolProperty(name="Shown", default=True, options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        head = self.chosen(context)
        if head is None:
            return {"CANCELLED"}
        appearance.show_overlay(head, self.is_shown)
        if appearance.is_overlay_shown(head) != self.is_shown:
            self.report({"WARNING"}, pgettext_rpt("This head has no outlier mask: reconstruct it again with it on"))
            return {"CANCELLED"}
        return {"FINISHED"}


CLASSES = (
    FOCUS_FACE_UL_heads,
    FOCUS_FACE_OT_select_head,
    FOCUS_FACE_OT_remove_head,
    FOCUS_FACE_OT_look_through,
    FOCUS_FACE_OT_show_texture,
    FOCUS_FACE_OT_show_overlay,
)
