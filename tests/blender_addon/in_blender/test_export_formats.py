"""Exported heads, read back with Blender's importers: size, axes, UV, textures, shape keys."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.export import FORMATS, ExportOptions, export_heads
from blender_addon.options import SceneOptions
from blender_addon.scene.appearance import show_texture
from blender_addon.scene.find import camera_of, heads
from tests.blender_addon.in_blender.exported import (
    IMPORTERS,
    build_heads,
    colour_image,
    corner_uv,
    mesh_object,
    metres,
    nearest,
    pixels,
    read_back,
    values,
    world_offsets,
    world_points,
)
from tests.blender_addon.in_blender.samples import PHOTO, read_sample

pytestmark = pytest.mark.usefixtures("empty_file")

WITH_KEYS = tuple(name for name in FORMATS if name != "obj")
# Floats of a few decimetres, written as text or turned by 90 degrees, lose no more.
CLOSE = 1e-6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Letters that paths may have."""
    return tmp_path / "Köpfe und mehr"


@pytest.mark.parametrize("file_format", FORMATS)
def test_head_comes_back_in_real_size_with_its_axes(file_format: str, folder: Path) -> None:
    (head,) = build_heads()
    written = export_heads([head], folder / "mein Kopf", file_format, ExportOptions())
    neutral = values("face0/neutral")
    # OBJ has no keys: its head is what the sliders make of it.
    expected = metres(neutral + values("face0/expression") if file_format == "obj" else neutral)
    back = read_back(written[0], file_format)
    points = world_points(back)
    assert np.abs(points - expected[nearest(points, expected)]).max() < CLOSE
    assert np.abs(points.min(0) - expected.min(0)).max() < CLOSE
    assert np.abs(points.max(0) - expected.max(0)).max() < CLOSE


@pytest.mark.parametrize("file_format", FORMATS)
def test_uv_comes_back(file_format: str, folder: Path) -> None:
    (head,) = build_heads(SceneOptions(expression=False))
    before = np.unique(corner_uv(head), axis=0)
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    after = corner_uv(read_back(written[0], file_format))
    # A place in UV is one place of the head.
    flat = np.zeros((len(before), 3)), np.zeros((len(after), 3))
    flat[0][:, :2], flat[1][:, :2] = before[:, 3:], after[:, 3:]
    assert np.abs(after - before[nearest(flat[1], flat[0])]).max() < 2e-6
    assert len(np.unique(after.round(4), axis=0)) > len(before) * 0.99


@pytest.mark.parametrize("file_format", FORMATS)
def test_quads_stay_quads_but_in_gltf(file_format: str, folder: Path) -> None:
    (head,) = build_heads()
    quads = len(head.data.polygons)
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    assert len(read_back(written[0], file_format).data.polygons) == (2 * quads if file_format == "glb" else quads)


