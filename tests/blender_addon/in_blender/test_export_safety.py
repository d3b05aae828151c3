"""What exporting must not do: change the scene, leave halves behind, overwrite unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

from blender_addon.errors import AddonError
from blender_addon.export import FORMATS, ExportOptions, export_heads
from blender_addon.export import formats as export_formats
from blender_addon.export.operator import CLASSES
from blender_addon.export.options import with_suffix
from blender_addon.options import SceneOptions
from blender_addon.scene.find import camera_of
from tests.blender_addon.in_blender.exported import build_heads, colour_image, pixels, read_back, world_points

pytestmark = pytest.mark.usefixtures("empty_file")

_DATA = ("scenes", "objects", "meshes", "materials", "images", "cameras", "collections", "worlds", "shape_keys", "node_groups", "actions")


def _state() -> dict[str, Any]:
    """Everything that a user could see to have changed."""
    context, scene = bpy.context, bpy.context.scene
    blocks = {kind: sorted((block.name, block.users) for block in getattr(bpy.data, kind)) for kind in _DATA}
    objects = sorted(
        (
            block.name,
            block.mode,
            block.select_get(),
            block.hide_get(),
            tuple(map(tuple, block.matrix_world)),
            block.parent and block.parent.name,
        )
        for block in scene.objects
    )
    keys = [(block.name, block.value) for key in bpy.data.shape_keys for block in key.key_blocks]
    meshes = {mesh.name: sum(vertex.co.x for vertex in mesh.vertices) for mesh in bpy.data.meshes}
    images = sorted((image.name, image.filepath, image.is_dirty, image.packed_file is not None) for image in bpy.data.images)
    active = context.view_layer.objects.active
    place = (scene.name, scene.frame_current, scene.camera and scene.camera.name, active and active.name, context.mode)
    return {"blocks": blocks, "objects": objects, "keys": keys, "meshes": meshes, "images": images, "place": place}


def _in_mode(head: bpy.types.Object, mode: str) -> None:
    bpy.context.view_layer.objects.active = head
    bpy.ops.object.mode_set(mode=mode)


@pytest.mark.parametrize("include_identity", [True, False])
@pytest.mark.parametrize("mode", ["OBJECT", "EDIT", "SCULPT"])
def test_nothing_in_the_scene_changes(include_identity: bool, mode: str, tmp_path: Path) -> None:
    (head,) = build_heads()
    bpy.context.scene.frame_set(17)
    other = bpy.data.objects.new("other", None)
    bpy.context.scene.collection.objects.link(other)
    other.select_set(True)
    head.data.shape_keys.key_blocks["Identity 2"].value = 1.0
    head.location = (0.5, -1.0, 0.25)
    bpy.context.view_layer.update()
    _in_mode(head, mode)
    before = _state()
    for file_format in FORMATS:
        export_heads([head], tmp_path / "head", file_format, ExportOptions(include_identity=include_identity, camera=True))
        assert _state() == before, file_format


def test_what_was_done_in_edit_mode_is_written(tmp_path: Path) -> None:
    import bmesh

    (head,) = build_heads(SceneOptions(expression=False))
    top = int(np.argmax(world_points(head)[:, 2]))
    _in_mode(head, "EDIT")
    edited = bmesh.from_edit_mesh(head.data)
    edited.verts.ensure_lookup_table()
    edited.verts[top].co.z += 0.05
    bmesh.update_edit_mesh(head.data)
    expected = edited.verts[top].co.z
    written = export_heads([head], tmp_path / "head", "obj", ExportOptions())
    assert head.mode == "EDIT"
    assert world_points(read_back(written[0], "obj"))[:, 2].max() == pytest.approx(expected, abs=1e-5)


def test_a_head_alone_lies_at_the_origin_unless_it_is_to_keep_its_place(tmp_path: Path) -> None:
    (head,) = build_heads()
    head.location = (1.0, 2.0, 3.0)
    centred = export_heads([head], tmp_path / "centred", "glb", ExportOptions())
    kept = export_heads([head], tmp_path / "kept", "glb", ExportOptions(keep_place=True))
    first, second = (world_points(read_back(path, "glb")).mean(0) for path in (centred[0], kept[0]))
    np.testing.assert_allclose(second - first, (1.0, 2.0, 3.0), atol=1e-5)


def test_paint_that_was_not_saved_is_written_and_stays_unsaved(tmp_path: Path) -> None:
    (head,) = build_heads()
    image = colour_image(head)
    painted = np.ones((*image.size, 4), np.float32)
    painted[..., 0] = 0.2
    image.pixels.foreach_set(painted.ravel())
    assert image.is_dirty
    written = export_heads([head], tmp_path / "head", "glb", ExportOptions())
    assert image.is_dirty
    assert np.unique(pixels(colour_image(read_back(written[0], "glb"))).reshape(-1, 3), axis=0).tolist() == [[51, 255, 255]]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_exists_is_replaced_only_when_asked(file_format: str, tmp_path: Path) -> None:
    (head,) = build_heads()
    path = with_suffix(tmp_path / "head", file_format)
    path.write_bytes(b"somebody's work")
    with pytest.raises(AddonError, match="exists") as caught:
        export_heads([head], path, file_format, ExportOptions())
    assert caught.value.code == "exists"
    assert path.read_bytes() == b"somebody's work"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    export_heads([head], path, file_format, ExportOptions(overwrite=True))
    assert path.stat().st_size > 100_000


def test_a_picture_that_exists_beside_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "head_texture.png").write_bytes(b"somebody's picture")
    with pytest.raises(AddonError, match=r"head_texture\.png exists"):
        export_heads(build_heads(), tmp_path / "head", "obj", ExportOptions())
    assert [found.name for found in tmp_path.iterdir()] == ["head_texture.png"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_exporter_that_fails_leaves_nothing(file_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (head,) = build_heads()
    before = _state()

    def cut(scene: bpy.types.Scene, path: Path, kind: str, options: ExportOptions) -> None:
        export_formats.write(scene, path, kind, options)
        path.write_bytes(path.read_bytes()[:-2000])

    monkeypatch.setattr("blender_addon.export.heads.write", cut)
    with pytest.raises(AddonError, match="part of it only"):
        export_heads([head], tmp_path / "head", file_format, ExportOptions())
    assert not list(tmp_path.iterdir())
    assert _state() == before


_FULL_DISK = """
import resource, sys
from pathlib import Path
import bpy
sys.path.insert(0, {root!r})
from focus_backend.serving import wire
sys.modules["blender_addon.wire"] = wire
from tests.blender_addon.in_blender.exported import build_heads
from blender_addon.export import FORMATS, ExportOptions, export_heads
from blender_addon.errors import AddonError
heads = build_heads()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
for kind in FORMATS:
    try:
        export_heads(heads, Path({folder!r}) / "head", kind, ExportOptions())
    except AddonError as error:
        print("told", kind, error.code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited there")
def test_a_disk_without_room_leaves_nothing_in_any_format(tmp_path: Path) -> None:
    script = _FULL_DISK.format(root=str(Path(__file__).parents[3]), folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, errors="replace")
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("told")]
    assert told == [["told", kind, "output"] for kind in FORMATS], done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AddonError, match="could not be written") as caught:
        export_heads(build_heads(), tmp_path / "file" / "head", "glb", ExportOptions())
    assert caught.value.code == "output"


