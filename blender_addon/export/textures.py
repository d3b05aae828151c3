# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a head's materials as files beside the exported one, whatever they are in the scene: packed, painted on, elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from numpy import ndarray

from ..errors import AddonError
from ..shapes import Float32

_SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


def image_nodes(material: bpy.types.Material, *, only_visible: bool) -> list[bpy.types.Node]:
    """Nodes of the material that show a picture.

    Args:
        material: with or without nodes.
        only_visible: leave out those that do not lead to the output.
    """
    if material.node_tree is None:
        return []
    nodes = _leading_to_output(material.node_tree) if only_visible else material.node_tree.nodes
    return [node for node in nodes if node.type == "TEX_IMAGE" and node.image is not None]


def _leading_to_output(tree: bpy.types.NodeTree) -> list[bpy.types.Node]:
    """Nodes that the active output depends on; Python's wrappers of nodes differ, so names stand for them."""
    waiting = [node for node in tree.nodes if node.type == "OUTPUT_MATERIAL" and node.is_active_output]
    found: dict[str, bpy.types.Node] = {}
    while waiting:
        node = waiting.pop()
        if node.name in found:
            continue
        found[node.name] = node
        waiting += [link.from_node for entry in node.inputs for link in entry.links]
    return list(found.values())


def write_picture(image: bpy.types.Image, folder: Path, stem: str, kind: str) -> Path:
    """Writes an image of the scene as it is now, as PNG or JPEG; bytes that are one already are kept.

    Args:
        image: colours or data.
        folder: for the file.
        stem: with which the file's name begins.
        kind: with which it ends.

    Raises:
        AddonError: the picture has no pixels, for its file is gone.
        OSError: the file cannot be written.
    """
    content = b"" if image.is_dirty else _stored_bytes(image)
    suffix = next((ending for start, ending in _SIGNATURES.items() if content.startswith(start)), "")
    path = _free_path(folder, stem, kind, suffix or ".png")
    if suffix:
        path.write_bytes(content)
        return path
    if not image.has_data and 0 in image.size:
        raise AddonError(f"the picture {image.name!r} has no pixels", "find its file again under File > External Data", "picture")
    _save_pixels(image, path)
    return path


def _stored_bytes(image: bpy.types.Image) -> bytes:
    if image.packed_file is not None:
        return bytes(image.packed_file.data)
    path = Path(bpy.path.abspath(image.filepath, library=image.library)) if image.filepath else None
    return path.read_bytes() if path is not None and image.source == "FILE" and path.is_file() else b""


def _free_path(folder: Path, stem: str, kind: str, suffix: str) -> Path:
    names: Iterator[str] = (f"{stem}_{kind}{f'_{number}' if number > 1 else ''}{suffix}" for number in range(1, 10_000))
    return next(path for path in map(folder.joinpath, names) if not path.exists())


def _save_pixels(image: bpy.types.Image, path: Path) -> None:
    """Through an image of its own, for saving the scene's image would change it."""
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    copy = bpy.data.images.new("focus export", width, height, alpha=True)
    try:
        copy.pixels.foreach_set(_encoded(pixels) if image.is_float else pixels)
        copy.filepath_raw, copy.file_format = str(path), "PNG"
        copy.save()
    except RuntimeError as error:
        raise OSError(str(error).strip()) from error
    finally:
        bpy.data.images.remove(copy)


def _encoded(linear: Float32[ndarray, "values"]) -> Float32[ndarray, "values"]:
    """sRGB of linear RGBA; alpha stays."""
    clipped = np.clip(linear.reshape(-1, 4), 0.0, 1.0)
    colours = clipped[:, :3]
    clipped[:, :3] = np.where(colours <= 0.0031308, 12.92 * colours, 1.055 * colours ** (1 / 2.4) - 0.055)
    return clipped.reshape(-1)
