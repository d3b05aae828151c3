# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the panel besides the main one: choosing photos, cancelling, the backend's buttons, the error box."""

from __future__ import annotations

import os
from collections.abc import Callable

import bpy
from bpy.app.translations import pgettext_rpt
from bpy.props import CollectionProperty, IntProperty, StringProperty

from ..errors import AddonError
from . import runtime, timer
from .choosing import choose_photos
from .properties import RELATIVE
from .reconstruct import PHOTO_GLOB, given_photos
from .remedies import in_one_line


class FOCUS_FACE_OT_choose_photo(bpy.types.Operator):
    """Choose one or several photos for the panel's button"""

    bl_idname = "focus_face.choose_photo"
    bl_label = "Choose Photos"
    bl_options = {"REGISTER", "INTERNAL"}

    filepath: StringProperty(name="Photo", subtype="FILE_PATH", options={"SKIP_SAVE"} | RELATIVE)
    directory: StringProperty(name="Folder", subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"} | RELATIVE)
    files: CollectionProperty(name="Photos", type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"})
    filter_glob: StringProperty(default=PHOTO_GLOB, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        photos = given_photos(self)
        if not photos:
            self.report({"WARNING"}, pgettext_rpt("No photo was chosen"))
            return {"CANCELLED"}
        choose_photos([str(photo) for photo in photos])
        if context.area is not None:
            context.area.tag_redraw()
        return {"FINISHED"}


class FOCUS_FACE_OT_forget_photo(bpy.types.Operator):
    """Choose no photo"""

    bl_idname = "focus_face.forget_photo"
    bl_label = "Forget Photo"
    bl_options = {"REGISTER", "INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return bool(runtime.running().photos)

    def execute(self, context: bpy.types.Context) -> set[str]:
        choose_photos([])
        return {"FINISHED"}


class FOCUS_FACE_OT_cancel(bpy.types.Operator):
    """Give up a photo that is under way"""

    bl_idname = "focus_face.cancel"
    bl_label = "Cancel Reconstruction"
    bl_options = {"REGISTER"}

    number: IntProperty(name="Job", description="Which one; 0 for all", default=0, min=0, options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("Nothing is being reconstructed")
        return runtime.is_busy()

    def execute(self, context: bpy.types.Context) -> set[str]:
        runtime.cancel(self.number)
        timer.wake()
        return {"FINISHED"}


class FOCUS_FACE_OT_start_backend(bpy.types.Operator):
    """Start a backend on this machine now, so that the first photo need not wait for it"""

    bl_idname = "focus_face.start_backend"
    bl_label = "Start Backend"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("A backend runs already")
        return runtime.running().status.light in ("off", "failed")

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _try_for(self, lambda: runtime.session().start_backend())


class FOCUS_FACE_OT_stop_backend(bpy.types.Operator):
    """End the backend that was started here, or the connection to one that runs elsewhere"""

    bl_idname = "focus_face.stop_backend"
    bl_label = "Stop Backend"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("No backend runs")
        return runtime.running().status.light not in ("off", "failed")

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _try_for(self, lambda: runtime.session().stop_backend())


class FOCUS_FACE_OT_connect(bpy.types.Operator):
    """Connect to the backend of the preferences: by its address and key file, or the newest one on this machine"""

    bl_idname = "focus_face.connect"
    bl_label = "Connect to Backend"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("A backend runs already")
        return runtime.running().status.light in ("off", "failed")

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _try_for(self, lambda: runtime.session().connect())


class FOCUS_FACE_OT_dismiss_error(bpy.types.Operator):
    """Take the message away"""

    bl_idname = "focus_face.dismiss_error"
    bl_label = "Dismiss Message"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return runtime.shown_error() is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        runtime.dismiss_error()
        return {"FINISHED"}


class FOCUS_FACE_OT_open_log(bpy.types.Operator):
    """Open the log of the backend that was started here"""

    bl_idname = "focus_face.open_log"
    bl_label = "Open Backend's Log"
    bl_options = {"REGISTER"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        log = runtime.log_file()
        if log is None:
            self.report({"WARNING"}, pgettext_rpt("There is no log: no backend was started here"))
            return {"CANCELLED"}
        if bpy.app.background:
            self.report({"INFO"}, os.fspath(log))
            return {"FINISHED"}
        return bpy.ops.wm.path_open(filepath=os.fspath(log))


def _try_for(operator: bpy.types.Operator, act: Callable[[], None]) -> set[str]:
    """Does it, and tells what was wrong."""
    try:
        runtime.dismiss_error()
        act()
    except AddonError as error:
        operator.report({"ERROR"}, in_one_line(error))
        return {"CANCELLED"}
    finally:
        runtime.look_at_backend()
        timer.wake()
    return {"FINISHED"}


CLASSES = (
    FOCUS_FACE_OT_choose_photo,
    FOCUS_FACE_OT_forget_photo,
    FOCUS_FACE_OT_cancel,
    FOCUS_FACE_OT_start_backend,
    FOCUS_FACE_OT_stop_backend,
    FOCUS_FACE_OT_connect,
    FOCUS_FACE_OT_dismiss_error,
    FOCUS_FACE_OT_open_log,
)
