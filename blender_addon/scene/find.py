# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding heads and what belongs to them, whatever their names have become; removing them."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from .camera import give_camera_back, is_camera_of_ours
from .images import drop_unused
from .marks import FACE_INDEX, PHOTO, is_of_photo, is_ours_to_change, key_of, role_of
from .material import images_of
from .world import is_world_of, remove_world, world_of


def heads(scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """All heads of a scene, also those that were linked from other files, in the order of their names.

    Looks at every object: too slow for a panel's `draw` in a scene of many thousands.
    """
    return sorted((block for block in scene.objects if is_head(block)), key=lambda head: head.name)


def is_head(block: bpy.types.Object | None) -> bool:
    """Whether an object is a head that was reconstructed from a photo."""
    return block is not None and block.type == "MESH" and role_of(block) == "head"


def photo_path_of(head: bpy.types.Object) -> str:
    """Where its photo was read, absolute; "" where nobody knows."""
    return str(head.get(PHOTO, ""))


def face_index_of(head: bpy.types.Object) -> int:
    """Which face of its photo it is; 0 for the largest."""
    return int(head.get(FACE_INDEX, 0))


def camera_of(head: bpy.types.Object) -> bpy.types.Object | None:
    """The matched camera of a head; None where it has none or its user deleted it."""
    for child in head.children:
        if role_of(child) == "camera" and child.type == "CAMERA":
            return child
    key = key_of(head)
    # Its user may have taken it out of the family.
    for scene in head.users_scene:
        for block in scene.objects:
            if key and key_of(block) == key and role_of(block) == "camera" and block.parent is None and block.type == "CAMERA":
                return block
    return None


def material_of(head: bpy.types.Object) -> bpy.types.Material | None:
    """The material of ours among those of a head; None where its user took it away."""
    return next((slot.material for slot in head.material_slots if role_of(slot.material) == "material"), None)


def collection_of(head: bpy.types.Object) -> bpy.types.Collection | None:
    """The collection of the head's photo, as far as the head still lies in it."""
    return next((collection for collection in head.users_collection if role_of(collection) == "collection"), None)


def heads_of_photo(scene: bpy.types.Scene, photo_path: str, photo_sha256: str) -> list[bpy.types.Object]:
    """The heads of a scene that may be changed and are of this photo: by its path, or its content."""
    return [head for head in heads(scene) if is_changeable(head) and is_of_photo(head, photo_path, photo_sha256)]


def is_changeable(head: bpy.types.Object) -> bool:
    """Whether a head and its mesh live in this file: neither linked from another nor overrides."""
    mesh = head.data
    return is_ours_to_change(head, "head") and mesh.library is None and mesh.override_library is None


def collection_of_photo(scene: bpy.types.Scene, photo_path: str, photo_sha256: str) -> bpy.types.Collection | None:
    """The collection of a photo in a scene; None where there is none or its user deleted it."""
    for collection in scene.collection.children_recursive:
        if is_ours_to_change(collection, "collection") and is_of_photo(collection, photo_path, photo_sha256):
            return collection
    return None


def remove_head(head: bpy.types.Object) -> None:
    """Removes a head, its camera, and all data-blocks of ours that nobody else uses.

    What the user hung on the head stays where it is; so does the collection where something else lies in it.
    """
    camera, world, collection = camera_of(head), world_of(head), collection_of(head)
    mesh, materials = head.data, [slot.material for slot in head.material_slots if role_of(slot.material) == "material"]
    key = key_of(head)
    if camera is not None and is_camera_of_ours(camera):
        remove_camera(camera)
    _let_go(head)
    bpy.data.objects.remove(head)
    _remove_unused_mesh(mesh)
    for material in materials:
        _remove_unused_material(material)
    if world is not None and is_world_of(world, key) and not _is_of_another_head(world):
        remove_world(world)
    if collection is not None and not collection.all_objects and not collection.children:
        bpy.data.collections.remove(collection)


def remove_camera(camera: bpy.types.Object) -> None:
    """Removes a matched camera with its lens and backgrounds, unless something else uses these."""
    lens = camera.data
    pictures = [entry.image for entry in lens.background_images if entry.image is not None]
    _let_go(camera)
    give_camera_back(camera)
    bpy.data.objects.remove(camera)
    if lens.users - lens.use_fake_user <= 0:
        bpy.data.cameras.remove(lens)
        _drop_all(pictures)


def _let_go(parent: bpy.types.Object) -> None:
    """Children of the user's stay where they are."""
    for child in parent.children:
        if child.library is None:
            place = child.matrix_world.copy()
            child.parent = None
            child.matrix_world = place


def _remove_unused_mesh(mesh: bpy.types.Mesh) -> None:
    if role_of(mesh) == "mesh" and mesh.library is None and mesh.users - mesh.use_fake_user <= 0:
        bpy.data.meshes.remove(mesh)


def _remove_unused_material(material: bpy.types.Material) -> None:
    if material.library is None and material.users - material.use_fake_user <= 0:
        pictures = images_of(material)
        bpy.data.materials.remove(material)
        _drop_all(pictures)


def _drop_all(pictures: list[bpy.types.Image]) -> None:
    # The same image may hang in two places; a reference to a removed one must not be touched.
    for picture in {picture.session_uid: picture for picture in pictures}.values():
        drop_unused(picture)


def _is_of_another_head(world: bpy.types.World) -> bool:
    return any(world_of(head) == world for head in _all_heads())


def _all_heads() -> Iterator[bpy.types.Object]:
    return (block for block in bpy.data.objects if is_head(block))
