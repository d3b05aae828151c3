# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The camera that sees the head as the photo shows it."""

from __future__ import annotations

import bpy
from mathutils import Matrix

from ..head import Head, MatchedCamera
from .images import drop_unused, write_photo, write_picture
from .marks import is_ours_to_change, mark, role_of

SENSOR_WIDTH_MM = 36.0
WIDTH = "focus_mark_width"
HEIGHT = "focus_mark_height"
# On a scene that looks through a camera of ours: the one that it had before. Not on the camera, or exporting and appending
# the head would take the user's camera along.
BEFORE = "focus_mark_camera_before"
# Metres: nearer than any face that a photo shows, and far enough for a set around it.
_CLIP_START, _CLIP_END = 0.01, 100.0
_DISPLAY_SIZE = 0.1


def write_camera(camera: bpy.types.Object | None, plan: Head, head: bpy.types.Object, key: str, unit_scale: float) -> bpy.types.Object:
    """The matched camera as child of the head: `camera` brought up to date, or a new one that is in no collection yet.

    Args:
        camera: of the head so far.
        plan: has a camera.
        head: its object.
        key: of the head.
        unit_scale: Blender units a metre.
    """
    assert plan.camera is not None
    if camera is None:
        camera = bpy.data.objects.new(f"{plan.name} camera", bpy.data.cameras.new(f"{plan.name} camera"))
        mark(camera, "camera", key)
        mark(camera.data, "camera", key)
        camera.data.display_size = _DISPLAY_SIZE * unit_scale
    camera.parent = head
    # A child of the head: whoever moves, turns or scales the head moves the photo's view along.
    camera.matrix_parent_inverse = Matrix.Identity(4)
    camera.matrix_basis = Matrix([[float(number) for number in row] for row in plan.camera.matrix])
    _write_lens(camera.data, plan.camera, unit_scale)
    _write_backgrounds(camera.data, plan, key)
    return camera


def show_camera(camera: bpy.types.Object, scene: bpy.types.Scene) -> None:
    """Makes it the scene's; the scene's former camera is remembered."""
    former = scene.camera
    if former is not None and role_of(former) != "camera":
        scene[BEFORE] = former
    scene.camera = camera


def give_camera_back(camera: bpy.types.Object) -> None:
    """Scenes that look through a camera of ours, which is about to go, get what they had before, or any other camera of theirs."""
    for scene in bpy.data.scenes:
        if scene.library is not None:
            continue
        if scene.camera == camera:
            scene.camera = _other_camera(camera, scene)
        if BEFORE in scene and (scene.camera is None or role_of(scene.camera) != "camera"):
            del scene[BEFORE]


def _other_camera(camera: bpy.types.Object, scene: bpy.types.Scene) -> bpy.types.Object | None:
    former = scene.get(BEFORE)
    others = [block for block in scene.objects if block != camera]
    # Who deletes an object takes it out of the scene; the memory of it is no reason to bring it back.
    if former is not None and former in others:
        return former
    # The user's own first.
    cameras = sorted((block for block in others if block.type == "CAMERA"), key=lambda block: role_of(block) == "camera")
    return cameras[0] if cameras else None


def overlay_of(camera: bpy.types.Object | None) -> bpy.types.CameraBackgroundImage | None:
    """The background that marks the outliers; None where there is none."""
    return None if camera is None else background(camera.data, "overlay")


def background(camera: bpy.types.Camera, role: str) -> bpy.types.CameraBackgroundImage | None:
    """The background image that was put there as `role`: "photo" or "overlay"."""
    place = camera.get(f"focus_mark_background_{role}")
    shown = [entry for entry in camera.background_images if entry.image is not None]
    return next((entry for entry in shown if entry.image == place), None) if place is not None else None


def _write_lens(camera: bpy.types.Camera, plan: MatchedCamera, unit_scale: float) -> None:
    camera.type = "PERSP"
    camera.sensor_width = SENSOR_WIDTH_MM
    # Horizontal, also for portraits: lens and shift then count in widths of the photo.
    camera.sensor_fit = "HORIZONTAL"
    camera.lens_unit = "MILLIMETERS"
    camera.lens = plan.focal_length_px * SENSOR_WIDTH_MM / plan.width_px
    across, down = plan.principal_point_px
    camera.shift_x = (plan.width_px / 2 - across) / plan.width_px
    camera.shift_y = (down - plan.height_px / 2) / plan.width_px
    distance = float((plan.matrix[:3, 3] ** 2).sum()) ** 0.5
    camera.clip_start = _CLIP_START * unit_scale
    camera.clip_end = max(_CLIP_END * unit_scale, 4 * distance)
    camera[WIDTH], camera[HEIGHT] = plan.width_px, plan.height_px


def _write_backgrounds(camera: bpy.types.Camera, plan: Head, key: str) -> None:
    photo, overlay = background(camera, "photo"), background(camera, "overlay")
    was_new = photo is None
    before = [None if entry is None else entry.image for entry in (photo, overlay)]
    images = [write_photo(plan.photo, plan.photo_sha256), None]
    if plan.outlier_overlay is not None:
        images[1] = write_picture(plan.outlier_overlay, before[1], "overlay", key)
    for role, entry, image in zip(("photo", "overlay"), (photo, overlay), images, strict=True):
        _write_background(camera, role, entry, image)
    for image_before, image in zip(before, images, strict=True):
        if image_before is not None and image_before != image:
            drop_unused(image_before)
    if was_new:
        camera.show_background_images = True


def _write_background(
    camera: bpy.types.Camera, role: str, entry: bpy.types.CameraBackgroundImage | None, image: bpy.types.Image | None
) -> None:
    name = f"focus_mark_background_{role}"
    if image is None:
        if entry is not None:
            camera.background_images.remove(entry)
        if name in camera:
            del camera[name]
        return
    if entry is None:
        entry = camera.background_images.new()
        entry.alpha = 1.0
        # The overlay lies over the head, or the head would hide just what it marks.
        entry.display_depth = "BACK" if role == "photo" else "FRONT"
        entry.frame_method = "FIT"
        entry.show_background_image = role == "photo"
        entry.show_expanded = False
    entry.image = image
    camera[name] = image


def is_camera_of_ours(block: bpy.types.Object) -> bool:
    """Whether an object is a matched camera that may be changed."""
    return block.type == "CAMERA" and is_ours_to_change(block, "camera") and role_of(block.data) == "camera"
