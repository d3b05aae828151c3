# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which heads the scene before the user has, remembered: panels are drawn often, and to look at every object each time would be slow."""

from __future__ import annotations

import bpy

from ..scene import find


class ListedHeads:
    """The heads of the view layer that was last asked for, and their cameras.

    Only names and places in `bpy.data.objects` are kept, for what Blender's Python calls an object may be gone at any time. They hold
    until `forget`, which Blender's handlers call before anything is drawn anew.
    """

    def __init__(self) -> None:
        self._seen: tuple[object, ...] = ()
        self._rows: dict[str, int] = {}
        self._cameras: dict[str, tuple[str, int]] = {}

    def forget(self) -> None:
        """Objects came, went or got other names: the next question is answered anew."""
        self._seen = ()

    def rows(self, context: bpy.types.Context) -> dict[str, int]:
        """Names of the heads in the view layer before the user, with their places in `bpy.data.objects`."""
        view_layer = context.view_layer
        if view_layer is None:
            return {}
        seen = (context.scene.session_uid, view_layer.name, len(view_layer.objects))
        if seen != self._seen:
            heads = ((block.name, row) for row, block in enumerate(bpy.data.objects) if find.is_head(block))
            self._rows = {name: row for name, row in heads if name in view_layer.objects}
            self._seen = seen
            self._cameras.clear()
        return self._rows

    def camera_of(self, head: bpy.types.Object, context: bpy.types.Context) -> bpy.types.Object | None:
        """The matched camera of a head; None where it has none or its user deleted it."""
        self.rows(context)
        if head.name in self._cameras:
            name, row = self._cameras[head.name]
            camera = _object_at(row, name) if name else None
            if not name or (camera is not None and camera.type == "CAMERA"):
                return camera
        camera = find.camera_of(head)
        self._cameras[head.name] = (camera.name, bpy.data.objects.find(camera.name)) if camera is not None else ("", -1)
        return camera


def _object_at(row: int, name: str) -> bpy.types.Object | None:
    """The object at a place; None where another has taken it."""
    try:
        block = bpy.data.objects[row]
    except IndexError:
        return None
    return block if block.name == name else None
