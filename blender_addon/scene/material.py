# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's material: one Principled node tree that holds photo texture, albedo and outlier mask."""

from __future__ import annotations

import bpy

from ..head import Head, Picture
from .images import drop_unused, write_picture
from .marks import UNIT_SCALE, is_ours_to_change, mark

PHOTO_NODE = "FOCUS photo texture"
ALBEDO_NODE = "FOCUS albedo"
MASK_NODE = "FOCUS outlier mask"
_LABELS = {PHOTO_NODE: "Photo texture", ALBEDO_NODE: "Albedo", MASK_NODE: "Outlier mask (not linked)"}
_ROLES = {PHOTO_NODE: "texture", ALBEDO_NODE: "albedo", MASK_NODE: "mask"}
# How far red light travels in skin: metres. Green and blue relative to it. Jensen et al. 2001, "skin1": 3.67, 1.37, 0.68 mm.
_SCATTERING = 0.00367
_SCATTERING_RADIUS = (1.0, 0.373, 0.185)
# Of the skin's surface in visible light.
_SKIN_IOR = 1.4
_ROUGHNESS = 0.5
# Far below the usual 0.5: the photo's colours hold its shine already, and the fitted light, bright from all sides, would lay a grey veil
# over dark eyes and make the rim glow.
_SPECULAR = 0.1
_SUBSURFACE = 0.1
# For a head without any texture: light, neutral skin, linear.
_PLAIN_SKIN = (0.50, 0.30, 0.22, 1.0)
# Solid shading, made for Blender's usual light grey, darkens it.
_VIEWPORT_SKIN = (0.80, 0.56, 0.44, 1.0)


def write_material(material: bpy.types.Material | None, head: Head, key: str, unit_scale: float) -> bpy.types.Material:
    """The material of a head: `material` brought up to date where it is ours, otherwise a new one.

    What the user changed in a material of ours stays, except for the images themselves.

    Args:
        material: of the head so far.
        head: the plan.
        key: of the head.
        unit_scale: Blender units a metre.
    """
    if not is_ours_to_change(material, "material"):
        material = bpy.data.materials.new(f"{head.name} skin")
        mark(material, "material", key)
        _set_up_skin(material)
    _write_scattering(material, unit_scale)
    for name, picture, row in ((PHOTO_NODE, head.texture, 0), (ALBEDO_NODE, head.albedo, 1), (MASK_NODE, head.outlier_mask, 2)):
        _write_image_node(material, name, picture, row, key)
    return material


def image_node(material: bpy.types.Material | None, name: str) -> bpy.types.Node | None:
    """An image node of ours; None where the user removed it or it was never there."""
    tree = None if material is None else material.node_tree
    node = None if tree is None else tree.nodes.get(name)
    return node if node is not None and node.bl_idname == "ShaderNodeTexImage" else None


def principled_node(material: bpy.types.Material) -> bpy.types.Node | None:
    """The node that makes the skin."""
    nodes = () if material.node_tree is None else material.node_tree.nodes
    return next((node for node in nodes if node.bl_idname == "ShaderNodeBsdfPrincipled"), None)


def images_of(material: bpy.types.Material) -> list[bpy.types.Image]:
    """All images that its nodes show."""
    nodes = () if material.node_tree is None else material.node_tree.nodes
    return [node.image for node in nodes if node.bl_idname == "ShaderNodeTexImage" and node.image is not None]


def _set_up_skin(material: bpy.types.Material) -> None:
    # From Blender 5 on there is always a node tree, and asking for it is on its way out.
    if material.node_tree is None:
        material.use_nodes = True
    material.diffuse_color = _VIEWPORT_SKIN
    material.roughness = _ROUGHNESS
    tree = material.node_tree
    skin = principled_node(material) or tree.nodes.new("ShaderNodeBsdfPrincipled")
    output = next((node for node in tree.nodes if node.bl_idname == "ShaderNodeOutputMaterial"), None)
    output = output or tree.nodes.new("ShaderNodeOutputMaterial")
    skin.location, output.location = (0.0, 300.0), (320.0, 300.0)
    tree.links.new(skin.outputs["BSDF"], output.inputs["Surface"])
    values = {
        "Base Color": _PLAIN_SKIN,
        "Roughness": _ROUGHNESS,
        "IOR": _SKIN_IOR,
        "Specular IOR Level": _SPECULAR,
        "Subsurface Weight": _SUBSURFACE,
        "Subsurface Radius": _SCATTERING_RADIUS,
        "Subsurface Scale": _SCATTERING,
    }
    for name, value in values.items():
        if name in skin.inputs:
            skin.inputs[name].default_value = value


def _write_scattering(material: bpy.types.Material, unit_scale: float) -> None:
    """Light travels as many metres in a head of any unit; a user's own choice keeps its size, too."""
    skin, before = principled_node(material), float(material.get(UNIT_SCALE, 1.0))
    if skin is not None and "Subsurface Scale" in skin.inputs:
        skin.inputs["Subsurface Scale"].default_value *= unit_scale / before
    material[UNIT_SCALE] = unit_scale


def _write_image_node(material: bpy.types.Material, name: str, picture: Picture | None, row: int, key: str) -> None:
    node = image_node(material, name)
    before = None if node is None else node.image
    if picture is None:
        if node is not None:
            material.node_tree.nodes.remove(node)
        drop_unused(before)
        return
    if node is None:
        node = material.node_tree.nodes.new("ShaderNodeTexImage")
        node.name, node.label = name, _LABELS[name]
        node.location = (-420.0, 300.0 - 300.0 * row)
    node.image = write_picture(picture, before, _ROLES[name], key)
    if before is not None and before != node.image:
        drop_unused(before)
