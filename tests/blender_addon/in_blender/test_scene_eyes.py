"""Dark eyes under light from all sides, rendered by Cycles."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from tests.blender_addon.in_blender.samples import PHOTO, planned

SIDE = 32
# Metres: half the distance of the pupils, and the width of the view.
PUPIL_X, VIEW = 0.031, 0.016


@pytest.fixture
def scene(tmp_path):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 64, False
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(tmp_path / "eye.exr")
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    next(node for node in scene.world.node_tree.nodes if node.type == "BACKGROUND").inputs["Color"].default_value = (1, 1, 1, 1)
    yield scene
    bpy.ops.wm.read_factory_settings(use_empty=True)


def add_camera(scene: bpy.types.Scene) -> None:
    camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    scene.collection.objects.link(camera)
    camera.data.type, camera.data.ortho_scale = "ORTHO", VIEW
    camera.location, camera.rotation_euler = (PUPIL_X, -0.5, 0.0), (np.pi / 2, 0.0, 0.0)
    scene.camera = camera


def test_brown_eyes_stay_brown(scene):
    options = SceneOptions(set_up_scene=False, camera=False, world=False, mask=False, expression=False)
    (head,) = build_photo(planned("astronaut", PHOTO, options), options, scene)
    head.data.shape_keys.key_blocks["eyeWideLeft"].value = 1.0
    add_camera(scene)
    bpy.ops.render.render(write_still=True)
    picture = bpy.data.images.load(scene.render.filepath)
    pixels = np.array(picture.pixels[:]).reshape(-1, 4)[:, :3]
    iris = pixels[pixels.sum(axis=1).argsort()[:200]].mean(axis=0)
    # In the texture red is 2.9 times blue; shine adds as much to both.
    assert iris[0] > 1.85 * iris[2]
