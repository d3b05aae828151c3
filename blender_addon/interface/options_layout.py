# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options as they are drawn in the panel, in the preferences and beside the file browser."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from .properties import METHODS, Options


def draw_options(layout: bpy.types.UILayout, options: Options, methods: Sequence[str] = ()) -> None:
    """All options, those first that matter most.

    Args:
        layout: to draw into; it may be as narrow as a sidebar.
        options: with the properties of `Options`.
        methods: that the backend offers; empty while that is not known.
    """
    layout.use_property_split = False
    _draw_methods(layout, options, methods)
    column = layout.column(align=True)
    column.prop(options, "faces")
    column.prop(options, "expression")
    layout.use_property_split = True
    layout.use_property_decorate = False
    column = layout.column()
    column.prop(options, "texture_size", text="Texture")
    column.prop(options, "unit_scale")
    layout.use_property_split = False
    _draw_toggles(layout, options, "Head", ("expressions", "identity", "use_photo_texture", "misfit"))
    _draw_toggles(layout, options, "Create", ("camera", "world", "mask"))
    _draw_toggles(layout, options, "Then", ("set_up_scene", "show"))


def _draw_methods(layout: bpy.types.UILayout, options: Options, methods: Sequence[str]) -> None:
    choices = layout.grid_flow(columns=2, align=True, row_major=True, even_columns=True)
    for method, _name, _description in METHODS:
        choice = choices.row(align=True)
        # A choice that was made stays visible, also when this backend does not offer it.
        choice.enabled = not methods or method == "auto" or method in methods or method == options.method
        choice.prop_enum(options, "method", method)


def _draw_toggles(layout: bpy.types.UILayout, options: Options, heading: str, names: Sequence[str]) -> None:
    column = layout.column(align=True)
    column.label(text=heading)
    grid = column.grid_flow(columns=2, align=True, row_major=True, even_columns=True)
    for name in names:
        grid.prop(options, name, toggle=True)
