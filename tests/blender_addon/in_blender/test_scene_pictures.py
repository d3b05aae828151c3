"""Material, images and world, read back from Blender."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import addon_utils
import bpy
import numpy as np
import pytest

from blender_addon.head import PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.scene import images
from blender_addon.scene.appearance import show_texture, texture_of, textures_of
from blender_addon.scene.build import build_photo
from blender_addon.scene.find import material_of
from blender_addon.scene.material import ALBEDO_NODE, MASK_NODE, PHOTO_NODE, image_node, principled_node
from blender_addon.scene.world import BACKDROP_NODE, BRIGHT_NODE, HAS_BACKDROP, MIX_NODE, RAYS_NODE, light_node, world_of
from tests.blender_addon.in_blender.samples import PHOTO, planned, read_sample

pytestmark = pytest.mark.usefixtures("empty_file")


@pytest.fixture
def plan() -> PhotoPlan:
    return planned("astronaut", PHOTO)


@pytest.fixture
def head(plan: PhotoPlan) -> bpy.types.Object:
    (block,) = build_photo(plan, SceneOptions(), bpy.context.scene)
    return block


@pytest.mark.parametrize(
    ("node", "array", "colour_space"),
    [(PHOTO_NODE, "texture", "sRGB"), (ALBEDO_NODE, "albedo", "sRGB"), (MASK_NODE, "outlier_mask", "Non-Color")],
)
def test_packed_pictures_decode_to_their_pixels(head: bpy.types.Object, node: str, array: str, colour_space: str) -> None:
    image = image_node(material_of(head), node).image
    assert image.packed_file is not None
    assert image.source == "FILE"
    assert image.colorspace_settings.name == colour_space
    sent = read_sample("astronaut")[1][f"face0/{array}"]
    expected = np.frombuffer(sent.data, np.uint8).reshape(sent.shape)[::-1]
    shown = np.rint(np.array(image.pixels).reshape(*sent.shape[:2], 4) * 255)
    np.testing.assert_array_equal(shown[..., :3], expected if expected.ndim == 3 else expected[..., None].repeat(3, -1))
    assert shown[..., 3].min() == 255


def test_one_texture_at_a_time_is_linked_straight_to_base_color(head: bpy.types.Object) -> None:
    for which, node in (("photo", PHOTO_NODE), ("albedo", ALBEDO_NODE), ("photo", PHOTO_NODE)):
        show_texture(head, which)
        links = principled_node(material_of(head)).inputs["Base Color"].links
        assert [link.from_node.name for link in links] == [node]
        assert texture_of(head) == which
        assert material_of(head).node_tree.nodes.active.name == node


@pytest.mark.parametrize(("use_photo_texture", "shown"), [(True, "photo"), (False, "albedo")])
def test_the_option_says_which_texture_is_shown(plan: PhotoPlan, use_photo_texture: bool, shown: str) -> None:
    (head,) = build_photo(plan, SceneOptions(use_photo_texture=use_photo_texture), bpy.context.scene)
    assert texture_of(head) == shown
    assert textures_of(head) == ("photo", "albedo")


def test_a_texture_that_was_not_asked_for_is_not_there(plan: PhotoPlan) -> None:
    only = dataclasses.replace(plan, heads=(dataclasses.replace(plan.heads[0], texture=None),))
    (head,) = build_photo(only, SceneOptions(), bpy.context.scene)
    assert textures_of(head) == ("albedo",)
    assert texture_of(head) == "albedo"
    show_texture(head, "photo")
    assert texture_of(head) == "albedo"


def test_the_skin_is_rough_scatters_a_little_and_reaches_the_output(head: bpy.types.Object) -> None:
    skin = principled_node(material_of(head))
    values = {name: skin.inputs[name].default_value for name in ("Roughness", "Subsurface Weight", "IOR", "Subsurface Scale")}
    assert values == pytest.approx({"Roughness": 0.5, "Subsurface Weight": 0.1, "IOR": 1.4, "Subsurface Scale": 0.00367})
    output = material_of(head).node_tree.get_output_node("ALL")
    assert output.inputs["Surface"].links[0].from_node == skin
    assert [slot.material for slot in head.material_slots] == [material_of(head)]


def test_scattering_grows_with_the_units_also_a_users_own(head: bpy.types.Object) -> None:
    principled_node(material_of(head)).inputs["Subsurface Scale"].default_value = 0.01
    options = SceneOptions(unit_scale=10.0)
    (again,) = build_photo(planned("astronaut", PHOTO, options), options, bpy.context.scene)
    assert principled_node(material_of(again)).inputs["Subsurface Scale"].default_value == pytest.approx(0.1)


def test_nothing_of_ours_is_lost_when_the_file_is_saved(head: bpy.types.Object, tmp_path: Path) -> None:
    before = {image.name: tuple(image.size) for image in bpy.data.images}
    bpy.context.scene.world = None
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "saved.blend"))
    opened = bpy.data.objects["astronaut"]
    assert {image.name: tuple(image.size) for image in bpy.data.images} == before
    assert np.array(image_node(material_of(opened), MASK_NODE).image.pixels).max() == 1.0
    assert np.array(light_node(world_of(opened)).image.pixels).max() > 0.1


def test_the_world_shows_the_planned_radiance(head: bpy.types.Object, plan: PhotoPlan) -> None:
    image = light_node(world_of(head)).image
    planned = plan.heads[0].environment
    pixels = np.array(image.pixels).reshape(*planned.shape[:2], 4)
    np.testing.assert_allclose(pixels[..., :3], planned, rtol=1e-3, atol=1e-4)
    assert image.is_float
    assert image.colorspace_settings.name in {"Linear Rec.709", "Non-Color"}
    assert bpy.context.scene.world == world_of(head)
    light = world_of(head).node_tree.nodes[BRIGHT_NODE]
    assert light.inputs["Color"].links[0].from_node == light_node(world_of(head))


def test_cycles_maps_the_light_no_finer_than_it_is_unless_its_user_wants(head: bpy.types.Object, plan: PhotoPlan) -> None:
    settings = world_of(head).cycles
    assert settings.sampling_method == "MANUAL"
    assert settings.sample_map_resolution == plan.heads[0].environment.shape[1]
    settings.sampling_method = "AUTOMATIC"
    list(build_photo(plan, SceneOptions(), bpy.context.scene))
    assert world_of(head).cycles.sampling_method == "AUTOMATIC"


def test_a_world_is_made_without_cycles(plan: PhotoPlan) -> None:
    addon_utils.disable("cycles")
    try:
        assert not hasattr(bpy.types.World, "cycles")
        (head,) = build_photo(plan, SceneOptions(), bpy.context.scene)
        assert bpy.context.scene.world == world_of(head)
    finally:
        addon_utils.enable("cycles")


def test_the_camera_alone_is_shown_a_backdrop(head: bpy.types.Object) -> None:
    nodes = world_of(head).node_tree.nodes
    mix = world_of(head).node_tree.get_output_node("ALL").inputs["Surface"].links[0].from_node
    assert mix.name == MIX_NODE
    sources = [socket.links[0].from_socket for socket in mix.inputs]
    assert [source.node.name for source in sources] == [RAYS_NODE, BRIGHT_NODE, BACKDROP_NODE]
    assert sources[0].name == "Is Camera Ray"
    assert tuple(nodes[BACKDROP_NODE].inputs["Color"].default_value) == pytest.approx((0.05, 0.05, 0.05, 1.0))


def test_a_world_of_before_gets_the_backdrop_once(head: bpy.types.Object, plan: PhotoPlan) -> None:
    world = world_of(head)
    _take_backdrop_out(world)
    world.node_tree.nodes[BRIGHT_NODE].inputs["Strength"].default_value = 3.0
    del world[HAS_BACKDROP]
    list(build_photo(plan, SceneOptions(), bpy.context.scene))
    assert MIX_NODE in world.node_tree.nodes
    assert world.node_tree.nodes[BRIGHT_NODE].inputs["Strength"].default_value == 3.0
    before = len(world.node_tree.nodes)
    list(build_photo(plan, SceneOptions(), bpy.context.scene))
    assert len(world.node_tree.nodes) == before


@pytest.mark.parametrize("is_of_before", [True, False])
def test_a_world_that_its_user_changed_gets_no_backdrop(head: bpy.types.Object, plan: PhotoPlan, is_of_before: bool) -> None:
    world = world_of(head)
    _take_backdrop_out(world)
    if is_of_before:
        del world[HAS_BACKDROP]
        world.node_tree.links.new(world.node_tree.nodes.new("ShaderNodeMapping").outputs[0], light_node(world).inputs["Vector"])
    list(build_photo(plan, SceneOptions(), bpy.context.scene))
    assert MIX_NODE not in world.node_tree.nodes


def test_a_deleted_light_comes_back_behind_the_backdrop(head: bpy.types.Object, plan: PhotoPlan) -> None:
    nodes = world_of(head).node_tree.nodes
    nodes.remove(light_node(world_of(head)))
    list(build_photo(plan, SceneOptions(), bpy.context.scene))
    assert nodes[BRIGHT_NODE].inputs["Color"].links[0].from_node == light_node(world_of(head))
    assert not nodes[BACKDROP_NODE].inputs["Color"].is_linked
    assert world_of(head).node_tree.get_output_node("ALL").inputs["Surface"].links[0].from_node.name == MIX_NODE


@pytest.mark.slow
def test_a_camera_that_looks_away_sees_grey_and_light_falls_as_before(head: bpy.types.Object, tmp_path: Path) -> None:
    for direction in ((1.0, 0.2, 0.1), (-0.3, -1.0, 0.4), (0.1, 0.3, -1.0), (-1.0, 0.1, 0.2)):
        np.testing.assert_allclose(_rendered_world(direction, tmp_path), 0.05, atol=1e-3)
    white, mirror = (_rendered_sphere(tmp_path, kind) for kind in ("Diffuse", "Glossy"))
    _take_backdrop_out(world_of(head))
    np.testing.assert_allclose(_rendered_sphere(tmp_path, "Diffuse"), white, rtol=0.02)
    np.testing.assert_allclose(_rendered_sphere(tmp_path, "Glossy"), mirror, rtol=0.02)
    assert white.min() > 0.1
    assert np.abs(mirror - 0.05).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("direction", [(1.0, 0.2, 0.1), (-0.3, -1.0, 0.4), (0.1, 0.3, -1.0), (-1.0, 0.1, 0.2)])
def test_cycles_sees_the_planned_radiance_in_its_direction(
    head: bpy.types.Object, plan: PhotoPlan, direction: tuple[float, float, float], tmp_path: Path
) -> None:
    # The camera's rays are the probe; they would see the backdrop.
    _take_backdrop_out(world_of(head))
    planned = plan.heads[0].environment
    azimuth, elevation = math.atan2(direction[1], direction[0]), math.asin(direction[2] / math.dist(direction, (0, 0, 0)))
    row = int((elevation / math.pi + 0.5) * planned.shape[0])
    column = int((0.5 - azimuth / (2 * math.pi)) * planned.shape[1])
    np.testing.assert_allclose(_rendered_world(direction, tmp_path), planned[row, column], rtol=0.15, atol=0.02)


def test_a_colour_configuration_with_other_names_does_not_hinder() -> None:
    image = bpy.data.images.new("any", 1, 1)
    images.set_colour_space(image, ("No such space", "Non-Color"))
    assert image.colorspace_settings.name == "Non-Color"
    images.set_colour_space(image, ("No such space",))
    assert image.colorspace_settings.name == "Non-Color"


def _take_backdrop_out(world: bpy.types.World) -> None:
    """The tree as it was before there were backdrops."""
    nodes = world.node_tree.nodes
    for name in (BACKDROP_NODE, RAYS_NODE, MIX_NODE):
        nodes.remove(nodes[name])
    world.node_tree.links.new(nodes[BRIGHT_NODE].outputs["Background"], world.node_tree.get_output_node("ALL").inputs["Surface"])


def _rendered_sphere(folder: Path, kind: str) -> np.ndarray:
    """Mean linear radiance of the middle of a white sphere, seen from the front."""
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.1, location=(0, 0, 0))
    sphere = bpy.context.active_object
    bpy.ops.object.shade_smooth()
    material = bpy.data.materials.new(kind)
    if material.node_tree is None:
        material.use_nodes = True
    nodes = material.node_tree.nodes
    shader = nodes.new(f"ShaderNodeBsdf{kind}")
    shader.inputs["Color"].default_value = (1, 1, 1, 1)
    material.node_tree.links.new(shader.outputs[0], material.node_tree.get_output_node("ALL").inputs["Surface"])
    sphere.data.materials.append(material)
    seen = _rendered_world((0, 1, 0), folder, shown=sphere, samples=256)
    bpy.data.objects.remove(sphere)
    return seen


def _rendered_world(
    direction: tuple[float, float, float], folder: Path, shown: bpy.types.Object | None = None, samples: int = 1
) -> np.ndarray:
    """Linear radiance that a narrow camera a metre off the middle sees there, with nothing but `shown` in its way."""
    from mathutils import Vector

    scene = bpy.context.scene
    for block in list(scene.objects):
        block.hide_render = block != shown
    camera = bpy.data.objects.new("probe", bpy.data.cameras.new("probe"))
    scene.collection.objects.link(camera)
    camera.data.lens = 1000.0
    camera.location = -Vector(direction).normalized()
    camera.rotation_mode = "QUATERNION"
    camera.rotation_quaternion = Vector(direction).to_track_quat("-Z", "Y")
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = 4
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(folder / "probe.exr")
    bpy.ops.render.render(write_still=True)
    seen = bpy.data.images.load(scene.render.filepath)
    pixels = np.array(seen.pixels).reshape(-1, 4)[:, :3].mean(0)
    bpy.data.images.remove(seen)
    bpy.data.objects.remove(camera)
    return pixels
