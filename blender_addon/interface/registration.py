# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that Blender is told of us, and how it is taken back."""

from __future__ import annotations

import atexit

import bpy

from ..export import operator as export_operator
from . import drop, handlers, heads_panel, operators, panel, preferences, properties, reconstruct, results, runtime, timer

CLASSES = (
    properties.FOCUS_FACE_PG_options,
    properties.FOCUS_FACE_PG_panel,
    *preferences.CLASSES,
    *reconstruct.CLASSES,
    *operators.CLASSES,
    *results.CLASSES,
    *panel.CLASSES,
    *heads_panel.CLASSES,
    *drop.CLASSES,
    *export_operator.CLASSES,
)


def register() -> None:
    """Registers everything; after a failure in the middle nothing stays."""
    try:
        for registered in CLASSES:
            bpy.utils.register_class(registered)
        properties.add_properties()
        drop.add_entries()
        handlers.add_handlers()
        runtime.start()
        atexit.register(runtime.stop)
        # Neither preferences nor windows can be touched while Blender starts.
        bpy.app.timers.register(_settle, first_interval=0.1)
    except Exception:
        unregister()
        raise


def unregister() -> None:
    """Takes away whatever is there, and ends what runs."""
    timer.stop()
    if bpy.app.timers.is_registered(_settle):
        bpy.app.timers.unregister(_settle)
    atexit.unregister(runtime.stop)
    runtime.stop()
    handlers.remove_handlers()
    drop.remove_entries()
    properties.remove_properties()
    for registered in reversed(CLASSES):
        if registered.is_registered:
            bpy.utils.unregister_class(registered)


def _settle() -> None:
    """What has to wait until Blender stands: defaults of the preferences, and a look for the backend."""
    handlers.use_defaults()
    preferences.look_for_backend()
