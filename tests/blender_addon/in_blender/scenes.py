"""Heads in the scene of now, and what is in the file."""

from __future__ import annotations

import bpy

from blender_addon.head import PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo


def build(plan: PhotoPlan, options: SceneOptions = SceneOptions()) -> list[bpy.types.Object]:  # noqa: B008 - a frozen value
    """The heads of a plan."""
    return list(build_photo(plan, options, bpy.context.scene))


def names_of_blocks() -> dict[str, list[str]]:
    """By kind, of all that heads consist of."""
    kinds = ("objects", "meshes", "shape_keys", "materials", "images", "cameras", "worlds", "collections")
    return {kind: [block.name for block in getattr(bpy.data, kind) if block.name != "Render Result"] for kind in kinds}
