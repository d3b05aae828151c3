# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Photos dropped into a 3D viewport, and the entries in Blender's menus."""

from __future__ import annotations

import bpy

from .reconstruct import PHOTO_ENDINGS


class FOCUS_FACE_FH_photo(bpy.types.FileHandler):
    """Photos dropped into a 3D viewport. Blender lists us beside its own uses of a dropped image."""

    bl_idname = "FOCUS_FACE_FH_photo"
    bl_label = "Reconstruct Face"
    bl_import_operator = "focus_face.reconstruct"
    bl_file_extensions = ";".join(PHOTO_ENDINGS)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


def _add_entry(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator_context = "INVOKE_DEFAULT"
    self.layout.operator("focus_face.reconstruct", text="Face from Photo…", icon="USER")


def _import_entry(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator_context = "INVOKE_DEFAULT"
    self.layout.operator("focus_face.reconstruct", text="Face from Photo (FOCUS)")


def _export_entry(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator_context = "INVOKE_DEFAULT"
    self.layout.operator("focus_face.export", text="Heads from Photos (FOCUS)")


def add_entries() -> None:
    """Adds ours to View3D > Add > Mesh, File > Import and File > Export."""
    bpy.types.VIEW3D_MT_mesh_add.append(_add_entry)
    bpy.types.TOPBAR_MT_file_import.append(_import_entry)
    bpy.types.TOPBAR_MT_file_export.append(_export_entry)


def remove_entries() -> None:
    """Takes them away; nothing to do where they are not there."""
    bpy.types.VIEW3D_MT_mesh_add.remove(_add_entry)
    bpy.types.TOPBAR_MT_file_import.remove(_import_entry)
    bpy.types.TOPBAR_MT_file_export.remove(_export_entry)


CLASSES = (FOCUS_FACE_FH_photo,)
