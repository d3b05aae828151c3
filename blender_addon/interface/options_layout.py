# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options as they are drawn in the panel, in the preferences and beside the file browser."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from .properties import METHODS


def draw_options(layout: bpy.types.UILayout, options: object, methods: Sequence[str] = ()) -> None:
    """All options.

    Args:
        layout: to draw into.
        options: with the properties of `Options`.
        methods: that the backend offers; empty while that is not known.
    """
    layout.use_property_split = True
    layout.use_property_decorate = False
    draw_reconstruction(layout, options, methods)
    draw_scene(layout, options)


def draw_reconstruction(layout: bpy.types.UILayout, options: object, methods: Sequence[str] = ()) -> None:
    """How a photo is reconstructed."""
    choices = layout.grid_flow(columns=2, align=True, row_major=True, even_columns=True)
    for method, _name, _description in METHODS:
        choice = choices.row(align=True)
        choice.use_property_split = False
        # A choice that was made stays visible, also when this backend does not offer it.
        choice.enabled = not methods or method == "auto" or method in methods or method == options.method
        choice.prop_enum(options, "method", method)
    layout.prop(options, "misfit")
    layout.prop(options, "faces")
    layout.prop(options, "texture_size")


def draw_scene(layout: bpy.types.UILayout, options: object) -> None:
    """What lands in the scene."""
    layout.prop(options, "unit_scale")
    column = layout.column(heading="Head")
    column.prop(options, "expression")
    column.prop(options, "expressions")
    column.prop(options, "identity")
    column.prop(options, "use_photo_texture")
    column = layout.column(heading="Create")
    column.prop(options, "camera")
    column.prop(options, "world")
    column.prop(options, "mask")
    column.prop(options, "set_up_scene")
