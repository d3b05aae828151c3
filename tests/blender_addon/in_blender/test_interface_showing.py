"""A new head is shown in the viewport, unless its user is busy there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import bpy
import pytest

from blender_addon.interface.showing import Viewport, show_head, viewport_of
from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from tests.blender_addon.in_blender.samples import PHOTO, planned


@pytest.fixture
def build() -> Callable[..., bpy.types.Object]:
    bpy.ops.wm.read_factory_settings()

    def built(**changes: bool) -> bpy.types.Object:
        options = dataclasses.replace(SceneOptions(identity=False, mask=False), **changes)
        plan = planned("astronaut", PHOTO, options)
        (head,) = build_photo(plan, options, bpy.context.scene)
        bpy.context.view_layer.update()
        return head

    return built


def _area() -> bpy.types.Area:
    window = bpy.context.window_manager.windows[0]
    return next(area for area in window.screen.areas if area.type == "VIEW_3D")


def _view() -> bpy.types.RegionView3D:
    return _area().spaces.active.region_3d


def test_the_view_goes_through_the_photos_camera_once(build: Callable) -> None:
    head, viewport = build(), Viewport(_area().as_pointer())
    show_head(head, bpy.context.scene, viewport)
    assert _view().view_perspective == "CAMERA"
    _view().view_perspective = "PERSP"
    show_head(head, bpy.context.scene, viewport)
    assert _view().view_perspective == "PERSP"


def test_without_a_camera_of_the_scenes_the_head_fills_the_view(build: Callable) -> None:
    head = build(set_up_scene=False)
    show_head(head, bpy.context.scene, Viewport())
    assert _view().view_perspective == "PERSP"
    assert (_view().view_location - head.matrix_world.translation).length < 0.3
    assert _view().view_distance < 2


def test_a_view_through_a_users_own_camera_stays(build: Callable) -> None:
    head = build(set_up_scene=False)
    _view().view_perspective = "CAMERA"
    camera = bpy.context.scene.camera
    show_head(head, bpy.context.scene, Viewport())
    assert _view().view_perspective == "CAMERA"
    assert bpy.context.scene.camera == camera


def test_the_view_of_who_edits_something_stays(build: Callable) -> None:
    bpy.context.view_layer.objects.active = bpy.data.objects["Cube"]
    bpy.ops.object.mode_set(mode="EDIT")
    head, before = build(), _view().view_matrix.copy()
    show_head(head, bpy.context.scene, Viewport())
    assert _view().view_perspective == "PERSP"
    assert _view().view_matrix == before


def test_a_scene_that_no_window_shows_is_left_alone(build: Callable) -> None:
    head = build()
    show_head(head, bpy.data.scenes.new("Other"), Viewport())
    assert _view().view_perspective == "PERSP"


def test_the_viewport_is_the_one_that_was_asked_from(build: Callable) -> None:
    build()
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window, area=_area()):
        assert viewport_of(bpy.context).pointer == _area().as_pointer()
    other = next(area for area in window.screen.areas if area.type != "VIEW_3D")
    with bpy.context.temp_override(window=window, area=other):
        assert viewport_of(bpy.context).pointer == 0


def test_solid_shading_shows_the_face_and_not_what_the_user_chose_otherwise(build: Callable) -> None:
    head, shading = build(), _area().spaces.active.shading
    shading.type, shading.color_type = "SOLID", "RANDOM"
    show_head(head, bpy.context.scene, Viewport(_area().as_pointer()))
    assert shading.color_type == "RANDOM"
    _view().view_perspective, shading.color_type = "PERSP", "MATERIAL"
    show_head(head, bpy.context.scene, Viewport(_area().as_pointer()))
    assert (shading.color_type, shading.studio_light) == ("TEXTURE", "paint.sl")
