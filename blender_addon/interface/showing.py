# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""New heads are shown in the viewport from which they were asked for, unless its user is busy there with something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import bpy

from ..scene import find

# Blender's own, made for painting textures.
_LIGHT_FOR_TEXTURES = "paint.sl"


@dataclass(eq=False)
class Viewport:
    """Where the user asked; shared by the photos that were asked for at once, of which only the first to come moves the view.

    Attributes:
        pointer: of the area, which Blender may have taken away meanwhile; 0 where it was no 3D viewport.
        has_shown: the view was moved.
    """

    pointer: int = 0
    has_shown: bool = False


@dataclass(frozen=True)
class _View:
    window: bpy.types.Window
    area: bpy.types.Area


def viewport_of(context: bpy.types.Context) -> Viewport:
    """The one in which the user is."""
    area = context.area
    return Viewport(area.as_pointer() if area is not None and area.type == "VIEW_3D" else 0)


def show_head(head: bpy.types.Object, scene: bpy.types.Scene, viewport: Viewport) -> None:
    """Turns the view to a head: through its camera where that is the scene's, otherwise to the selected heads.

    Solid shading shows textures from then on, where it showed the materials' colours. Nothing changes for users in another mode, in local
    view, in a camera's view or in the middle of turning the view.
    """
    view = _view(scene, viewport.pointer)
    if viewport.has_shown or view is None or not _is_free(view, head):
        return
    viewport.has_shown = True
    _show_texture(view.area.spaces.active.shading)
    if scene.camera is not None and scene.camera == find.camera_of(head) and not view.area.spaces.active.use_local_camera:
        look_through_camera(view.window, view.area)
        return
    with _inside(view.window, view.area):
        if bpy.ops.view3d.view_selected.poll():
            bpy.ops.view3d.view_selected()


def _show_texture(shading: bpy.types.View3DShading) -> None:
    """A face is known by its colours, which Solid does not show of itself, and darkens under its usual light."""
    if shading.type != "SOLID" or shading.color_type != "MATERIAL":
        return
    shading.color_type = "TEXTURE"
    if shading.light == "STUDIO" and shading.studio_light == "Default":
        # The user may have removed it.
        with contextlib.suppress(TypeError):
            shading.studio_light = _LIGHT_FOR_TEXTURES


def look_through_camera(window: bpy.types.Window, area: bpy.types.Area) -> None:
    """Shows the scene's camera's view, as large as it fits; Blender's own key for that leads back to the view before."""
    space = area.spaces.active
    with _inside(window, area):
        space.use_local_camera = False
        if space.region_3d.view_perspective != "CAMERA" and bpy.ops.view3d.view_camera.poll():
            bpy.ops.view3d.view_camera()
        if bpy.ops.view3d.view_center_camera.poll():
            bpy.ops.view3d.view_center_camera()


def _inside(window: bpy.types.Window, area: bpy.types.Area) -> AbstractContextManager[object]:
    region = next(region for region in area.regions if region.type == "WINDOW")
    return bpy.context.temp_override(window=window, screen=window.screen, area=area, region=region)


def _view(scene: bpy.types.Scene, pointer: int) -> _View | None:
    """The viewport that was meant, or else the largest that shows the scene."""
    views = sorted(_views(scene), key=lambda view: view.area.width * view.area.height, reverse=True)
    meant = (view for view in views if view.area.as_pointer() == pointer)
    return next(meant, views[0] if views else None)


def _views(scene: bpy.types.Scene) -> Iterator[_View]:
    for window in bpy.context.window_manager.windows:
        if window.scene == scene:
            yield from (_View(window, area) for area in window.screen.areas if area.type == "VIEW_3D")


def _is_free(view: _View, head: bpy.types.Object) -> bool:
    """Whether nobody minds when this view is moved, and the head would be seen."""
    space, active = view.area.spaces.active, view.window.view_layer.objects.active
    if space.local_view is not None or space.region_quadviews or space.region_3d.view_perspective == "CAMERA":
        return False
    if active != head or head.mode != "OBJECT" or space.region_3d.lock_rotation:
        return False
    return not any(operator.bl_idname.startswith("VIEW3D_OT_") for operator in view.window.modal_operators)
