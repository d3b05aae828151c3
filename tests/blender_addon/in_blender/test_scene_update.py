"""The same photo again, several photos, several scenes, undo, and what a user may have done in between."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.errors import AddonError
from blender_addon.head import Head, PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from blender_addon.scene.camera import background
from blender_addon.scene.find import camera_of, collection_of, face_index_of, heads, is_head, material_of, photo_path_of
from blender_addon.scene.material import MASK_NODE, PHOTO_NODE, image_node, principled_node
from blender_addon.scene.world import light_node, world_of
from tests.blender_addon.in_blender.samples import elsewhere
from tests.blender_addon.in_blender.scenes import build, names_of_blocks

pytestmark = pytest.mark.usefixtures("fresh_file")

OPTIONS = SceneOptions()


def test_a_head_lands_in_the_photos_collection_with_its_camera(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    collection = bpy.context.scene.collection.children["FOCUS astronaut"]
    assert {block.name for block in collection.objects} == {"astronaut", "astronaut camera"}
    assert collection_of(head) == collection
    assert camera_of(head).parent == head
    # Blender's first cube stands at the origin.
    assert head.location.x > 1.6
    assert tuple(head.location)[1:] == (0, 0)
    assert world_of(head).name == "astronaut light"
    assert is_head(head)
    assert not is_head(camera_of(head))


def test_a_head_carries_parameters_and_versions(plan: PhotoPlan) -> None:
    large = dataclasses.replace(plan.heads[0], properties={**plan.heads[0].properties, "focus_large": 2**40})
    (head,) = build(_with(plan, large))
    assert {name: head[name] for name in plan.heads[0].properties} == dict(plan.heads[0].properties)
    assert head["focus_large"] == str(2**40)
    assert photo_path_of(head) == plan.photo_path
    (again,) = build(plan)
    assert "focus_large" not in again


def test_the_same_photo_again_makes_nothing_new(plan: PhotoPlan) -> None:
    build(plan)
    before = names_of_blocks()
    build(plan)
    build(elsewhere(plan, "/moved/away.jpg"))
    assert names_of_blocks() == before
    assert photo_path_of(heads(bpy.context.scene)[0]) == "/moved/away.jpg"


def test_the_same_path_with_other_content_updates(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    name = head.name
    changed = dataclasses.replace(
        plan.heads[0], photo_sha256="other", mesh=dataclasses.replace(plan.heads[0].mesh, vertices=plan.heads[0].mesh.vertices + 1)
    )
    (again,) = build(_with(plan, changed))
    assert again.name == name
    assert len(heads(bpy.context.scene)) == 1
    np.testing.assert_allclose(_coordinates(again.data.vertices), changed.mesh.vertices)
    np.testing.assert_allclose(_coordinates(again.data.shape_keys.reference_key.points), changed.mesh.vertices)


def test_the_light_follows_a_new_fit(plan: PhotoPlan) -> None:
    build(plan)
    brighter = dataclasses.replace(plan.heads[0], environment=2 * plan.heads[0].environment)
    (head,) = build(_with(plan, brighter))
    image = light_node(world_of(head)).image
    image.buffers_free()
    pixels = np.array(image.pixels).reshape(*brighter.environment.shape[:2], 4)
    np.testing.assert_allclose(pixels[..., :3], brighter.environment, rtol=1e-3, atol=1e-4)


def test_pictures_show_their_new_content(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    before = np.array(image_node(material_of(head), PHOTO_NODE).image.pixels)
    # The albedo in the photo texture's place, so that it must be decoded anew.
    swapped = dataclasses.replace(plan.heads[0], texture=dataclasses.replace(plan.heads[0].albedo, name="other"))
    (again,) = build(_with(plan, swapped))
    after = np.array(image_node(material_of(again), PHOTO_NODE).image.pixels)
    assert np.abs(after - before).max() > 0.1


def test_what_the_user_did_to_a_head_stays(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    scene = bpy.context.scene
    head.name, head.location, head.rotation_euler.z, head.scale.x = "Mae", (4, 5, 6), 1.0, 2.0
    head.parent = bpy.data.objects["Cube"]
    head.modifiers.new("Smoother", "SUBSURF")
    head.vertex_groups.new(name="Mine").add([3], 0.5, "REPLACE")
    head.data.uv_layers.new(name="Second")
    head.data.shape_keys.key_blocks["jawOpen"].value = 0.7
    head.data.shape_keys.key_blocks["Fitted expression"].value = 0.2
    principled_node(material_of(head)).inputs["Roughness"].default_value = 0.9
    elsewhere = bpy.data.collections.new("Mine")
    scene.collection.children.link(elsewhere)
    elsewhere.objects.link(head)
    bpy.data.collections["FOCUS astronaut"].objects.unlink(head)
    (again,) = build(plan)
    assert (again.name, tuple(again.location), again.rotation_euler.z, again.scale.x) == ("Mae", (4, 5, 6), 1.0, 2.0)
    assert again.parent == bpy.data.objects["Cube"]
    assert [modifier.name for modifier in again.modifiers] == ["Smoother"]
    assert [entry.weight for entry in again.data.vertices[3].groups if entry.group == again.vertex_groups["Mine"].index] == [0.5]
    assert "Second" in again.data.uv_layers
    keys = again.data.shape_keys.key_blocks
    assert keys["jawOpen"].value == pytest.approx(0.7)
    assert keys["Fitted expression"].value == 1.0
    assert principled_node(material_of(again)).inputs["Roughness"].default_value == pytest.approx(0.9)
    assert [collection.name for collection in again.users_collection] == ["Mine"]


def test_a_users_own_shape_key_moves_with_the_neutral_head(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    own = head.shape_key_add(name="Mine", from_mix=False)
    own.points[7].co.x += 0.5
    moved = dataclasses.replace(plan.heads[0].mesh, vertices=plan.heads[0].mesh.vertices + np.float32(0.25))
    (again,) = build(_with(plan, dataclasses.replace(plan.heads[0], mesh=moved)))
    keys = again.data.shape_keys.key_blocks
    offsets = _coordinates(keys["Mine"].points) - _coordinates(keys["Basis"].points)
    assert offsets[7, 0] == pytest.approx(0.5, abs=1e-5)
    offsets[7, 0] = 0
    np.testing.assert_allclose(offsets, 0, atol=1e-6)


def test_keys_that_are_not_asked_for_any_more_go(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    head.shape_key_add(name="Mine", from_mix=False)
    mesh = dataclasses.replace(plan.heads[0].mesh, shape_keys=plan.heads[0].mesh.shape_keys[:1])
    (again,) = build(_with(plan, dataclasses.replace(plan.heads[0], mesh=mesh)))
    assert again.data.shape_keys.key_blocks.keys() == ["Basis", "Fitted expression", "Mine"]


def test_the_users_material_stays(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    own = bpy.data.materials.new("Mine")
    head.material_slots[0].material = own
    (again,) = build(plan)
    assert [slot.material for slot in again.material_slots] == [own]


def test_deleted_material_camera_and_world_come_back(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    bpy.data.materials.remove(material_of(head))
    bpy.data.objects.remove(camera_of(head))
    bpy.data.worlds.remove(world_of(head))
    (again,) = build(plan)
    assert image_node(material_of(again), MASK_NODE) is not None
    assert bpy.context.scene.camera == camera_of(again)
    assert bpy.context.scene.world == world_of(again)


def test_a_camera_outside_the_family_is_found_and_taken_back(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    camera = camera_of(head)
    camera.parent, camera.name = None, "away"
    assert camera_of(head) == camera
    (again,) = build(plan)
    assert camera_of(again).name == "away"
    assert camera_of(again).parent == again


def test_what_is_not_asked_for_any_more_goes(plan: PhotoPlan) -> None:
    build(plan)
    former = bpy.data.worlds["World"]
    less = dataclasses.replace(plan.heads[0], camera=None, environment=None, albedo=None, outlier_mask=None, outlier_overlay=None)
    (head,) = build(_with(plan, less))
    assert camera_of(head) is None
    assert world_of(head) is None
    assert bpy.context.scene.world == former
    assert [node.name for node in material_of(head).node_tree.nodes if node.type == "TEX_IMAGE"] == [PHOTO_NODE]
    assert [name for name in names_of_blocks()["images"] if name != "Viewer Node"] == ["astronaut texture"]


def test_a_deleted_collection_is_made_again_for_new_heads_only(group: PhotoPlan) -> None:
    build(dataclasses.replace(group, heads=group.heads[:2]))
    collection = bpy.data.collections["FOCUS group"]
    stray = collection.objects["group"]
    bpy.context.scene.collection.objects.link(stray)
    bpy.data.collections.remove(collection)
    assert [head.name for head in heads(bpy.context.scene)] == ["group"]
    built = build(dataclasses.replace(group, heads=group.heads[:2]))
    assert len(heads(bpy.context.scene)) == 2
    assert [collection_of(head) is None for head in built] == [True, False]


def test_a_group_stands_side_by_side_in_one_collection(group: PhotoPlan) -> None:
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    built = build(group)
    assert [round(head.location.x, 3) for head in built] == [0.0, 0.35, 0.7, 1.05, 1.4, 1.75]
    assert {collection_of(head).name for head in built} == {"FOCUS group"}
    assert [face_index_of(head) for head in built] == list(range(6))
    assert len({background(camera_of(head).data, "photo").image.name for head in built}) == 1
    assert bpy.context.view_layer.objects.active == built[0]
    assert set(bpy.context.view_layer.objects.selected) == set(built)
    assert bpy.context.scene.camera == camera_of(built[0])


def test_a_new_head_takes_the_first_free_place(group: PhotoPlan, plan: PhotoPlan) -> None:
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    built = build(group)
    built[1].location.y = 3.0
    (head,) = build(plan)
    assert tuple(head.location) == pytest.approx((0.35, 0, 0))


def test_faces_that_are_no_more_are_removed(group: PhotoPlan) -> None:
    build(group)
    build(dataclasses.replace(group, heads=group.heads[:2]))
    assert [face_index_of(head) for head in heads(bpy.context.scene)] == [0, 1]
    assert len(bpy.data.cameras) == 3
    assert len([image for image in bpy.data.images if "texture" in image.name]) == 2


def test_two_photos_of_the_same_name_stay_apart(plan: PhotoPlan) -> None:
    other = elsewhere(plan, "/other/astronaut.jpg")
    other = _with(other, dataclasses.replace(other.heads[0], photo_sha256="other"))
    first, second = build(plan)[0].name, build(other)[0].name
    assert first != second
    assert collection_of(bpy.data.objects[first]) != collection_of(bpy.data.objects[second])


def test_the_users_things_are_left_alone(plan: PhotoPlan) -> None:
    scene = bpy.context.scene
    cube, light = bpy.data.objects["Cube"], bpy.data.objects["Light"]
    scene.cursor.location = (1, 2, 3)
    scene.view_settings.view_transform = "Filmic"
    before = (cube.matrix_world.copy(), light.matrix_world.copy(), scene.render.engine, scene.frame_current)
    build(plan, dataclasses.replace(OPTIONS, set_up_scene=False))
    assert (cube.matrix_world, light.matrix_world, scene.render.engine, scene.frame_current) == before
    assert tuple(scene.cursor.location) == (1, 2, 3)
    assert scene.view_settings.view_transform == "Filmic"
    assert {"Cube", "Light", "Camera"} <= set(scene.objects.keys())


def test_the_new_head_alone_is_selected(plan: PhotoPlan) -> None:
    bpy.data.objects["Cube"].select_set(True)
    (head,) = build(plan)
    assert list(bpy.context.view_layer.objects.selected) == [head]
    assert bpy.context.view_layer.objects.active == head


def test_who_edits_another_object_goes_on_editing(plan: PhotoPlan) -> None:
    cube = bpy.data.objects["Cube"]
    bpy.context.view_layer.objects.active = cube
    bpy.ops.object.mode_set(mode="EDIT")
    build(plan)
    assert bpy.context.view_layer.objects.active == cube
    assert cube.mode == "EDIT"


@pytest.mark.parametrize("mode", ["EDIT", "SCULPT"])
def test_a_head_that_is_edited_leaves_its_mode(plan: PhotoPlan, mode: str) -> None:
    build(plan)
    bpy.ops.object.mode_set(mode=mode)
    (head,) = build(plan)
    assert head.mode == "OBJECT"
    np.testing.assert_allclose(_coordinates(head.data.vertices), plan.heads[0].mesh.vertices)


def test_in_an_excluded_collection_a_head_is_updated_but_not_selected(plan: PhotoPlan) -> None:
    build(plan)
    bpy.context.view_layer.layer_collection.children["FOCUS astronaut"].exclude = True
    (head,) = build(plan)
    assert heads(bpy.context.scene) == [head]
    assert bpy.context.view_layer.layer_collection.children["FOCUS astronaut"].exclude


def test_another_scene_gets_heads_of_its_own(plan: PhotoPlan) -> None:
    (first,) = build(plan)
    other = bpy.data.scenes.new("Other")
    (second,) = build_photo(plan, OPTIONS, other)
    assert first != second
    assert heads(other) == [second]
    assert bpy.context.scene.camera == camera_of(first)
    assert other.camera == camera_of(second)
    assert background(camera_of(first).data, "photo").image == background(camera_of(second).data, "photo").image


def test_a_linked_head_is_left_alone(plan: PhotoPlan, tmp_path: Path) -> None:
    build(plan)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, linked):
        linked.collections = ["FOCUS astronaut"]
    bpy.context.scene.collection.children.link(linked.collections[0])
    (head,) = build(plan)
    assert head.library is None
    assert bpy.context.view_layer.objects.active == head
    assert collection_of(head).library is None
    assert len(heads(bpy.context.scene)) == 2


def test_an_override_is_left_alone(plan: PhotoPlan, tmp_path: Path) -> None:
    build(plan)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, linked):
        linked.collections = ["FOCUS astronaut"]
    linked.collections[0].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    (head,) = build(plan)
    assert head.override_library is None
    assert len(heads(bpy.context.scene)) == 2


def test_a_duplicate_does_not_confuse(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    copy = head.copy()
    copy.data = head.data.copy()
    bpy.context.scene.collection.objects.link(copy)
    before = len(bpy.data.objects)
    build(plan)
    assert len(bpy.data.objects) == before


def test_undo_and_redo_between_two_runs(plan: PhotoPlan) -> None:
    bpy.ops.ed.undo_push(message="before")
    build(plan)
    bpy.ops.ed.undo_push(message="head")
    bpy.ops.ed.undo()
    assert heads(bpy.context.scene) == []
    bpy.ops.ed.redo()
    (head,) = heads(bpy.context.scene)
    assert np.array(image_node(material_of(head), PHOTO_NODE).image.pixels).max() > 0.5
    assert bpy.context.scene.world == world_of(head)
    build(plan)
    assert len(heads(bpy.context.scene)) == 1
    assert len(bpy.data.collections) == 2


def test_undo_between_two_steps_of_a_group(group: PhotoPlan) -> None:
    bpy.ops.ed.undo_push(message="before")
    steps = build_photo(group, OPTIONS, bpy.context.scene)
    next(steps)
    bpy.ops.ed.undo_push(message="one head")
    bpy.ops.ed.undo()
    assert len(list(steps)) == 5
    assert [face_index_of(head) for head in heads(bpy.context.scene)] == [1, 2, 3, 4, 5]


def test_a_scene_deleted_between_two_steps_is_an_error(group: PhotoPlan) -> None:
    scene = bpy.data.scenes.new("Other")
    steps = build_photo(group, OPTIONS, scene)
    next(steps)
    bpy.data.scenes.remove(scene)
    with pytest.raises(AddonError, match="scene"):
        next(steps)


def test_names_of_any_letters(plan: PhotoPlan) -> None:
    name = "größe 顔 " + "x" * 50
    (head,) = build(_with(dataclasses.replace(plan, name=name), dataclasses.replace(plan.heads[0], name=name)))
    assert head.name.startswith("größe 顔")
    assert collection_of(head).name.startswith("FOCUS größe 顔")
    assert camera_of(head) is not None
    build(plan)
    assert len(heads(bpy.context.scene)) == 1


def _with(plan: PhotoPlan, head: Head) -> PhotoPlan:
    return dataclasses.replace(plan, heads=(head,))


def _coordinates(points: bpy.types.bpy_prop_collection) -> np.ndarray:
    flat = np.empty(3 * len(points), np.float32)
    points.foreach_get("co", flat)
    return flat.reshape(-1, 3)
