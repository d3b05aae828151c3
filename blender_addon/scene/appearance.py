# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a head is shown: texture, overlay, the photo's view."""

from __future__ import annotations

import bpy

from .camera import HEIGHT, WIDTH, overlay_of, show_camera
from .find import camera_of, material_of
from .material import ALBEDO_NODE, PHOTO_NODE, image_node, principled_node
from .world import show_world, world_of

_NODES = {"photo": PHOTO_NODE, "albedo": ALBEDO_NODE}


def textures_of(head: bpy.types.Object) -> tuple[str, ...]:
    """Which textures the material holds: of "photo" and "albedo"."""
    material = material_of(head)
    return tuple(which for which, node in _NODES.items() if image_node(material, node) is not None)


def texture_of(head: bpy.types.Object) -> str:
    """Which texture is the skin's colour: "photo" or "albedo"; "" where it is something else."""
    material = material_of(head)
    skin = None if material is None else principled_node(material)
    links = () if skin is None else skin.inputs["Base Color"].links
    return next((which for which, node in _NODES.items() for link in links if link.from_node.name == node), "")


def show_texture(head: bpy.types.Object, which: str) -> None:
    """Links a texture straight to the skin's colour, where every exporter finds it.

    Does nothing where the material has no such texture, is linked from another file, or was taken away by its user.

    Args:
        head: the head.
        which: "photo" or "albedo".
    """
    material = material_of(head)
    if material is None or material.library is not None:
        return
    node, skin = image_node(material, _NODES[which]), principled_node(material)
    if node is None or skin is None:
        return
    material.node_tree.links.new(node.outputs["Color"], skin.inputs["Base Color"])
    # The active image is what viewports without materials show, and where baking writes.
    material.node_tree.nodes.active = node


def is_overlay_shown(head: bpy.types.Object) -> bool:
    """Whether outliers are marked in the camera's view."""
    overlay = overlay_of(camera_of(head))
    return overlay is not None and overlay.show_background_image


def show_overlay(head: bpy.types.Object, is_shown: bool) -> None:
    """Marks the outliers in the camera's view, or no more; nothing without camera or outliers."""
    overlay = overlay_of(camera_of(head))
    if overlay is not None:
        overlay.show_background_image = is_shown


def look_through(head: bpy.types.Object, scene: bpy.types.Scene) -> None:
    """Makes the head's camera, the size of its photo, and its light those of the scene, as far as it has them.

    Colours are then shown as they are, for Blender's usual view would make the head paler than the photo behind it.
    """
    camera, world = camera_of(head), world_of(head)
    if camera is not None:
        show_camera(camera, scene)
        render, lens = scene.render, camera.data
        render.resolution_x, render.resolution_y = int(lens.get(WIDTH, render.resolution_x)), int(lens.get(HEIGHT, render.resolution_y))
        render.resolution_percentage = 100
        render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    if world is not None:
        show_world(world, scene)
    if camera is not None or world is not None:
        _show_colours_unchanged(scene.view_settings)


def _show_colours_unchanged(view: bpy.types.ColorManagedViewSettings) -> None:
    try:
        view.view_transform, view.look = "Standard", "None"
    except TypeError:
        # A studio's own colour management has other names, and its reasons.
        return
    view.exposure, view.gamma = 0.0, 1.0
