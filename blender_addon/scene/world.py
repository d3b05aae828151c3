# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fitted lighting as a world."""

from __future__ import annotations

import bpy

from ..head import Head
from .images import drop_unused, write_radiance
from .marks import is_ours_to_change, key_of, mark, role_of

LIGHT_NODE = "FOCUS lighting"
# On the head: its world. On a world of ours: the one that the scene had before, which would be lost with the file otherwise.
WORLD = "focus_mark_world"
BEFORE = "focus_mark_world_before"


def write_world(world: bpy.types.World | None, plan: Head, key: str) -> bpy.types.World:
    """The world of a head: `world` brought up to date where it is ours, otherwise a new one.

    Args:
        world: of the head so far.
        plan: has an environment.
        key: of the head.
    """
    assert plan.environment is not None
    if not is_ours_to_change(world, "world"):
        world = bpy.data.worlds.new(f"{plan.name} light")
        mark(world, "world", key)
    if world.node_tree is None:
        world.use_nodes = True
    node = light_node(world) or _add_light_node(world)
    before = node.image
    node.image = write_radiance(plan.environment, f"{plan.name} light", before, key)
    if before is not None and before != node.image:
        drop_unused(before)
    return world


def light_node(world: bpy.types.World) -> bpy.types.Node | None:
    """The node that shows the radiance of every direction; None where the user removed it."""
    node = None if world.node_tree is None else world.node_tree.nodes.get(LIGHT_NODE)
    return node if node is not None and node.bl_idname == "ShaderNodeTexEnvironment" else None


def show_world(world: bpy.types.World, scene: bpy.types.Scene) -> None:
    """Makes it the scene's; the scene's former world is remembered."""
    former = scene.world
    if former == world:
        return
    if former is not None and role_of(former) == "world":
        former = former.get(BEFORE)
    if former is not None:
        world[BEFORE] = former
    scene.world = world


def remove_world(world: bpy.types.World) -> None:
    """Removes a world of ours that no head needs any more; scenes that show it get back what they showed before."""
    former = world.get(BEFORE)
    for scene in bpy.data.scenes:
        if scene.world == world:
            scene.world = former
    node = light_node(world)
    image = None if node is None else node.image
    if world.users - world.use_fake_user <= 0:
        bpy.data.worlds.remove(world)
    drop_unused(image)


def world_of(head: bpy.types.Object) -> bpy.types.World | None:
    """The world with the light of the head's photo; None where it has none."""
    world = head.get(WORLD)
    return world if isinstance(world, bpy.types.World) and role_of(world) == "world" else None


def is_world_of(world: bpy.types.World | None, key: str) -> bool:
    """Whether a world was made for the head with this key, and may be changed."""
    return is_ours_to_change(world, "world") and key_of(world) == key


def _add_light_node(world: bpy.types.World) -> bpy.types.Node:
    tree = world.node_tree
    background = next((node for node in tree.nodes if node.bl_idname == "ShaderNodeBackground"), None)
    background = background or tree.nodes.new("ShaderNodeBackground")
    output = next((node for node in tree.nodes if node.bl_idname == "ShaderNodeOutputWorld"), None)
    output = output or tree.nodes.new("ShaderNodeOutputWorld")
    node = tree.nodes.new("ShaderNodeTexEnvironment")
    node.name, node.label = LIGHT_NODE, "Fitted lighting"
    node.location = (background.location[0] - 320.0, background.location[1])
    tree.links.new(node.outputs["Color"], background.inputs["Color"])
    tree.links.new(background.outputs["Background"], output.inputs["Surface"])
    return node
