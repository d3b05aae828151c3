"""What can be done with heads that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
import pytest

import blender_addon
from blender_addon.interface import pictures, rows, runtime
from blender_addon.options import SceneOptions
from blender_addon.scene import appearance, find
from blender_addon.scene.build import build_photo
from tests.blender_addon.in_blender.samples import elsewhere, planned


@pytest.fixture
def head(tmp_path: Path) -> Iterator[bpy.types.Object]:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    blender_addon.register()
    photo = tmp_path / "astronaut.jpg"
    photo.write_bytes(b"")
    options = SceneOptions(identity=False, world=False, set_up_scene=False)
    for _ in build_photo(elsewhere(planned("astronaut", Path("/photos/astronaut.jpg"), options), str(photo)), options, bpy.context.scene):
        pass
    yield find.heads(bpy.context.scene)[0]
    blender_addon.unregister()


def _panel() -> bpy.types.PropertyGroup:
    return bpy.context.window_manager.focus_face


def test_the_row_of_the_list_is_the_active_head(head: bpy.types.Object) -> None:
    assert bpy.data.objects[_panel().head_row] == head
    bpy.ops.mesh.primitive_cube_add()
    assert _panel().head_row == -1
    bpy.context.view_layer.objects.active = find.camera_of(head)
    assert bpy.data.objects[_panel().head_row] == head


def test_choosing_a_row_selects_the_head_alone(head: bpy.types.Object) -> None:
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.view_layer.objects.active
    _panel().head_row = bpy.data.objects.find(head.name)
    assert bpy.context.view_layer.objects.active == head
    assert bpy.context.view_layer.objects.selected[:] == [head]
    # A row of something else is no head.
    _panel().head_row = bpy.data.objects.find(cube.name)
    assert bpy.context.view_layer.objects.active == head


def test_choosing_a_row_leaves_a_user_in_his_mode(head: bpy.types.Object) -> None:
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    cube = bpy.context.view_layer.objects.active
    _panel().head_row = bpy.data.objects.find(head.name)
    assert bpy.context.view_layer.objects.active == cube
    assert cube.mode == "EDIT"
    bpy.ops.object.mode_set(mode="OBJECT")


def test_only_heads_of_this_view_layer_are_listed(head: bpy.types.Object) -> None:
    assert rows.listed(bpy.context) == {head.name: bpy.data.objects.find(head.name)}
    find.collection_of(head).objects.unlink(head)
    bpy.context.view_layer.update()
    assert rows.listed(bpy.context) == {}


def test_the_list_follows_whatever_happens_to_heads(head: bpy.types.Object) -> None:
    def is_true() -> bool:
        # As before every drawing.
        bpy.context.view_layer.update()
        return rows.listed(bpy.context) == {each.name: bpy.data.objects.find(each.name) for each in find.heads(bpy.context.scene)}

    assert is_true()
    head.name = "zoe"
    assert is_true()
    bpy.ops.mesh.primitive_cube_add()
    assert is_true()
    copy = head.copy()
    copy.data = head.data.copy()
    find.collection_of(head).objects.link(copy)
    bpy.context.view_layer.update()
    assert is_true()
    # As many objects as before, but others.
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    head.name = "abe"
    find.collection_of(head).objects.link(another := head.copy())
    bpy.context.view_layer.update()
    assert is_true()
    bpy.data.objects.remove(another)
    bpy.data.objects.remove(head)
    assert is_true()
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    assert rows.listed(bpy.context) == {}


def test_undo_is_seen_by_the_list(head: bpy.types.Object) -> None:
    bpy.ops.ed.undo_push(message="head")
    name = head.name
    bpy.ops.focus_face.remove_head("EXEC_DEFAULT", True, head=name)
    bpy.context.view_layer.update()
    assert rows.listed(bpy.context) == {}
    bpy.ops.ed.undo()
    assert list(rows.listed(bpy.context)) == [name]


def test_the_camera_of_the_list_is_the_heads(head: bpy.types.Object) -> None:
    listed = runtime.running().listed_heads
    camera = find.camera_of(head)
    assert listed.camera_of(head, bpy.context) == camera
    camera.name = "other"
    assert listed.camera_of(head, bpy.context) == camera
    bpy.data.objects.remove(camera)
    bpy.context.view_layer.update()
    assert listed.camera_of(head, bpy.context) is None


def test_texture_and_overlay_are_switched(head: bpy.types.Object) -> None:
    assert bpy.ops.focus_face.show_texture(which="albedo") == {"FINISHED"}
    assert appearance.texture_of(head) == "albedo"
    assert bpy.ops.focus_face.show_texture(head=head.name, which="photo") == {"FINISHED"}
    assert appearance.texture_of(head) == "photo"
    for is_shown in (True, False):
        assert bpy.ops.focus_face.show_overlay(is_shown=is_shown) == {"FINISHED"}
        assert appearance.is_overlay_shown(head) == is_shown


def test_a_head_without_camera_or_material_is_told(head: bpy.types.Object) -> None:
    bpy.data.objects.remove(find.camera_of(head))
    head.data.materials.clear()
    assert bpy.ops.focus_face.look_through() == {"CANCELLED"}
    assert bpy.ops.focus_face.show_overlay(is_shown=True) == {"CANCELLED"}
    assert bpy.ops.focus_face.show_texture(which="photo") == {"CANCELLED"}


def test_the_scene_takes_the_photos_camera(head: bpy.types.Object) -> None:
    assert bpy.context.scene.camera is None
    assert bpy.ops.focus_face.look_through() == {"FINISHED"}
    assert bpy.context.scene.camera == find.camera_of(head)


def test_a_head_is_removed_with_its_camera(head: bpy.types.Object) -> None:
    assert bpy.ops.focus_face.remove_head(head=head.name) == {"FINISHED"}
    assert len(bpy.data.objects) == 0
    assert bpy.ops.focus_face.remove_head() == {"CANCELLED"}


def test_what_is_no_head_is_left_alone(head: bpy.types.Object) -> None:
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.view_layer.objects.active
    assert bpy.ops.focus_face.remove_head(head=cube.name) == {"CANCELLED"}
    assert bpy.ops.focus_face.remove_head(head="nobody") == {"CANCELLED"}
    assert cube.name in bpy.data.objects


@pytest.mark.parametrize("shape", [(256, 128), (100, 256), (1, 256), (7, 7)])
def test_previews_fit_into_a_square_the_right_way_up(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 10, np.uint8)
    picture[: shape[0] // 4, : shape[1] // 4] = 200
    square = pictures.fitted_square(picture)
    assert square.shape == (pictures.PREVIEW_SIDE, pictures.PREVIEW_SIDE, 4)
    shown = square[..., 3] > 0
    rows_shown, columns_shown = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    assert max(len(rows_shown), len(columns_shown)) == pictures.PREVIEW_SIDE
    assert len(rows_shown) / len(columns_shown) == pytest.approx(shape[0] / shape[1], rel=0.05, abs=0.6 / pictures.PREVIEW_SIDE)
    # Icons begin at the bottom.
    if min(shape) > 1:
        assert square[rows_shown[-1], columns_shown[0], 0] == 200


def test_icons_have_the_pictures_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "bpy", _Window())
    shown = pictures.Pictures()
    picture = np.full((64, 64, 3), (255, 0, 128), np.uint8)
    shown.show_preview(3, picture)
    icon = shown._icons["job 3"]
    assert tuple(icon.image_size) == (pictures.PREVIEW_SIDE, pictures.PREVIEW_SIDE)
    np.testing.assert_allclose(icon.image_pixels_float[:4], (1.0, 0.0, 128 / 255, 1.0), atol=1e-6)
    assert shown.previewed() == [3]
    shown.forget_preview(3)
    assert len(shown._icons) == 0
    shown.close()


class _Window:
    """Blender as if it had a window."""

    app = type("App", (), {"background": False})
    utils, path = bpy.utils, bpy.path