def test_a_format_that_does_not_exist_and_one_that_this_blender_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = build_heads()
    with pytest.raises(AddonError, match="no format 'stl'"):
        export_heads(found, tmp_path / "head", "stl", ExportOptions())
    monkeypatch.setitem(export_formats._EXPORTERS, "usd", ("wm", "no_such_export", ""))
    with pytest.raises(AddonError, match="cannot write usd"):
        export_heads(found, tmp_path / "head", "usd", ExportOptions())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "file_format", "expected"),
    [
        ("me", "glb", "me.glb"),
        ("me.2024", "glb", "me.2024.glb"),
        ("me.GLB", "glb", "me.GLB"),
        ("me.glb", "usd", "me.usdz"),
        ("me.usdc", "usd", "me.usdc"),
    ],
)
def test_endings(given: str, file_format: str, expected: str) -> None:
    assert with_suffix(Path(given), file_format) == Path(expected)


@pytest.fixture
def operator() -> Any:
    for found in CLASSES:
        bpy.utils.register_class(found)
    yield bpy.ops.focus_face.export
    for found in CLASSES:
        bpy.utils.unregister_class(found)


def test_operator_writes_the_head_of_the_active_camera(operator: Any, tmp_path: Path) -> None:
    (head,) = build_heads()
    bpy.context.view_layer.objects.active = camera_of(head)
    assert operator(filepath=str(tmp_path / "head.glb")) == {"FINISHED"}
    assert (tmp_path / "head.glb").is_file()


def test_operator_tells_what_is_in_the_way(operator: Any, tmp_path: Path) -> None:
    build_heads()
    (tmp_path / "head.glb").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"head\.glb exists"):
        operator(filepath=str(tmp_path / "head.glb"), which="ALL")


def test_operator_is_off_without_a_head(operator: Any) -> None:
    assert not operator.poll()
