"""New heads stand where nothing is in their way, nor in the photo's view."""

from __future__ import annotations

import itertools

import bpy
import pytest
from bpy_extras.object_utils import world_to_camera_view

from blender_addon.head import PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from blender_addon.scene.find import camera_of
from blender_addon.scene.place import free_place

pytestmark = pytest.mark.usefixtures("empty_file")

CLEARANCE = 0.6


def _place(plan: PhotoPlan, unit_scale: float = 1.0, *, with_camera: bool = False) -> tuple[float, float, float]:
    bpy.context.view_layer.update()
    return free_place(bpy.context.scene, plan.heads[0].camera if with_camera else None, unit_scale)


def _add_box(x: float = 0.0, y: float = 0.0, z: float = 0.0, size: float = 2.0) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(location=(x, y, z), size=size)
    return bpy.context.view_layer.objects.active


def test_an_empty_scene_has_its_origin(plan: PhotoPlan) -> None:
    assert _place(plan, with_camera=True) == (0.0, 0.0, 0.0)


def test_nothing_stands_before_or_behind_the_head_in_the_photos_view(plan: PhotoPlan) -> None:
    cube = _add_box()
    (head,) = build_photo(plan, SceneOptions(), bpy.context.scene)
    bpy.context.view_layer.update()
    corners = [cube.matrix_world @ vertex.co for vertex in cube.data.vertices]
    seen = [world_to_camera_view(bpy.context.scene, camera_of(head), corner) for corner in corners]
    assert not any(0 < point.x < 1 and 0 < point.y < 1 and point.z > 0 for point in seen)
    assert head.location.x < 3


@pytest.mark.parametrize("unit_scale", [1.0, 100.0])
def test_places_keep_clear_in_metres(plan: PhotoPlan, unit_scale: float) -> None:
    _add_box(size=2 * unit_scale)
    assert _place(plan, unit_scale) == pytest.approx((1.6 * unit_scale, 0, 0))


def test_gaps_that_are_too_small_are_passed_by(plan: PhotoPlan) -> None:
    _add_box()
    _add_box(3.0)
    _add_box(6.0)
    assert _place(plan) == pytest.approx((7.6, 0, 0))


@pytest.mark.parametrize("place", [{"y": 2.0}, {"y": -2.0}, {"z": 2.0}, {"z": -2.0}, {"x": -2.0}])
def test_what_is_beside_above_or_below_is_not_in_the_way(plan: PhotoPlan, place: dict[str, float]) -> None:
    _add_box(**place)
    assert _place(plan) == (0.0, 0.0, 0.0)


def test_turned_and_scaled_objects_count_as_they_stand(plan: PhotoPlan) -> None:
    bar = _add_box()
    bar.scale, bar.rotation_euler = (0.1, 3.0, 0.1), (0, 0, 1.5707963)
    assert _place(plan) == pytest.approx((3.6, 0, 0), abs=1e-3)


def test_what_cannot_be_seen_is_not_in_the_way(plan: PhotoPlan) -> None:
    hidden, off, away = _add_box(), _add_box(), _add_box()
    hidden.hide_set(True)
    off.hide_viewport = True
    closed = bpy.data.collections.new("closed")
    bpy.context.scene.collection.children.link(closed)
    bpy.context.scene.collection.objects.unlink(away)
    closed.objects.link(away)
    bpy.context.view_layer.layer_collection.children["closed"].exclude = True
    other = bpy.data.scenes.new("Other")
    other.collection.objects.link(bpy.data.objects.new("elsewhere", hidden.data))
    bpy.ops.object.light_add(location=(0, 0, 0))
    bpy.ops.object.empty_add(location=(0, 0, 0))
    assert _place(plan) == (0.0, 0.0, 0.0)
    hidden.hide_set(False)
    assert _place(plan)[0] == pytest.approx(1.6)


def test_a_floor_lifts_the_head(plan: PhotoPlan) -> None:
    bpy.ops.mesh.primitive_plane_add(size=100)
    assert _place(plan) == pytest.approx((0, 0, CLEARANCE))
    _add_box(z=1.0)
    assert _place(plan) == pytest.approx((1.6, 0, CLEARANCE))


def test_a_sky_around_everything_is_not_in_the_way(plan: PhotoPlan) -> None:
    bpy.ops.mesh.primitive_uv_sphere_add(radius=500)
    assert _place(plan, with_camera=True) == (0.0, 0.0, 0.0)


def test_objects_that_were_just_removed_do_no_harm(plan: PhotoPlan) -> None:
    boxes = [_add_box(3.0 * place) for place in range(20)]
    for box in boxes[:10]:
        bpy.data.objects.remove(box)
    assert _place(plan) == (0.0, 0.0, 0.0)


def test_a_group_stays_together_beside_what_is_in_the_way(group: PhotoPlan) -> None:
    _add_box()
    places = [head.location.x for head in build_photo(group, SceneOptions(), bpy.context.scene)]
    assert places[0] > 1.6
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert gaps == pytest.approx([0.35] * (len(places) - 1))
