"""Removing heads: nothing of ours stays, nothing of the user's goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bpy
import pytest

from blender_addon.head import PhotoPlan
from blender_addon.scene.appearance import look_through
from blender_addon.scene.find import camera_of, collection_of, heads, material_of, remove_head
from blender_addon.scene.world import world_of
from tests.blender_addon.in_blender.samples import PHOTO
from tests.blender_addon.in_blender.scenes import build, names_of_blocks

pytestmark = pytest.mark.usefixtures("fresh_file")


def test_nothing_of_ours_stays(plan: PhotoPlan) -> None:
    before, world = names_of_blocks(), bpy.context.scene.world
    (head,) = build(plan)
    assert names_of_blocks() != before
    remove_head(head)
    assert names_of_blocks() == before
    assert bpy.context.scene.world == world


def test_removing_every_face_of_a_group_leaves_nothing(group: PhotoPlan) -> None:
    before = names_of_blocks()
    for name in [head.name for head in build(group)]:
        remove_head(bpy.data.objects[name])
    assert names_of_blocks() == before


def test_other_heads_keep_what_is_theirs(group: PhotoPlan) -> None:
    built = build(group)
    remove_head(built[0])
    rest = heads(bpy.context.scene)
    assert len(rest) == 5
    for head in rest:
        assert camera_of(head).data.background_images[0].image is not None
        assert material_of(head) is not None
        assert world_of(head) is not None


def test_the_scene_gets_its_own_world_back_over_several_heads(plan: PhotoPlan, group: PhotoPlan) -> None:
    world = bpy.context.scene.world
    (head,) = build(plan)
    name = head.name
    others = [other.name for other in build(group)]
    look_through(bpy.data.objects[others[3]], bpy.context.scene)
    remove_head(bpy.data.objects[name])
    for other in others:
        remove_head(bpy.data.objects[other])
    assert bpy.context.scene.world == world


@pytest.mark.parametrize("first", [0, 1])
def test_the_scene_gets_its_own_camera_back_over_several_heads(plan: PhotoPlan, group: PhotoPlan, first: int) -> None:
    scene = bpy.context.scene
    camera = scene.camera
    before = set(scene.keys())
    names = [build(which)[0].name for which in (plan, dataclasses.replace(group, heads=group.heads[:1]))]
    remove_head(bpy.data.objects[names.pop(first)])
    # Who removes the head that is looked through gets his own camera back, as with the light.
    assert scene.camera == (camera_of(bpy.data.objects[names[0]]) if first == 0 else camera)
    remove_head(bpy.data.objects[names[0]])
    assert scene.camera == camera
    assert set(scene.keys()) == before


def test_the_former_camera_survives_saving(plan: PhotoPlan, tmp_path: Path) -> None:
    build(plan)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "saved.blend"))
    remove_head(heads(bpy.context.scene)[0])
    assert bpy.context.scene.camera == bpy.data.objects["Camera"]


def test_each_scene_gets_its_own_camera_back(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    other = bpy.data.scenes.new("other")
    own = bpy.data.objects.new("own", bpy.data.cameras.new("own"))
    other.collection.objects.link(own)
    other.camera = own
    look_through(head, other)
    assert other.camera == camera_of(head)
    remove_head(head)
    assert (other.camera, bpy.context.scene.camera) == (own, bpy.data.objects["Camera"])


@pytest.mark.parametrize("is_deleted_by_hand", [True, False])
def test_a_former_camera_that_is_gone_does_not_come_back(plan: PhotoPlan, is_deleted_by_hand: bool) -> None:
    scene = bpy.context.scene
    former = scene.camera
    (head,) = build(plan)
    other = bpy.data.objects.new("other", bpy.data.cameras.new("other"))
    scene.collection.objects.link(other)
    if is_deleted_by_hand:
        bpy.ops.object.select_all(action="DESELECT")
        former.select_set(True)
        bpy.ops.object.delete()
    else:
        bpy.data.objects.remove(former)
    remove_head(head)
    assert scene.camera == other
    assert "Camera" not in scene.objects
    bpy.data.orphans_purge()
    assert "Camera" not in bpy.data.objects


def test_another_head_is_looked_through_where_no_other_camera_is_left(group: PhotoPlan) -> None:
    bpy.data.objects.remove(bpy.data.objects["Camera"])
    first, second = build(dataclasses.replace(group, heads=group.heads[:2]))
    remove_head(first)
    assert bpy.context.scene.camera == camera_of(second)
    remove_head(second)
    assert bpy.context.scene.camera is None


def test_a_camera_that_the_user_took_since_stays(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    other = bpy.data.objects.new("other", bpy.data.cameras.new("other"))
    bpy.context.scene.collection.objects.link(other)
    bpy.context.scene.camera = other
    remove_head(head)
    assert bpy.context.scene.camera == other


def test_the_users_world_is_not_lost_with_the_file(plan: PhotoPlan, tmp_path: Path) -> None:
    build(plan)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "saved.blend"))
    assert "World" in bpy.data.worlds


def test_what_the_user_hung_on_the_head_stays_in_place(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    head.location = (1, 2, 3)
    glasses = bpy.data.objects["Cube"]
    glasses.parent, glasses.location = head, (0, 0, 1)
    bpy.context.view_layer.update()
    place = glasses.matrix_world.copy()
    collection_of(head).objects.link(glasses)
    remove_head(head)
    bpy.context.view_layer.update()
    assert glasses.parent is None
    assert glasses.matrix_world == place
    assert "FOCUS astronaut" in bpy.data.collections


def test_what_the_user_uses_elsewhere_stays(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    material = material_of(head)
    bpy.data.objects["Cube"].data.materials.append(material)
    names = [image.name for image in bpy.data.images if image.name.startswith("astronaut") and "o" in image.name]
    kept = bpy.data.images[next(name for name in names if "overlay" in name)]
    kept.use_fake_user = False
    bpy.data.textures.new("mine", "IMAGE").image = kept
    remove_head(head)
    assert material.node_tree is not None
    assert kept.size[0] == 512
    assert "astronaut texture" in bpy.data.images


def test_a_photo_that_the_user_had_loaded_stays(plan: PhotoPlan) -> None:
    own = bpy.data.images.load(str(PHOTO))
    photo = dataclasses.replace(plan.heads[0].photo, path=str(PHOTO), png=b"")
    (head,) = build(dataclasses.replace(plan, heads=(dataclasses.replace(plan.heads[0], photo=photo),)))
    remove_head(head)
    assert own.size[0] == 512


def test_a_duplicate_can_go_alone(plan: PhotoPlan) -> None:
    (head,) = build(plan)
    copy = head.copy()
    copy.data = head.data.copy()
    collection_of(head).objects.link(copy)
    remove_head(copy)
    assert camera_of(head) is not None
    assert world_of(head) == bpy.context.scene.world
    assert material_of(head) is not None


def test_undo_brings_a_removed_head_back(plan: PhotoPlan) -> None:
    build(plan)
    bpy.ops.ed.undo_push(message="head")
    remove_head(heads(bpy.context.scene)[0])
    bpy.ops.ed.undo_push(message="removed")
    bpy.ops.ed.undo()
    (head,) = heads(bpy.context.scene)
    assert camera_of(head) is not None
    assert bpy.context.scene.world == world_of(head)
