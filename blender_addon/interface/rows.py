# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of heads: which row is active, and what choosing one does."""

from __future__ import annotations

import bpy

from ..scene import find
from . import runtime


def active_head(context: bpy.types.Context) -> bpy.types.Object | None:
    """The active object where that is a head, or the head of the active camera of ours."""
    active = context.view_layer.objects.active if context.view_layer is not None else None
    if active is None:
        return None
    if find.is_head(active):
        return active
    return active.parent if active.parent is not None and find.is_head(active.parent) else None


def active_row() -> int:
    """Index of the active head in `bpy.data.objects`; -1 without."""
    head = active_head(bpy.context)
    return listed(bpy.context).get(head.name, -1) if head is not None else -1


def choose(row: int) -> None:
    """Selects the head of a row, as an undo step of its own; nothing where that would end a mode the user is in."""
    if 0 <= row < len(bpy.data.objects) and bpy.ops.focus_face.select_head.poll():
        bpy.ops.focus_face.select_head("EXEC_DEFAULT", True, head=bpy.data.objects[row].name)


def listed(context: bpy.types.Context) -> dict[str, int]:
    """Names of the heads of the scene before the user, with their places in `bpy.data.objects`."""
    return runtime.running().listed_heads.rows(context)
