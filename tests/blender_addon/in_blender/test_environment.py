"""The planned environment, rendered by Cycles on a white matte sphere, against the lighting's own formula."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from blender_addon.planning.environment import environment, spherical_harmonics
from blender_addon.planning.frames import MODEL_TO_OBJECT
from tests.blender_addon.in_blender.samples import read_sample

SIDE = 48
AXES = np.concatenate([np.eye(3), -np.eye(3)])
# Corners from which three axes of object space show at once.
CORNERS = (np.ones(3), -np.ones(3))


@pytest.fixture
def scene(tmp_path) -> Iterator[bpy.types.Scene]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 256
    scene.cycles.use_denoising = False
    scene.cycles.pixel_filter_type = "BOX"
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(tmp_path / "view.exr")
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    yield scene
    bpy.ops.wm.read_factory_settings(use_empty=True)


def add_white_sphere(scene: bpy.types.Scene) -> None:
    bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32, radius=1)
    sphere = bpy.context.active_object
    bpy.ops.object.shade_smooth()
    material = bpy.data.materials.new("white")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    diffuse, output = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeOutputMaterial")
    diffuse.inputs["Color"].default_value = (1, 1, 1, 1)
    material.node_tree.links.new(diffuse.outputs["BSDF"], output.inputs["Surface"])
    sphere.data.materials.append(material)


def light_by(scene: bpy.types.Scene, radiance: np.ndarray) -> None:
    rows, columns, _ = radiance.shape
    image = bpy.data.images.new("light", columns, rows, float_buffer=True)
    image.colorspace_settings.name = "Non-Color"
    image.pixels.foreach_set(np.concatenate([radiance, np.ones((rows, columns, 1))], axis=2).astype(np.float32).ravel())
    scene.world = world = bpy.data.worlds.new("light")
    # A map of where light comes from would take a second a render, and changes nothing but the noise.
    world.cycles.sampling_method = "NONE"
    world.use_nodes = True
    nodes = world.node_tree.nodes
    texture = nodes.new("ShaderNodeTexEnvironment")
    texture.image = image
    background = next(node for node in nodes if node.type == "BACKGROUND")
    world.node_tree.links.new(texture.outputs["Color"], background.inputs["Color"])


def render_axes(scene: bpy.types.Scene, corner: np.ndarray) -> dict[int, np.ndarray]:
    """Linear RGB of the sphere where its normals are axes, by index, of those that a camera far away in the direction of `corner` sees."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    camera.data.type, camera.data.ortho_scale = "ORTHO", 2
    camera.location = corner * 3
    camera.rotation_euler = Vector(corner).to_track_quat("Z", "Y").to_euler()
    scene.camera = camera
    bpy.ops.render.render(write_still=True)
    picture = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(SIDE * SIDE * 4, np.float32)
    picture.pixels.foreach_get(pixels)
    bpy.data.images.remove(picture)
    pixels = pixels.reshape(SIDE, SIDE, 4)[..., :3]
    seen = {}
    for index, axis in enumerate(AXES):
        if axis @ corner > 0:
            column, row = (round(place * SIDE) for place in world_to_camera_view(scene, camera, Vector(axis))[:2])
            seen[index] = pixels[row - 2 : row + 2, column - 2 : column + 2].mean(axis=(0, 1))
    bpy.data.objects.remove(camera)
    return seen


def turned(angle: float) -> np.ndarray:
    """A rotation from model to camera space about an axis that is none of the frame's."""
    axis = np.array([0.48, 0.6, 0.64])
    cross = np.cross(np.eye(3), axis)
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross.T + (1 - np.cos(angle)) * np.outer(axis, axis)


def formula(lighting: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Of docs/conventions.md, at the axes of object space as normals."""
    return spherical_harmonics(AXES @ MODEL_TO_OBJECT @ rotation.T) @ lighting


def rendered_and_formula(scene: bpy.types.Scene, lighting: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    add_white_sphere(scene)
    light_by(scene, environment(lighting, rotation))
    seen = render_axes(scene, CORNERS[0]) | render_axes(scene, CORNERS[1])
    return np.stack([seen[index] for index in range(len(AXES))]), formula(lighting, rotation)


def test_light_that_is_nowhere_negative_is_met(scene):
    lighting = np.random.default_rng(5).normal(0, 0.12, (9, 3))
    lighting[0] = [3.5, 3.0, 2.5]
    rendered, wanted = rendered_and_formula(scene, lighting, turned(0.8))
    # 256 samples in each of 16 pixels.
    assert np.ptp(wanted, axis=0).min() > 0.15
    np.testing.assert_allclose(rendered, wanted, rtol=0.03)


def test_light_of_a_photo_is_met_closely(scene):
    result, _ = read_sample("astronaut")
    document = result.faces[0].document
    rendered, wanted = rendered_and_formula(scene, np.array(document["lighting"]), np.array(document["camera"]["rotation"]))
    # Its radiance would be negative from behind; what cannot be had is 0.06 of 2.6.
    np.testing.assert_allclose(rendered, wanted, atol=0.1)
    assert np.ptp(wanted, axis=0).min() > 1
