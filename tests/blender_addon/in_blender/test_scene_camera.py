"""The matched camera projects as the photo's does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Euler, Vector

from blender_addon.head import Head, PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.scene.appearance import is_overlay_shown, look_through, show_overlay
from blender_addon.scene.build import build_photo
from blender_addon.scene.camera import background
from blender_addon.scene.find import camera_of
from tests.blender_addon.in_blender.samples import PHOTO, planned, read_sample

pytestmark = pytest.mark.usefixtures("empty_file")


@pytest.fixture
def plan() -> PhotoPlan:
    return planned("astronaut", PHOTO)


@pytest.mark.parametrize(
    ("width", "height", "principal_point"),
    [
        (512, 512, (256.0, 256.0)),
        (1200, 800, (600.0, 400.0)),
        (800, 1200, (400.0, 600.0)),
        (640, 480, (100.5, 431.25)),
        (480, 640, (470.0, 3.0)),
    ],
)
def test_vertices_fall_on_their_pixels(plan: PhotoPlan, width: int, height: int, principal_point: tuple[float, float]) -> None:
    head = plan.heads[0]
    camera = dataclasses.replace(head.camera, width_px=width, height_px=height, principal_point_px=principal_point)
    block = _built(plan, dataclasses.replace(head, camera=camera))
    np.testing.assert_allclose(_seen(block), _expected(dataclasses.replace(head, camera=camera)), atol=0.05)
    assert (bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y) == (width, height)


@pytest.mark.parametrize("unit_scale", [0.01, 1.0, 100.0])
def test_a_head_of_any_size_is_seen_alike_and_inside_the_clip_range(unit_scale: float) -> None:
    options = SceneOptions(unit_scale=unit_scale)
    scaled = planned("astronaut", PHOTO, options)
    block = _built(scaled, scaled.heads[0], options)
    np.testing.assert_allclose(_seen(block), _expected(scaled.heads[0]), atol=0.05)
    camera = camera_of(block)
    depths = [-(camera.matrix_world.inverted() @ (block.matrix_world @ vertex.co)).z for vertex in block.data.vertices]
    assert camera.data.clip_start < min(depths)
    assert max(depths) < camera.data.clip_end


def test_the_match_survives_moving_turning_and_scaling_the_head(plan: PhotoPlan) -> None:
    block = _built(plan, plan.heads[0])
    block.location, block.rotation_euler, block.scale = (3, -2, 1), Euler((0.4, 1.0, -2.0)), (2, 2, 2)
    np.testing.assert_allclose(_seen(block), _expected(plan.heads[0]), atol=0.05)


def test_photo_lies_behind_and_overlay_over_the_head_but_hidden(plan: PhotoPlan) -> None:
    block = _built(plan, _with_photo_file(plan.heads[0], str(PHOTO)))
    camera = camera_of(block).data
    assert camera.show_background_images
    photo, overlay = background(camera, "photo"), background(camera, "overlay")
    assert Path(bpy.path.abspath(photo.image.filepath)) == PHOTO
    assert (photo.alpha, photo.display_depth, photo.show_background_image) == (1.0, "BACK", True)
    assert (overlay.alpha, overlay.display_depth, overlay.show_background_image) == (1.0, "FRONT", False)
    assert tuple(photo.image.size) == tuple(overlay.image.size) == (512, 512)


def test_a_photo_that_blender_does_not_read_is_packed(plan: PhotoPlan) -> None:
    photo = background(camera_of(_built(plan, plan.heads[0])).data, "photo").image
    sent = read_sample("astronaut")[1]["photo"]
    pixels = np.rint(np.array(photo.pixels).reshape(512, 512, 4) * 255)[::-1, :, :3]
    np.testing.assert_array_equal(pixels, np.frombuffer(sent.data, np.uint8).reshape(sent.shape))


def test_the_overlay_has_alpha_and_is_shown_on_demand(plan: PhotoPlan) -> None:
    block = _built(plan, plan.heads[0])
    pixels = np.array(background(camera_of(block).data, "overlay").image.pixels).reshape(512, 512, 4)
    assert pixels[..., 3].min() == 0.0
    assert pixels[..., 3].max() > 0.3
    show_overlay(block, True)
    assert is_overlay_shown(block)
    show_overlay(block, False)
    assert not is_overlay_shown(block)


def test_without_mask_no_overlay() -> None:
    options = SceneOptions(mask=False)
    plain = planned("astronaut", PHOTO, options)
    block = _built(plain, plain.heads[0], options)
    show_overlay(block, True)
    assert not is_overlay_shown(block)
    assert len(camera_of(block).data.background_images) == 1


def test_a_photo_that_went_away_is_shown_as_missing(plan: PhotoPlan) -> None:
    block = _built(plan, _with_photo_file(plan.heads[0], "/nowhere/gone.jpg"))
    assert background(camera_of(block).data, "photo").image.filepath == "/nowhere/gone.jpg"


def test_the_users_own_image_of_the_photo_is_shown_and_stays_the_users(plan: PhotoPlan) -> None:
    own = bpy.data.images.load(str(PHOTO))
    own.name = "mine"
    block = _built(plan, _with_photo_file(plan.heads[0], str(PHOTO)))
    assert background(camera_of(block).data, "photo").image == own
    assert not own.keys()


def test_a_scene_is_set_up_only_on_demand(plan: PhotoPlan) -> None:
    scene = bpy.context.scene
    before = (scene.camera, scene.world, scene.render.resolution_x, scene.render.resolution_y)
    block = _built(plan, plan.heads[0], SceneOptions(set_up_scene=False))
    assert (scene.camera, scene.world, scene.render.resolution_x, scene.render.resolution_y) == before
    scene.render.resolution_percentage = 50
    view = scene.view_settings
    assert view.view_transform != "Standard"
    view.exposure, view.gamma = 2.0, 1.5
    look_through(block, scene)
    assert (view.view_transform, view.look, view.exposure, view.gamma) == ("Standard", "None", 0.0, 1.0)
    assert scene.camera == camera_of(block)
    assert (scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage) == (512, 512, 100)
    assert scene.world is not None


def _built(plan: PhotoPlan, head: Head, options: SceneOptions | None = None) -> bpy.types.Object:
    (block,) = build_photo(dataclasses.replace(plan, heads=(head,)), options or SceneOptions(), bpy.context.scene)
    return block


def _with_photo_file(head: Head, path: str) -> Head:
    return dataclasses.replace(head, photo=dataclasses.replace(head.photo, path=path, png=b""))


def _expected(head: Head) -> np.ndarray:
    """Pixels of the neutral vertices, by the photo's own camera."""
    camera, to_camera = head.camera, np.linalg.inv(head.camera.matrix.astype(np.float64))
    points = head.mesh.vertices[::50] @ to_camera[:3, :3].T + to_camera[:3, 3]
    x = camera.principal_point_px[0] + camera.focal_length_px * points[:, 0] / -points[:, 2]
    y = camera.principal_point_px[1] - camera.focal_length_px * points[:, 1] / -points[:, 2]
    return np.stack([x, y], axis=1)


def _seen(block: bpy.types.Object) -> np.ndarray:
    """Pixels of the neutral vertices, by Blender's camera."""
    scene, camera = bpy.context.scene, camera_of(block)
    bpy.context.view_layer.update()
    width, height = scene.render.resolution_x, scene.render.resolution_y
    vertices = [block.matrix_world @ Vector(vertex.co) for vertex in list(block.data.vertices)[::50]]
    views = [world_to_camera_view(scene, camera, vertex) for vertex in vertices]
    return np.array([(view.x * width, (1 - view.y) * height) for view in views])
