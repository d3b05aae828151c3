# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the plan of a photo to heads in the scene: new ones, or those of an earlier run brought up to date."""

from __future__ import annotations

import uuid
from collections.abc import Generator

import bpy

from ..errors import AddonError
from ..head import Head, PhotoPlan
from ..options import SceneOptions
from .appearance import look_through, show_texture, textures_of
from .camera import is_camera_of_ours, write_camera
from .find import (
    camera_of,
    collection_of,
    collection_of_photo,
    face_index_of,
    heads_of_photo,
    material_of,
    remove_camera,
    remove_head,
)
from .marks import FACE_INDEX, ROLE, UNIT_SCALE, key_of, mark, mark_photo
from .material import write_material
from .mesh import has_topology, remove_outliers, write_mesh, write_outliers
from .place import free_place
from .selection import select_head
from .shape_keys import forget_shape_keys, write_shape_keys
from .world import WORLD, is_world_of, remove_world, world_of, write_world

_PROPERTIES = "focus_"
_INTEGER_BITS = 31


def build_photo(plan: PhotoPlan, options: SceneOptions, scene: bpy.types.Scene) -> Generator[bpy.types.Object, None, None]:
    """Builds the heads of a photo, one a step; heads of an earlier run are brought up to date, and those of faces that are no more go.

    Between two steps anything may happen to the scene, undo included: nothing of Blender's is kept from one to the next.

    Yields:
        The object of each head, valid until the next step.

    Raises:
        AddonError: the plan's mesh is unusable, or a head is in a mode that cannot be left.
    """
    scene_uid = scene.session_uid
    for position, head in enumerate(plan.heads):
        scene = _scene(scene_uid)
        block = _build_head(plan, head, options, scene)
        select_head(block, scene, alone=position == 0)
        if options.set_up_scene and position == 0:
            look_through(block, scene)
        if position == len(plan.heads) - 1:
            _remove_other_faces(plan, scene)
        yield block


def _scene(session_uid: int) -> bpy.types.Scene:
    scene = next((scene for scene in bpy.data.scenes if scene.session_uid == session_uid), None)
    if scene is None:
        raise AddonError("the scene that the head was for is gone", "reconstruct the photo again", "no-scene")
    return scene


def _remove_other_faces(plan: PhotoPlan, scene: bpy.types.Scene) -> None:
    planned, sha256 = {head.face_index for head in plan.heads}, plan.heads[0].photo_sha256
    for block in heads_of_photo(scene, plan.photo_path, sha256):
        if face_index_of(block) not in planned:
            _leave_mode(block)
            remove_head(block)


def _build_head(photo: PhotoPlan, plan: Head, options: SceneOptions, scene: bpy.types.Scene) -> bpy.types.Object:
    same = heads_of_photo(scene, plan.photo_path, plan.photo_sha256)
    head = next((block for block in same if face_index_of(block) == plan.face_index), None)
    is_new = head is None
    if head is None:
        head = _new_head(plan)
    _leave_mode(head)
    _write_geometry(head, plan, options)
    _write_skin(head, plan, options, is_new)
    _write_properties(head, plan, options)
    if is_new:
        begin = max(0.0, *(other.location.x for other in same)) if same else 0.0
        # The first face has the free view; the others of a group stay beside it.
        head.location = free_place(scene, None if same else plan.camera, options.unit_scale, begin)
        _collection(photo, plan, scene).objects.link(head)
    _write_camera(head, photo, plan, options, scene)
    _write_world(head, plan)
    return head


def _new_head(plan: Head) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(plan.name)
    head = bpy.data.objects.new(plan.name, mesh)
    key = uuid.uuid4().hex
    mark(head, "head", key)
    mark(mesh, "mesh", key)
    return head


def _leave_mode(head: bpy.types.Object) -> None:
    """A mesh that is edited or sculpted would overwrite what is written now."""
    if head.mode != "OBJECT":
        try:
            with bpy.context.temp_override(object=head, active_object=head):
                bpy.ops.object.mode_set(mode="OBJECT")
        except RuntimeError:
            pass
    if head.mode != "OBJECT":
        raise AddonError(f"the head {head.name} is being edited", "go back to Object Mode and reconstruct again", "edited")


def _write_geometry(head: bpy.types.Object, plan: Head, options: SceneOptions) -> None:
    if not has_topology(head.data, plan.mesh):
        forget_shape_keys(head)
    write_mesh(head.data, plan.mesh)
    if options.mask:
        write_outliers(head, plan.mesh)
    else:
        remove_outliers(head)
    write_shape_keys(head, plan.mesh.vertices, plan.mesh.shape_keys)


def _write_skin(head: bpy.types.Object, plan: Head, options: SceneOptions, is_new: bool) -> None:
    before = material_of(head)
    # Who gave the head another material wants that one.
    if before is None and not is_new and any(slot.material is not None for slot in head.material_slots):
        return
    material = write_material(before, plan, key_of(head), options.unit_scale)
    if before is None:
        if head.material_slots:
            head.material_slots[0].material = material
        else:
            head.data.materials.append(material)
    held = textures_of(head)
    wanted = "photo" if options.use_photo_texture else "albedo"
    if held:
        show_texture(head, wanted if wanted in held else held[0])


def _write_properties(head: bpy.types.Object, plan: Head, options: SceneOptions) -> None:
    names = list(head.keys())
    for name in names:
        if name.startswith(_PROPERTIES) and not name.startswith(ROLE) and name not in plan.properties:
            del head[name]
    for name, value in plan.properties.items():
        # Blender's whole numbers have 32 bits.
        is_large = isinstance(value, int) and not -(2**_INTEGER_BITS) <= value < 2**_INTEGER_BITS
        head[name] = str(value) if is_large else value
    mark_photo(head, plan.photo_path, plan.photo_sha256)
    head[FACE_INDEX] = plan.face_index
    head[UNIT_SCALE] = options.unit_scale


def _collection(photo: PhotoPlan, plan: Head, scene: bpy.types.Scene) -> bpy.types.Collection:
    collection = collection_of_photo(scene, photo.photo_path, plan.photo_sha256)
    if collection is None:
        collection = bpy.data.collections.new(f"FOCUS {photo.name}")
        mark(collection, "collection")
        scene.collection.children.link(collection)
    mark_photo(collection, photo.photo_path, plan.photo_sha256)
    return collection


def _write_camera(head: bpy.types.Object, photo: PhotoPlan, plan: Head, options: SceneOptions, scene: bpy.types.Scene) -> None:
    before = camera_of(head)
    if before is not None and not is_camera_of_ours(before):
        before = None
    if plan.camera is None:
        if before is not None:
            remove_camera(before)
        return
    camera = write_camera(before, plan, head, key_of(head), options.unit_scale)
    if not any(block == camera for block in scene.objects):
        (collection_of(head) or _collection(photo, plan, scene)).objects.link(camera)


def _write_world(head: bpy.types.Object, plan: Head) -> None:
    before = world_of(head)
    if not is_world_of(before, key_of(head)):
        before = None
    if plan.environment is not None:
        head[WORLD] = write_world(before, plan, key_of(head))
        return
    if WORLD in head:
        del head[WORLD]
    if before is not None:
        remove_world(before)