@pytest.mark.parametrize("which", ["photo", "albedo"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_the_texture_that_is_shown_is_found_also_after_the_folder_was_moved(file_format: str, which: str, folder: Path) -> None:
    (head,) = build_heads()
    show_texture(head, which)
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    moved = shutil.move(folder, folder.with_name("elsewhere"))
    image = colour_image(read_back(Path(moved) / written[0].name, file_format))
    np.testing.assert_array_equal(pixels(image), values("face0/texture" if which == "photo" else "face0/albedo"))
    assert image.colorspace_settings.name == "sRGB"


@pytest.mark.parametrize("suffix", [".usdc", ".usda", ".usd"])
def test_usd_has_its_texture_beside_where_it_is_not_packed(suffix: str, folder: Path) -> None:
    written = export_heads(build_heads(), folder / f"head{suffix}", "usd", ExportOptions())
    assert [path.name for path in written] == [f"head{suffix}", "head_texture.png"]
    moved = shutil.move(folder, folder.with_name("elsewhere"))
    image = colour_image(read_back(Path(moved) / written[0].name, "usd"))
    np.testing.assert_array_equal(pixels(image), values("face0/texture"))


@pytest.mark.parametrize("file_format", WITH_KEYS)
def test_the_52_expressions_come_back_by_name_with_their_offsets(file_format: str, folder: Path) -> None:
    (head,) = build_heads()
    names, offsets = read_sample("astronaut")[0].model.expressions, metres(values("model/expressions"))
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    back = read_back(written[0], file_format)
    assert len(names) == 52
    assert [block.name for block in back.data.shape_keys.key_blocks if block.name in names] == names
    vertices = nearest(world_points(back), metres(values("face0/neutral")))
    # Lips touch: which of two vertices in one place a split vertex was is told by its offsets.
    for name, expected in zip(names, offsets, strict=True):
        wrong = np.abs(world_offsets(back, name) - expected[vertices]).max(1) > CLOSE
        assert wrong.mean() < 0.01, name
    assert np.abs(world_offsets(back, "jawOpen")).max() == pytest.approx(np.abs(offsets[names.index("jawOpen")]).max(), abs=CLOSE)


@pytest.mark.parametrize("file_format", WITH_KEYS)
def test_sliders_stand_where_they_stood(file_format: str, folder: Path) -> None:
    (head,) = build_heads()
    head.data.shape_keys.key_blocks["jawOpen"].value = 0.25
    head.data.shape_keys.key_blocks["Identity 3"].value = -1.5
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    blocks = read_back(written[0], file_format).data.shape_keys.key_blocks
    # USD has no spaces in names.
    moved = {block.name.replace("_", " "): block.value for block in blocks[1:] if block.value != 0}
    # Importers clip what is beyond their own slider's end.
    assert {name: value for name, value in moved.items() if not name.startswith("Identity")} == pytest.approx(
        {"Fitted expression": 1.0, "jawOpen": 0.25}, abs=1e-6
    )
    assert "Identity 10" in [block.name.replace("_", " ") for block in blocks]


@pytest.mark.parametrize("file_format", FORMATS)
def test_identity_becomes_part_of_the_head_where_its_sliders_are_left_out(file_format: str, folder: Path) -> None:
    (head,) = build_heads(SceneOptions(expression=False))
    head.data.shape_keys.key_blocks["Identity 1"].value = 2.0
    head.data.shape_keys.key_blocks["Identity 4"].value = -1.0
    identity = values("model/identity")
    expected = metres(values("face0/neutral") + 2 * identity[0] - identity[3])
    jaw = metres(values("model/expressions"))[read_sample("astronaut")[0].model.expressions.index("jawOpen")]
    written = export_heads([head], folder / "head", file_format, ExportOptions(include_identity=False))
    back = read_back(written[0], file_format)
    points = world_points(back)
    found = nearest(points, expected)
    assert np.abs(points - expected[found]).max() < CLOSE
    if file_format != "obj":
        assert not [block.name for block in back.data.shape_keys.key_blocks if block.name.startswith("Identity")]
        assert np.abs(world_offsets(back, "jawOpen")).max() == pytest.approx(np.abs(jaw).max(), abs=CLOSE)


@pytest.mark.parametrize("file_format", ["glb", "fbx", "usd", "blend"])
def test_camera_comes_back_with_its_view(file_format: str, folder: Path) -> None:
    (head,) = build_heads()
    camera = camera_of(head)
    place, angle = np.array(head.matrix_world.inverted() @ camera.matrix_world), camera.data.angle
    written = export_heads([head], folder / "head", file_format, ExportOptions(camera=True))
    back = read_back(written[0], file_format)
    (found,) = (block for block in bpy.context.scene.objects if block.type == "CAMERA")
    np.testing.assert_allclose(np.array(found.matrix_world)[:3, 3], place[:3, 3], atol=1e-5)
    # They look the same way; formats turn cameras about other axes.
    np.testing.assert_allclose(np.array(found.matrix_world)[:3, 2], place[:3, 2], atol=1e-5)
    assert found.data.angle == pytest.approx(angle, rel=1e-4)
    assert back.name.split(".")[0] == "astronaut"


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_camera_comes_unasked(file_format: str, folder: Path) -> None:
    written = export_heads(build_heads(), folder / "head", file_format, ExportOptions())
    read_back(written[0], file_format)
    assert not [block for block in bpy.context.scene.objects if block.type == "CAMERA"]


@pytest.mark.parametrize("file_format", [name for name in FORMATS if name != "blend"])
def test_a_scene_in_centimetres_gives_the_same_size(file_format: str, folder: Path) -> None:
    bpy.context.scene.unit_settings.scale_length = 0.01
    (head,) = build_heads(SceneOptions(unit_scale=100.0, expression=False))
    written = export_heads([head], folder / "head", file_format, ExportOptions())
    expected, points = metres(values("face0/neutral")), world_points(read_back(written[0], file_format))
    assert np.abs(np.ptp(points, 0) - np.ptp(expected, 0)).max() < 1e-5


@pytest.mark.parametrize("file_format", FORMATS)
def test_several_heads_come_each_in_its_file_or_together_in_their_places(file_format: str, folder: Path) -> None:
    found = build_heads(name="group")[:2]
    names, places = [head.name for head in found], [head.matrix_world.translation.x for head in found]
    each = export_heads(found, folder / "all", file_format, ExportOptions())
    assert {path.stem for path in each if path.suffix not in (".png", ".mtl")} == {f"all-{name}" for name in names}
    one = export_heads(found, folder / "one", file_format, ExportOptions(together=True))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    IMPORTERS[file_format](str(one[0]))
    bpy.context.view_layer.update()
    meshes = sorted(
        (block for block in bpy.context.scene.objects if block.type == "MESH"), key=lambda block: world_points(block)[:, 0].mean()
    )
    assert len(meshes) == 2
    middles = [world_points(block)[:, 0].mean() for block in meshes]
    assert middles[1] - middles[0] == pytest.approx(places[1] - places[0], abs=0.01)
    assert colour_image(meshes[0]).name != colour_image(meshes[1]).name


def test_a_blend_file_holds_the_head_and_what_belongs_to_it_only(folder: Path) -> None:
    bpy.data.objects.new("user's own", None)
    bpy.context.scene.collection.objects.link(bpy.data.objects["user's own"])
    (head,) = build_heads()
    written = export_heads([head], folder / "head", "blend", ExportOptions(camera=True))
    read_back(written[0], "blend")
    assert [block.name for block in bpy.data.objects] == ["astronaut", "astronaut camera"]
    assert [collection.name for collection in bpy.context.scene.collection.children] == ["FOCUS astronaut"]
    assert len(bpy.data.scenes) == 1
    assert heads(bpy.context.scene) == [mesh_object()]
    assert bpy.context.scene.camera == bpy.data.objects["astronaut camera"]
    assert bpy.context.scene.world is not None
    assert all(image.packed_file is not None for image in bpy.data.images)
    assert [block.image.name for block in bpy.data.cameras[0].background_images]
    assert mesh_object().vertex_groups


def test_nothing_tells_others_where_the_photo_lies(folder: Path) -> None:
    (head,) = build_heads()
    for file_format in ("glb", "fbx", "obj", "usd"):
        for path in export_heads([head], folder / "head", file_format, ExportOptions(camera=True, overwrite=True)):
            content = path.read_bytes()
            assert os.fsencode(PHOTO) not in content, path
            assert b"focus_mark" not in content, path
