# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fitted lighting as a world: it lights and is mirrored, but the camera sees a neutral grey behind the head."""

from __future__ import annotations

import bpy

from ..head import Head
from .images import drop_unused, write_radiance
from .marks import is_ours_to_change, key_of, mark, role_of

LIGHT_NODE = "FOCUS lighting"
BRIGHT_NODE = "FOCUS light"
BACKDROP_NODE = "FOCUS backdrop"
RAYS_NODE = "FOCUS camera rays"
MIX_NODE = "FOCUS light or backdrop"
# Blender's own world's, linear.
BACKDROP_GREY = 0.05
# On the head: its world. On a world of ours: the one that the scene had before, which would be lost with the file otherwise.
WORLD = "focus_mark_world"
BEFORE = "focus_mark_world_before"
# On a world of ours: it was given the backdrop once; who took that out does not get it again.
HAS_BACKDROP = "focus_mark_world_backdrop"
_AS_MADE = {
    ("ShaderNodeTexEnvironment", "ShaderNodeBackground", "Color"),
    ("ShaderNodeBackground", "ShaderNodeOutputWorld", "Surface"),
}


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
        _sample_coarsely(world, plan.environment.shape[1])
    if world.node_tree is None:
        world.use_nodes = True
    node = light_node(world) or _add_light_node(world)
    before = node.image
    node.image = write_radiance(plan.environment, f"{plan.name} light", before, key)
    if before is not None and before != node.image:
        drop_unused(before)
    if HAS_BACKDROP not in world and _is_as_made(world.node_tree):
        _add_backdrop(world.node_tree)
        world[HAS_BACKDROP] = True
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


def _sample_coarsely(world: bpy.types.World, columns: int) -> None:
    """Has Cycles map where light comes from as finely as the light is given; a map of its own choice takes a second a render."""
    # Absent where Cycles is switched off.
    settings = getattr(world, "cycles", None)
    if settings is not None:
        settings.sampling_method, settings.sample_map_resolution = "MANUAL", columns


def _add_light_node(world: bpy.types.World) -> bpy.types.Node:
    nodes, links = world.node_tree.nodes, world.node_tree.links
    others = (node for node in nodes if node.bl_idname == "ShaderNodeBackground" and node.name != BACKDROP_NODE)
    background = nodes.get(BRIGHT_NODE) or next(others, None) or nodes.new("ShaderNodeBackground")
    output = _output_node(nodes) or nodes.new("ShaderNodeOutputWorld")
    node = nodes.new("ShaderNodeTexEnvironment")
    node.name, node.label = LIGHT_NODE, "Fitted lighting"
    node.location = (background.location[0] - 320.0, background.location[1])
    links.new(node.outputs["Color"], background.inputs["Color"])
    if not background.outputs["Background"].is_linked:
        links.new(background.outputs["Background"], output.inputs["Surface"])
    return node


def _output_node(nodes: bpy.types.Nodes) -> bpy.types.Node | None:
    return next((node for node in nodes if node.bl_idname == "ShaderNodeOutputWorld"), None)


def _is_as_made(tree: bpy.types.NodeTree) -> bool:
    """Whether the light goes straight to the output, and nothing else is there; its strength may be any."""
    links = {(link.from_node.bl_idname, link.to_node.bl_idname, link.to_socket.name) for link in tree.links}
    return len(tree.nodes) == 3 and links == _AS_MADE and not any(node.mute for node in tree.nodes)


def _add_backdrop(tree: bpy.types.NodeTree) -> None:
    """Shows a plain grey to the camera alone: the fitted light says little about what is behind the head, in garish colours."""
    nodes, links = tree.nodes, tree.links
    output = _output_node(nodes)
    assert output is not None
    bright = output.inputs["Surface"].links[0].from_node
    bright.name, bright.label = BRIGHT_NODE, "Lights the scene"
    backdrop, rays, mix = (nodes.new(f"ShaderNode{kind}") for kind in ("Background", "LightPath", "MixShader"))
    backdrop.name, backdrop.label = BACKDROP_NODE, "Seen by the camera"
    backdrop.inputs["Color"].default_value = (BACKDROP_GREY, BACKDROP_GREY, BACKDROP_GREY, 1.0)
    rays.name, mix.name = RAYS_NODE, MIX_NODE
    right, top = bright.location
    backdrop.location, rays.location, mix.location = (right, top - 160.0), (right, top + 360.0), (right + 220.0, top)
    output.location = (right + 440.0, top)
    # By place: the sockets' names differ between versions.
    links.new(rays.outputs["Is Camera Ray"], mix.inputs[0])
    links.new(bright.outputs["Background"], mix.inputs[1])
    links.new(backdrop.outputs["Background"], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
