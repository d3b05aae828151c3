"""From a photo to a head in the scene, with a real backend.

`FOCUS_BRIEF_BACKEND` names a program to be started whose fit is brief, or `FOCUS_SERVER` the address of a server of this user.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
import pytest

import blender_addon
from blender_addon.interface import runtime
from blender_addon.scene import appearance, find
from tests.blender_addon.in_blender.samples import PHOTO

_BACKEND, _SERVER = os.environ.get("FOCUS_BRIEF_BACKEND", ""), os.environ.get("FOCUS_SERVER", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.newest,
    pytest.mark.skipif(not (_BACKEND or _SERVER), reason="neither FOCUS_BRIEF_BACKEND nor FOCUS_SERVER says which backend to use"),
]


@pytest.fixture(scope="module")
def switched_on() -> Iterator[None]:
    addon = bpy.context.preferences.addons.new()
    addon.module = "blender_addon"
    blender_addon.register()
    if _SERVER:
        addon.preferences.backend_mode, addon.preferences.address = "CONNECT", _SERVER
    else:
        addon.preferences.executable, addon.preferences.device = _BACKEND, "cpu"
    yield
    blender_addon.unregister()
    bpy.context.preferences.addons.remove(addon)


@pytest.fixture(autouse=True)
def empty_scene(switched_on: None) -> None:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    runtime.dismiss_error()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """In a folder whose name needs care."""
    folder = tmp_path / "Fotos für Änne"
    folder.mkdir()
    return Path(shutil.copy(PHOTO, folder / "astro naut.jpg"))


def test_a_photo_becomes_a_head(photo: Path) -> None:
    assert bpy.ops.focus_face.reconstruct(filepath=str(photo)) == {"FINISHED"}
    (head,) = find.heads(bpy.context.scene)
    assert bpy.context.view_layer.objects.active == head
    assert len(head.data.shape_keys.key_blocks) >= 1 + 1 + 52
    assert appearance.texture_of(head) == "photo"
    assert bpy.context.scene.camera == find.camera_of(head)
    assert 0.1 < head.dimensions.z < 0.5
    assert runtime.running().status.light == "ready"


def test_the_same_photo_again_updates_and_another_is_added(photo: Path) -> None:
    bpy.ops.focus_face.reconstruct(filepath=str(photo))
    (head,) = find.heads(bpy.context.scene)
    head.location = (1.0, 2.0, 3.0)
    bpy.ops.focus_face.reconstruct(filepath=str(photo), expression=False)
    assert find.heads(bpy.context.scene) == [head]
    assert tuple(head.location) == (1.0, 2.0, 3.0)
    assert head.data.shape_keys.key_blocks[1].value == 0.0
    assert len(bpy.data.meshes) == 1


def test_units_and_what_to_create_are_heeded(photo: Path) -> None:
    bpy.ops.focus_face.reconstruct(filepath=str(photo), unit_scale=100.0, camera=False, world=False, mask=False, identity=False)
    (head,) = find.heads(bpy.context.scene)
    assert 10 < head.dimensions.z < 50
    assert find.camera_of(head) is None
    assert [block.type for block in bpy.context.scene.objects] == ["MESH"]


def test_a_bad_photo_among_good_ones_does_not_stop_them(photo: Path, capfd: pytest.CaptureFixture) -> None:
    (photo.parent / "broken.jpg").write_bytes(b"no photo at all" * 100)
    files = [{"name": "broken.jpg"}, {"name": photo.name}]
    assert bpy.ops.focus_face.reconstruct(directory=str(photo.parent), files=files) == {"FINISHED"}
    assert len(find.heads(bpy.context.scene)) == 1
    assert "broken.jpg" in capfd.readouterr().out


def test_a_photo_without_a_face_says_so_and_what_to_do(tmp_path: Path) -> None:
    wall = bpy.data.images.new("wall", 640, 480)
    wall.pixels.foreach_set(np.random.default_rng(0).random(640 * 480 * 4, dtype=np.float32))
    wall.filepath_raw, wall.file_format = str(tmp_path / "wall.png"), "PNG"
    wall.save()
    with pytest.raises(RuntimeError, match=r"wall\.png.*: .+"):
        bpy.ops.focus_face.reconstruct(filepath=str(tmp_path / "wall.png"))
    assert find.heads(bpy.context.scene) == []
    assert runtime.shown_error().code == "no-face"


def test_a_photo_under_way_is_given_up_when_a_file_is_opened(photo: Path) -> None:
    from blender_addon.interface.reconstruct import submit
    from blender_addon.options import ReconstructionOptions, SceneOptions

    (job,) = submit([photo], ReconstructionOptions(), SceneOptions(), bpy.context.scene)
    for _ in range(5):
        runtime.advance(0.01)
        time.sleep(0.02)
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    assert job.state == "cancelled"
    while runtime.is_busy():
        runtime.advance(0.01)
        time.sleep(0.02)
    assert find.heads(bpy.context.scene) == []
    assert bpy.ops.focus_face.reconstruct(filepath=str(photo)) == {"FINISHED"}


@pytest.mark.skipif(not _BACKEND, reason="the backend is not ours to stop")
def test_a_stopped_backend_is_looked_for_where_the_preferences_say_and_started_again(photo: Path) -> None:
    assert runtime.log_file().is_file()
    assert bpy.ops.focus_face.stop_backend() == {"FINISHED"}
    assert runtime.running().status.light == "off"
    ours = bpy.context.preferences.addons["blender_addon"].preferences
    ours.executable = str(photo.parent / "nowhere")
    with pytest.raises(RuntimeError, match="nowhere"):
        bpy.ops.focus_face.reconstruct(filepath=str(photo))
    assert runtime.shown_error().code == "no-backend"
    ours.executable = _BACKEND
    assert bpy.ops.focus_face.start_backend() == {"FINISHED"}
    assert bpy.ops.focus_face.reconstruct(filepath=str(photo)) == {"FINISHED"}
