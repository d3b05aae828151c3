"""Cycles renders through the matched camera, against the photo and the backend's own masks."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from tests.blender_addon.in_blender.samples import PHOTO, planned, read_sample


@pytest.fixture
def region() -> dict[str, np.ndarray]:
    arrays = read_sample("astronaut")[1]
    masks = {name: np.frombuffer(arrays[f"face0/{name}"].data, np.uint8).reshape(512, 512) > 127 for name in ("face_mask", "outlier_mask")}
    photo = np.frombuffer(arrays["photo"].data, np.uint8).reshape(512, 512, 3) / 255.0
    return {"face": masks["face_mask"], "rendered": masks["face_mask"] | masks["outlier_mask"], "photo": photo}


@pytest.mark.slow
@pytest.mark.parametrize(("texture", "difference"), [("photo", 0.06), ("albedo", 0.1)])
def test_the_render_looks_like_the_photo(region: dict[str, np.ndarray], tmp_path: Path, texture: str, difference: float) -> None:
    _build(texture)
    seen = _render(region["rendered"], tmp_path, samples=16)
    assert seen[region["rendered"]][:, 3].mean() > 0.99
    error = seen[region["face"]][:, :3] - region["photo"][region["face"]]
    assert np.abs(error).mean() < difference
    # Neither too dark nor too bright, nor of another hue: the light is the fitted one.
    assert np.abs(error.mean(0)).max() < 0.05


@pytest.mark.slow
def test_the_face_lies_on_the_photos_face(region: dict[str, np.ndarray], tmp_path: Path) -> None:
    _keep_face_only(_build("photo"))
    silhouette = _render(region["rendered"], tmp_path, samples=4)[..., 3] > 0.5
    assert (silhouette & region["rendered"]).sum() / (silhouette | region["rendered"]).sum() > 0.97


def _build(texture: str) -> bpy.types.Object:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    options = SceneOptions(use_photo_texture=texture == "photo")
    (head,) = build_photo(planned("astronaut", PHOTO, options), options, bpy.context.scene)
    return head


def _keep_face_only(head: bpy.types.Object) -> None:
    # Comes with bpy, and only after it.
    import bmesh

    is_face = [value.value for value in head.data.attributes["face"].data]
    polygons = bmesh.new()
    polygons.from_mesh(head.data)
    bmesh.ops.delete(polygons, geom=[face for face in polygons.faces if not is_face[face.index]], context="FACES")
    polygons.to_mesh(head.data)
    polygons.free()


def _render(around: np.ndarray, folder: Path, samples: int) -> np.ndarray:
    """Of the photo's size, sRGB with alpha, top row first; empty but for the surroundings of a mask, which saves time."""
    scene, (rows, columns) = bpy.context.scene, np.nonzero(around)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.render.film_transparent = True
    scene.render.use_border = True
    scene.render.border_min_x, scene.render.border_max_x = (columns.min() - 20) / 512, (columns.max() + 21) / 512
    scene.render.border_min_y, scene.render.border_max_y = 1 - (rows.max() + 21) / 512, 1 - (rows.min() - 20) / 512
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.filepath = str(folder / "render.png")
    bpy.ops.render.render(write_still=True)
    return np.array(bpy.data.images.load(scene.render.filepath).pixels).reshape(512, 512, 4)[::-1]
