# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender tells us: files are opened, steps are undone."""

from __future__ import annotations

import bpy
from bpy.app.handlers import persistent

from . import runtime, timer
from .backend_settings import preferences
from .properties import copy_options


@persistent
def file_closes(*_: object) -> None:
    """The building stops while its scene still exists; should the other file not open, it begins anew."""
    runtime.running().delivery.interrupt()


@persistent
def file_opened(*_: object) -> None:
    """The new file gets nothing of what was asked for in the old one."""
    runtime.leave_file()
    runtime.running().listed_heads.forget()
    use_defaults()
    timer.wake()


@persistent
def step_changes(*_: object) -> None:
    """Undo and redo replace the data that is being built: it begins anew afterwards."""
    runtime.running().delivery.interrupt()


@persistent
def step_changed(*_: object) -> None:
    """The lists of the panel show what is there now."""
    runtime.running().listed_heads.forget()


@persistent
def scene_changed(_scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    """The same where objects came, went or got other names. Called very often, also while an animation plays."""
    if depsgraph.id_type_updated("COLLECTION") or depsgraph.id_type_updated("OBJECT"):
        runtime.running().listed_heads.forget()


_HANDLERS = {
    "load_pre": file_closes,
    "load_post": file_opened,
    "undo_pre": step_changes,
    "redo_pre": step_changes,
    "undo_post": step_changed,
    "redo_post": step_changed,
    "depsgraph_update_post": scene_changed,
}


def use_defaults() -> None:
    """Fills the panel's options from the preferences, once."""
    panel, ours = bpy.context.window_manager.focus_face, preferences()
    if ours is not None and not panel.has_defaults:
        copy_options(ours.defaults, panel.options)
        panel.has_defaults = True


def add_handlers() -> None:
    """Begins to listen."""
    for name, function in _HANDLERS.items():
        handlers = getattr(bpy.app.handlers, name)
        if function not in handlers:
            handlers.append(function)


def remove_handlers() -> None:
    """Listens no more; nothing to do for those that are not there."""
    for name, function in _HANDLERS.items():
        handlers = getattr(bpy.app.handlers, name)
        while function in handlers:
            handlers.remove(function)
