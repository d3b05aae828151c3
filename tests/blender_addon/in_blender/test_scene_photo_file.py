"""The photo as a file that stays where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
import pytest

from blender_addon.head import PhotoPlan, Picture
from blender_addon.options import SceneOptions
from blender_addon.planning.photo_file import shows_upright
from blender_addon.planning.plan import plan_photo
from blender_addon.planning.png import encode_png
from blender_addon.scene.build import build_photo
from blender_addon.scene.camera import background
from blender_addon.scene.find import camera_of
from tests.blender_addon.in_blender.samples import FOLDER, read_sample


@pytest.fixture
def plan(tmp_path) -> Iterator[PhotoPlan]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    result, arrays = read_sample("astronaut")
    path = tmp_path / "face.png"
    write(path, (8, 4), 10)
    yield plan_photo(result, {name: array for name, array in arrays.items() if name != "photo"}, path, SceneOptions())
    bpy.ops.wm.read_factory_settings(use_empty=True)


def write(path: Path, size: tuple[int, int], grey: int) -> None:
    path.write_bytes(encode_png(np.full((size[1], size[0], 3), grey, np.uint8)))


def shown(plan: PhotoPlan) -> bpy.types.Image:
    (head,) = build_photo(plan, SceneOptions(), bpy.context.scene)
    return background(camera_of(head).data, "photo").image


def of_content(plan: PhotoPlan, sha256: str) -> PhotoPlan:
    return dataclasses.replace(plan, heads=tuple(dataclasses.replace(head, photo_sha256=sha256) for head in plan.heads))


def test_file_that_holds_another_photo_since_is_read_again(plan):
    image = shown(of_content(plan, "a" * 64))
    assert (tuple(image.size), round(image.pixels[0] * 255)) == ((8, 4), 10)
    write(Path(plan.photo_path), (6, 6), 200)
    image = shown(of_content(plan, "b" * 64))
    assert (tuple(image.size), round(image.pixels[0] * 255)) == ((6, 6), 200)
    assert len([image for image in bpy.data.images if image.filepath == plan.photo_path]) == 1


def test_what_the_user_painted_on_the_photo_stays(plan):
    image = shown(of_content(plan, "a" * 64))
    image.pixels[0] = 1.0
    assert image.is_dirty
    assert shown(of_content(plan, "b" * 64)).pixels[0] == 1.0


def test_image_of_the_user_is_shared_and_stays_unmarked(plan):
    own = bpy.data.images.load(plan.photo_path)
    assert shown(of_content(plan, "a" * 64)) == own
    assert not list(own.keys())


def test_packed_photo_is_never_a_file(plan):
    packed = Picture("face photo", png=encode_png(np.full((2, 3, 3), 7, np.uint8)))
    (head,) = plan.heads
    image = shown(dataclasses.replace(plan, heads=(dataclasses.replace(head, photo=packed),)))
    assert image.packed_file is not None
    assert tuple(image.size) == (3, 2)


@pytest.mark.parametrize("kind", ["grey", "cmyk", "16 bit", "16 bit grey", "cut out", "ten faces"])
def test_a_photo_of_any_kind_is_shown_as_the_backend_sees_it(kind, plan):
    (path,) = (FOLDER / "odd").glob(f"{kind}.[jp]*g")
    assert shows_upright(path.read_bytes(), path)
    (head,) = plan.heads
    image = shown(dataclasses.replace(plan, heads=(dataclasses.replace(head, photo=Picture("face photo", path=str(path))),)))
    seen = np.load(path.with_suffix(".npy")) / 255
    pixels = np.array(image.pixels).reshape(*seen.shape[:2], 4)[::-1]
    # More than 8 bits are given as light, not as they are stored.
    colours = np.where(pixels < 0.0031308, 12.92 * pixels, 1.055 * pixels ** (1 / 2.4) - 0.055) if image.is_float else pixels
    # The backend lays what is cut out on white.
    on_white = colours[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    np.testing.assert_allclose(on_white, seen, atol=0.6 / 255)
