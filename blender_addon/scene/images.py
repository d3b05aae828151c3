# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures as Blender's images: packed PNG, the user's file where it is, linear light."""

from __future__ import annotations

import contextlib

import bpy
import numpy as np
from numpy import ndarray

from ..head import Picture
from ..shapes import Float32
from .marks import SHA256, is_ours_to_change, mark, role_of

# Names in Blender's own colour configuration first, then in widely used ACES ones.
COLOUR = ("sRGB", "sRGB - Texture", "Utility - sRGB - Texture", "sRGB Encoded Rec.709 (sRGB)", "srgb_tx", "srgb_texture")
DATA = ("Non-Color", "Raw", "Utility - Raw", "raw", "Data", "data")
LINEAR = ("Linear Rec.709", "Linear", "Linear Rec.709 (sRGB)", "lin_rec709", "Utility - Linear - Rec.709", "lin_srgb", *DATA)


def write_picture(picture: Picture, current: bpy.types.Image | None, role: str, key: str) -> bpy.types.Image:
    """The image of a picture: `current` with new content where it is ours, otherwise a new one.

    Args:
        picture: packed or a file.
        current: what was shown in its place so far.
        role: of the image; see `marks`.
        key: of the head.
    """
    if picture.path:
        return _load(picture, role)
    image = current if is_ours_to_change(current, role) and current.packed_file is not None else None
    if image is None:
        image = bpy.data.images.new(picture.name, 1, 1)
        mark(image, role, key)
    _pack(image, picture)
    return image


def write_photo(picture: Picture, photo_sha256: str) -> bpy.types.Image:
    """The image of a photo; all heads of a photo share one.

    Args:
        picture: packed or a file.
        photo_sha256: of the photo's file.
    """
    if picture.path:
        image = _load(picture, "photo")
        _reread_changed(image, photo_sha256)
        return image
    packed = (image for image in bpy.data.images if is_ours_to_change(image, "photo") and image.packed_file is not None)
    # Never the content of another photo's: heads that are not up to date may still show that.
    image = write_picture(picture, next((image for image in packed if image.get(SHA256) == photo_sha256), None), "photo", "")
    image[SHA256] = photo_sha256
    return image


def write_radiance(radiance: Float32[ndarray, "rows columns 3"], name: str, current: bpy.types.Image | None, key: str) -> bpy.types.Image:
    """Linear radiance as a packed OpenEXR image.

    Args:
        radiance: linear, Rec. 709 primaries; bottom row first.
        name: of a new image.
        current: what was shown in its place so far; reused where it is ours and has the same size.
        key: of the head.
    """
    rows, columns = radiance.shape[:2]
    image = current if is_ours_to_change(current, "light") and tuple(current.size) == (columns, rows) else None
    if image is None:
        image = bpy.data.images.new(name, columns, rows, alpha=False, float_buffer=True)
        mark(image, "light", key)
    set_colour_space(image, LINEAR)
    pixels = np.ones((rows, columns, 4), dtype=np.float32)
    pixels[..., :3] = radiance
    image.pixels.foreach_set(pixels.ravel())
    image.update()
    image.pack()
    return image


def drop_unused(image: bpy.types.Image | None) -> None:
    """Removes an image of ours that nothing shows any more."""
    if image is not None and role_of(image) and image.library is None and image.users - image.use_fake_user <= 0:
        bpy.data.images.remove(image)


def set_colour_space(image: bpy.types.Image, names: tuple[str, ...]) -> None:
    """Takes the first of these colour spaces that the colour configuration has; leaves Blender's choice where it has none."""
    if image.colorspace_settings.name == names[0]:
        return
    for name in names:
        with contextlib.suppress(TypeError):
            image.colorspace_settings.name = name
            return


def _pack(image: bpy.types.Image, picture: Picture) -> None:
    set_colour_space(image, COLOUR if picture.is_colour else DATA)
    held = image.packed_file
    if held is not None and held.size == len(picture.png) and held.data == picture.png:
        return
    # The name under which Blender unpacks it and exporters write it; nothing is there now.
    image.filepath_raw = f"//textures/{bpy.path.clean_name(picture.name)}.png"
    image.pack(data=picture.png, data_len=len(picture.png))
    image.source = "FILE"
    # Not `reload`: it would rather read a file that happens to lie at that path.
    image.buffers_free()
    image.update_tag()


def _reread_changed(image: bpy.types.Image, photo_sha256: str) -> None:
    """Blender keeps what it once read from a file; a file that holds another photo since is read again."""
    if image.library is not None or image.get(SHA256) == photo_sha256:
        return
    # What the user painted on it stays.
    if not image.is_dirty:
        image.reload()
    if role_of(image):
        image[SHA256] = photo_sha256


def _load(picture: Picture, role: str) -> bpy.types.Image:
    known = {image.session_uid for image in bpy.data.images}
    try:
        image = bpy.data.images.load(picture.path, check_existing=True)
    except RuntimeError:
        # Shown as missing, as Blender does with any file that went away; it may be found again.
        image = bpy.data.images.new(picture.name, 1, 1)
        image.source, image.filepath = "FILE", picture.path
    if image.session_uid not in known:
        mark(image, role)
        set_colour_space(image, COLOUR if picture.is_colour else DATA)
    return image
