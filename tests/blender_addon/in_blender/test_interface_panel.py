"""What the panel says of photos and errors."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import pytest

import blender_addon
from blender_addon.errors import AddonError
from blender_addon.interface import heads_panel, runtime
from blender_addon.interface.remedies import in_one_line, remedy_of


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    blender_addon.register()
    yield
    blender_addon.unregister()


def test_the_field_shows_the_photos_name_and_takes_a_path() -> None:
    panel = bpy.context.window_manager.focus_face
    panel.photo_name = "/photos/of people/größe.jpg "
    assert runtime.running().photos == ["/photos/of people/größe.jpg"]
    assert panel.photo == "/photos/of people/größe.jpg"
    assert panel.photo_name == "größe.jpg"
    # Left as it was.
    panel.photo_name = "größe.jpg"
    assert panel.photo == "/photos/of people/größe.jpg"


def test_photos_are_forgotten() -> None:
    assert not bpy.ops.focus_face.forget_photo.poll()
    runtime.choose_photos(["/a.jpg", "/b.jpg"])
    assert bpy.ops.focus_face.forget_photo() == {"FINISHED"}
    assert runtime.running().photos == []


def test_advice_is_for_users_of_blender() -> None:
    error = AddonError("wall.png: no face was found", "give landmarks with --landmarks", "no-face")
    assert "crop the photo" in remedy_of(error)
    assert in_one_line(error).startswith("wall.png: no face was found: crop")
    assert in_one_line(AddonError("a", "b")) == "a: b"
    assert in_one_line(AddonError("a")) == "a"


def test_there_is_no_list_of_heads_before_the_first() -> None:
    bpy.ops.mesh.primitive_cube_add()
    assert not heads_panel.FOCUS_FACE_PT_heads.poll(bpy.context)
