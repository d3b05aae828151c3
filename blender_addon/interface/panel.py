# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel in the 3D viewport's sidebar. Drawing reads what is there and computes nothing."""

from __future__ import annotations

import textwrap

import bpy
from bpy.app.translations import pgettext_iface

from ..errors import AddonError
from ..session.job import Job
from . import package, runtime, windows
from .options_layout import draw_options
from .remedies import remedy_of

_LIGHTS = {
    "off": "RADIOBUT_OFF",
    "starting": "SORTTIME",
    "ready": "CHECKMARK",
    "busy": "RENDER_ANIMATION",
    "failed": "ERROR",
}
_OF_PREFERENCES = ("no-backend", "connection", "key-file", "refused", "missing-dependency")
_OF_LOG = ("backend-lost", "backend", "internal", "worker-lost")
_LETTER_WIDTH = 6.3
_ICONS_WIDTH = 45.0
_MOST_JOBS = 8


class Sidebar:
    """Where our panels stand."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = windows.CATEGORY


class FOCUS_FACE_PT_reconstruct(Sidebar, bpy.types.Panel):
    """Photo in, head out."""

    bl_label = "Reconstruct Face from Photo"

    def draw(self, context: bpy.types.Context) -> None:
        layout, now = self.layout, runtime.running()
        _draw_photo(layout, context, now)
        _draw_button(layout, now)
        under_way = [job for job in now.session.jobs if not job.has_ended or job is now.delivery.job] if now.session is not None else []
        for job in under_way[:_MOST_JOBS]:
            _draw_job(layout, job, now)
        if len(under_way) > _MOST_JOBS:
            layout.label(text=pgettext_iface("and %d more") % (len(under_way) - _MOST_JOBS), translate=False)
        if len(under_way) > 1:
            layout.operator("focus_face.cancel", text="Cancel All", icon="CANCEL").number = 0
        error = runtime.shown_error()
        if error is not None:
            _draw_error(layout, error, context)


def _draw_photo(layout: bpy.types.UILayout, context: bpy.types.Context, now: runtime.Running) -> None:
    icon = now.pictures.thumbnail_icon()
    if icon:
        layout.template_icon(icon_value=icon, scale=6.0)
    row = layout.row(align=True)
    if len(now.photos) > 1:
        row.label(text=pgettext_iface("%d photos") % len(now.photos), translate=False, icon="FILE_IMAGE")
    else:
        row.prop(context.window_manager.focus_face, "photo_name", text="", placeholder="Choose or drop a photo")
    if now.photos:
        row.operator("focus_face.forget_photo", text="", icon="X")
    row.operator("focus_face.choose_photo", text="", icon="FILEBROWSER")


def _draw_button(layout: bpy.types.UILayout, now: runtime.Running) -> None:
    row = layout.row()
    row.scale_y = 1.6
    row.enabled = bool(now.photos)
    row.operator_context = "EXEC_DEFAULT"
    count = len(now.photos)
    text = pgettext_iface("Reconstruct %d Photos") % count if count > 1 else pgettext_iface("Reconstruct Face")
    row.operator("focus_face.reconstruct", text=text, translate=False, icon="USER")


def _draw_job(layout: bpy.types.UILayout, job: Job, now: runtime.Running) -> None:
    box = layout.box()
    box.label(text=job.name, translate=False, icon="FILE_IMAGE")
    stage = pgettext_iface(job.stage)
    if job is now.delivery.job:
        stage = pgettext_iface("Waiting for Object Mode") if now.is_waiting_for_user else pgettext_iface("Building the head")
    box.progress(factor=job.fraction, text=stage, translate=False)
    # Above the preview, whose coming would move it away from under the mouse.
    box.operator("focus_face.cancel", text="Cancel", icon="CANCEL").number = job.number
    icon = now.pictures.preview_icon(job.number)
    if icon:
        box.template_icon(icon_value=icon, scale=6.0)


def _draw_error(layout: bpy.types.UILayout, error: AddonError, context: bpy.types.Context) -> None:
    box = layout.box()
    row = box.row()
    problem = row.column(align=True)
    problem.alert = True
    for place, line in enumerate(_wrapped(error.problem, context, _ICONS_WIDTH)):
        problem.label(text=line, translate=False, icon="BLANK1" if place else "ERROR")
    row.operator("focus_face.dismiss_error", text="", icon="X", emboss=False)
    remedy = box.column(align=True)
    remedy.scale_y = 0.8
    for line in _wrapped(remedy_of(error), context):
        remedy.label(text=line, translate=False)
    if error.code in _OF_PREFERENCES:
        box.operator("preferences.addon_show", text="Open Preferences", icon="PREFERENCES").module = package.ROOT_PACKAGE
    elif error.code == "offline":
        box.operator("screen.userpref_show", text="Open Preferences", icon="PREFERENCES").section = "SYSTEM"
    if error.code in _OF_LOG:
        box.operator("focus_face.open_log", text="Open Log", icon="TEXT")


def _wrapped(text: str, context: bpy.types.Context, taken: float = 0.0) -> list[str]:
    """Lines that fit into the panel beside what takes `taken` pixels, first letter large; empty for no text."""
    scale = context.preferences.system.ui_scale
    # Box and the sidebar's tabs take their share.
    letters = max(16, int((context.region.width / scale - 70 - taken) / _LETTER_WIDTH))
    # A file's name stays as it is.
    begins_with_word = text.partition(" ")[0].isalpha()
    return textwrap.wrap(text[:1].upper() + text[1:] if begins_with_word else text, letters) or []


class FOCUS_FACE_PT_options(Sidebar, bpy.types.Panel):
    """How a photo is reconstructed, and what lands in the scene."""

    bl_label = "Options"
    bl_parent_id = "FOCUS_FACE_PT_reconstruct"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        draw_options(self.layout, context.window_manager.focus_face.options, runtime.running().status.methods)


class FOCUS_FACE_PT_backend(Sidebar, bpy.types.Panel):
    """How the backend is."""

    bl_label = "Backend"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 2

    def draw_header_preset(self, context: bpy.types.Context) -> None:
        light = runtime.running().status.light
        row = self.layout.row()
        row.alert = light == "failed"
        row.label(text="", icon=_LIGHTS.get(light, "QUESTION"))

    def draw(self, context: bpy.types.Context) -> None:
        layout, status = self.layout, runtime.running().status
        row = layout.row()
        row.alert = status.light == "failed"
        row.label(text=pgettext_iface(status.text), translate=False, icon=_LIGHTS.get(status.light, "QUESTION"))
        column = layout.column(align=True)
        for name, value in (("Address", status.address), ("Version", status.software), ("Device", status.device)):
            if value:
                line = column.split(factor=0.3)
                line.label(text=name)
                line.label(text=value, translate=False)
        row = layout.row(align=True)
        row.operator("focus_face.start_backend", text="Start", icon="PLAY")
        is_elsewhere = bool(status.address) and not status.is_ours
        row.operator("focus_face.stop_backend", text="Leave" if is_elsewhere else "Stop", icon="UNLINKED" if is_elsewhere else "SNAP_FACE")
        row.operator("focus_face.connect", text="Connect", icon="LINKED")
        row = layout.row(align=True)
        row.operator("preferences.addon_show", text="Preferences", icon="PREFERENCES").module = package.ROOT_PACKAGE
        if status.is_ours:
            row.operator("focus_face.open_log", text="Log", icon="TEXT")


CLASSES = (FOCUS_FACE_PT_reconstruct, FOCUS_FACE_PT_options, FOCUS_FACE_PT_backend)
