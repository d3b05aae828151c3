# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension's preferences: how the backend is reached, and what the panel's options are at first."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface
from bpy.props import EnumProperty, PointerProperty, StringProperty

from ..connection.backend_process import find_backend
from . import package, runtime
from .backend_settings import preferences
from .options_layout import draw_options
from .properties import RELATIVE, FOCUS_FACE_PG_options, copy_options


def _settings_changed(self: FOCUS_FACE_AP_preferences, context: bpy.types.Context) -> None:
    """A session that runs takes them for its next start or connection."""
    if runtime.running().session is not None:
        runtime.session()


def _executable_changed(self: FOCUS_FACE_AP_preferences, context: bpy.types.Context) -> None:
    self.found_backend = ""
    _settings_changed(self, context)


class FOCUS_FACE_AP_preferences(bpy.types.AddonPreferences):
    """What the user has set once and for all."""

    bl_idname = package.ROOT_PACKAGE

    backend_mode: EnumProperty(
        name="Backend",
        description="How the backend is reached",
        items=(
            ("AUTOMATIC", "Start on This Machine", "A backend is started when it is needed, and ends with Blender"),
            ("CONNECT", "Connect", "Use a backend that runs already, here or on another machine"),
        ),
        default="AUTOMATIC",
        update=_settings_changed,
    )
    executable: StringProperty(
        name="focus-backend",
        description="The program, or a folder that holds it; empty to look for it in the common places",
        subtype="FILE_PATH",
        options=RELATIVE,
        update=_executable_changed,
    )
    found_backend: StringProperty(options={"HIDDEN", "SKIP_SAVE"})
    weights: StringProperty(
        name="Weights",
        description="Folder of the networks' weights; empty for the backend's own choice",
        subtype="DIR_PATH",
        options=RELATIVE,
        update=_settings_changed,
    )
    device: StringProperty(
        name="Device",
        description="Where the networks run: cpu, cuda, cuda:1, ...; empty for the backend's own choice",
        update=_settings_changed,
    )
    address: StringProperty(
        name="Address",
        description="Such as tcp://192.168.0.7:5555; empty for the newest backend of this user on this machine",
        update=_settings_changed,
    )
    key_file: StringProperty(
        name="Key File",
        description="Made by the owner of a backend on another machine, with focus-backend keys new",
        subtype="FILE_PATH",
        options=RELATIVE,
        update=_settings_changed,
    )
    defaults: PointerProperty(type=FOCUS_FACE_PG_options)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.row().prop(self, "backend_mode", expand=True)
        if self.backend_mode == "AUTOMATIC":
            self._draw_own(layout)
        else:
            layout.prop(self, "address")
            layout.prop(self, "key_file")
            if not bpy.app.online_access:
                layout.label(text="Other machines need online access, which is off in Preferences > System", icon="INTERNET_OFFLINE")
        header, body = layout.panel("focus_face_defaults", default_closed=True)
        header.label(text="Default Options")
        if body is not None:
            draw_options(body, self.defaults)
            body.operator("focus_face.use_as_defaults", icon="IMPORT")

    def _draw_own(self, layout: bpy.types.UILayout) -> None:
        row = layout.row(align=True)
        row.prop(self, "executable")
        row.operator("focus_face.find_backend", text="", icon="VIEWZOOM")
        if self.found_backend:
            line = layout.row()
            line.active = False
            line.label(text=pgettext_iface("Found: %s") % self.found_backend, translate=False, icon="CHECKMARK")
        layout.prop(self, "weights")
        layout.prop(self, "device")


class FOCUS_FACE_OT_find_backend(bpy.types.Operator):
    """Look for focus-backend in the common places and show what was found"""

    bl_idname = "focus_face.find_backend"
    bl_label = "Find Backend"
    bl_options = {"REGISTER", "INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return preferences() is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        ours = preferences()
        # Blender polls before it executes.
        assert ours is not None
        preferred = bpy.path.abspath(ours.executable) if ours.executable else ""
        found = find_backend(preferred)
        ours.found_backend = str(found) if found is not None else ""
        if found is None:
            self.report({"WARNING"}, bpy.app.translations.pgettext_rpt("No backend was found: install focus-backend, or give its path"))
            return {"CANCELLED"}
        return {"FINISHED"}


class FOCUS_FACE_OT_use_as_defaults(bpy.types.Operator):
    """Make the options that the panel shows now the default options"""

    bl_idname = "focus_face.use_as_defaults"
    bl_label = "Use the Panel's Options"
    bl_options = {"REGISTER", "INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return preferences() is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        ours = preferences()
        # Blender polls before it executes.
        assert ours is not None
        copy_options(context.window_manager.focus_face.options, ours.defaults)
        return {"FINISHED"}


def look_for_backend() -> None:
    """Fills in what was found; once, soon after the extension was switched on, for drawing may not touch files."""
    ours = preferences()
    if ours is None or ours.executable or ours.found_backend:
        return
    found: Path | None = find_backend("")
    ours.found_backend = str(found) if found is not None else ""


CLASSES = (FOCUS_FACE_AP_preferences, FOCUS_FACE_OT_find_backend, FOCUS_FACE_OT_use_as_defaults)
