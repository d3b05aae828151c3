"""Heads of a real answer for the tests of the exporter, and Blender's importers to read them back with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix
from mathutils.kdtree import KDTree

from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo
from tests.blender_addon.in_blender.samples import PHOTO, planned, read_sample

IMPORTERS: dict[str, Callable[[str], object]] = {
    "glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    "fbx": lambda path: bpy.ops.import_scene.fbx(filepath=path),
    "obj": lambda path: bpy.ops.wm.obj_import(filepath=path),
    "usd": lambda path: bpy.ops.wm.usd_import(filepath=path),
    "blend": lambda path: bpy.ops.wm.open_mainfile(filepath=path),
}


def build_heads(options: SceneOptions = SceneOptions(), name: str = "astronaut") -> list[bpy.types.Object]:  # noqa: B008 - a frozen value
    """The heads of a sample in the scene of now."""
    names = [head.name for head in build_photo(planned(name, PHOTO, options), options, bpy.context.scene)]
    bpy.context.view_layer.update()
    return [bpy.data.objects[name] for name in names]


def read_back(path: Path, file_format: str) -> bpy.types.Object:
    """The head of an exported file, in an otherwise empty scene, as sliders and their animation say at its first frame."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    IMPORTERS[file_format](str(path))
    bpy.context.scene.frame_set(bpy.context.scene.frame_start)
    return mesh_object()


def mesh_object() -> bpy.types.Object:
    """The one mesh of the scene."""
    (found,) = (block for block in bpy.context.scene.objects if block.type == "MESH")
    return found


def metres(model_points: np.ndarray) -> np.ndarray:
    """Points or offsets in mm of model space (x left, y up, z out of the face) as Blender shows them: metres, z up, looking along -y."""
    return np.stack([model_points[..., 0], -model_points[..., 2], model_points[..., 1]], -1).astype(np.float64) / 1000


def values(name: str) -> np.ndarray:
    """An array of the answer for one face."""
    array = read_sample("astronaut")[1][name]
    return np.frombuffer(array.data, array.dtype).reshape(array.shape)


def world_points(head: bpy.types.Object, points: bpy.types.bpy_prop_collection | None = None) -> np.ndarray:
    """Where vertices, or points of a shape key, lie in the world."""
    source = head.data.vertices if points is None else points
    found = np.empty(3 * len(source), np.float32)
    source.foreach_get("co", found)
    return found.reshape(-1, 3) @ _rotation(head.matrix_world).T + np.array(head.matrix_world.translation)


def world_offsets(head: bpy.types.Object, key: str) -> np.ndarray:
    """How a shape key moves the vertices, in the world's axes."""
    blocks = head.data.shape_keys.key_blocks
    return world_points(head, blocks[key].points) - world_points(head, blocks[0].points)


def nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each point the index of the target that lies nearest; formats split vertices along seams."""
    tree = KDTree(len(targets))
    for index, target in enumerate(targets.tolist()):
        tree.insert(target, index)
    tree.balance()
    return np.array([tree.find(point)[1] for point in points.tolist()])


def colour_image(head: bpy.types.Object) -> bpy.types.Image:
    """The picture that is the skin's colour."""
    tree = head.material_slots[0].material.node_tree
    skin = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    node = skin.inputs["Base Color"].links[0].from_node
    assert node.type == "TEX_IMAGE"
    return node.image


def pixels(image: bpy.types.Image) -> np.ndarray:
    """uint8 [height width 3], top row first."""
    width, height = image.size
    found = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(found)
    return (found.reshape(height, width, 4)[::-1, :, :3] * 255).round().astype(np.uint8)


def corner_uv(head: bpy.types.Object) -> np.ndarray:
    """Of every corner: where its vertex lies in the world, and its UV."""
    layer = head.data.uv_layers.active.uv
    found = np.empty(2 * len(layer), np.float32)
    layer.foreach_get("vector", found)
    vertices = np.empty(len(head.data.loops), np.int32)
    head.data.loops.foreach_get("vertex_index", vertices)
    return np.concatenate([world_points(head)[vertices], found.reshape(-1, 2)], 1)


def _rotation(matrix: Matrix) -> np.ndarray:
    return np.array(matrix.to_3x3())
