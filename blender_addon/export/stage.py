# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scene of copies that exporters may have for themselves: the user's scene, selection, modes and frame are not touched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bpy
from mathutils import Matrix, Vector

from ..scene.appearance import look_through
from ..scene.camera import HEIGHT, WIDTH
from ..scene.find import camera_of
from .identity import bake_identity
from .names import LentNames
from .options import ExportOptions
from .textures import image_nodes, write_picture

# What uses others goes first.
_REMOVAL = (
    ("SCENE", "scenes"),
    ("COLLECTION", "collections"),
    ("OBJECT", "objects"),
    ("MESH", "meshes"),
    ("CAMERA", "cameras"),
    ("IMAGE", "images"),
)


@contextmanager
def staged(
    heads: Sequence[bpy.types.Object], stem: str, pictures: Path, options: ExportOptions, *, for_blender: bool
) -> Iterator[bpy.types.Scene]:
    """Copies of heads in a scene of their own, in metres, with their pictures as files; everything is taken away afterwards.

    Args:
        heads: mesh objects.
        stem: of the file that is to be written, with which names of pictures begin.
        pictures: folder for them.
        options: what to copy.
        for_blender: everything of the heads is kept, and pictures are packed.
    """
    copies = _Copies(stem, pictures, for_blender)
    try:
        yield copies.scene_of(heads, options)
    finally:
        copies.remove()


class _Copies:
    """What was copied, and the names that were lent."""

    def __init__(self, stem: str, folder: Path, for_blender: bool) -> None:
        self._stem = stem
        self._folder = folder
        self._for_blender = for_blender
        self._names = LentNames()
        self._made: dict[str, list[bpy.types.ID]] = {}
        self._head_names: list[str] = []
        self._collections: dict[bpy.types.Collection, bpy.types.Collection] = {}
        self._pictures: dict[bpy.types.Image, bpy.types.Image] = {}
        self._materials: list[bpy.types.Material] = []
        self._shown: list[tuple[bpy.types.Node, bpy.types.Image]] = []

    def remove(self) -> None:
        """Removes all copies, and gives names and pictures back."""
        for node, image in self._shown:
            node.image = image
        self._shown.clear()
        # One by one: `batch_remove` crashes on scenes with what is in them.
        for kind, collection in _REMOVAL:
            for made in self._made.pop(kind, ()):
                getattr(bpy.data, collection).remove(made)
        self._names.give_back()

    def scene_of(self, heads: Sequence[bpy.types.Object], options: ExportOptions) -> bpy.types.Scene:
        users_scene = bpy.context.scene
        scene = self._new(bpy.data.scenes.new(self._stem))
        scene.frame_start = scene.frame_end = scene.frame_current = users_scene.frame_current
        is_metric = users_scene.unit_settings.system != "NONE"
        metres = users_scene.unit_settings.scale_length if is_metric else 1.0
        is_alone = len(heads) == 1 and not options.keep_place and not self._for_blender
        self._head_names = [head.name for head in heads]
        for head in heads:
            origin = head.matrix_world.translation.copy() if is_alone else Vector()
            if self._for_blender:
                self._add_whole(head, scene, options)
            else:
                self._add_plain(head, scene, options, origin, metres)
        if self._for_blender:
            scene.unit_settings.system = users_scene.unit_settings.system
            scene.unit_settings.scale_length = users_scene.unit_settings.scale_length
            scene.view_settings.view_transform = users_scene.view_settings.view_transform
        scene.view_layers[0].update()
        return scene

    def _add_plain(self, head: bpy.types.Object, scene: bpy.types.Scene, options: ExportOptions, origin: Vector, metres: float) -> None:
        """The head's mesh and camera, without what other programs do not know: modifiers, parents, custom properties."""
        mesh = self._mesh_of(head)
        copy = self._new(bpy.data.objects.new("head", mesh))
        self._names.lend(head, copy)
        self._finish_mesh(head, copy, options)
        mesh.transform(Matrix.Scale(metres, 4), shape_keys=True)
        if mesh.shape_keys is not None:
            mesh.shape_keys.animation_data_clear()
        copy.matrix_world = _placed(head.matrix_world, origin, metres)
        scene.collection.objects.link(copy)
        camera = camera_of(head) if options.camera else None
        if camera is not None:
            data = self._new(camera.data.copy())
            twin = self._new(bpy.data.objects.new("camera", data))
            self._names.lend(camera, twin)
            self._names.lend(camera.data, data)
            twin.matrix_world = _placed(camera.matrix_world, origin, metres)
            scene.collection.objects.link(twin)
            _take_camera(scene, twin)

    def _add_whole(self, head: bpy.types.Object, scene: bpy.types.Scene, options: ExportOptions) -> None:
        """The head as it is, in a collection, with its camera as child."""
        collection = self._collection_of(head, scene)
        mesh = self._mesh_of(head)
        copy = self._new(head.copy())
        copy.data = mesh
        self._names.lend(head, copy)
        self._finish_mesh(head, copy, options)
        copy.parent, copy.matrix_world = None, head.matrix_world
        copy.hide_viewport = copy.hide_render = False
        collection.objects.link(copy)
        camera = camera_of(head) if options.camera else None
        if camera is not None:
            collection.objects.link(self._whole_camera(camera, copy if camera.parent == head else None))
        if scene.camera is None:
            look_through(copy, scene)

    def _collection_of(self, head: bpy.types.Object, scene: bpy.types.Scene) -> bpy.types.Collection:
        """The copy of the head's collection; the scene's own where the head lies in none."""
        owner = next((found for found in head.users_collection if found not in [each.collection for each in bpy.data.scenes]), None)
        if owner is None:
            return scene.collection
        if owner not in self._collections:
            collection = self._new(bpy.data.collections.new("heads"))
            self._names.lend(owner, collection)
            scene.collection.children.link(collection)
            self._collections[owner] = collection
        return self._collections[owner]

    def _whole_camera(self, camera: bpy.types.Object, parent: bpy.types.Object | None) -> bpy.types.Object:
        """A copy of a camera with its background pictures; `parent` is None where the user took it out of the family."""
        twin = self._new(camera.copy())
        lens = twin.data = self._new(camera.data.copy())
        self._names.lend(camera, twin)
        self._names.lend(camera.data, lens)
        for background in lens.background_images:
            if background.image is not None:
                background.image = self._picture(background.image)
        for mark, value in list(lens.items()):
            if isinstance(value, bpy.types.Image):
                lens[mark] = self._picture(value)
        twin.parent = parent
        twin.matrix_parent_inverse = camera.matrix_parent_inverse
        return twin

    def _mesh_of(self, head: bpy.types.Object) -> bpy.types.Mesh:
        # What was done in edit mode is in the mesh only after this; the mode stays.
        head.update_from_editmode()
        mesh = self._new(head.data.copy())
        self._names.lend(head.data, mesh)
        return mesh

    def _finish_mesh(self, head: bpy.types.Object, copy: bpy.types.Object, options: ExportOptions) -> None:
        if not options.include_identity:
            bake_identity(copy)
        for index, slot in enumerate(head.material_slots):
            if slot.material is not None:
                # A slot may also belong to the object; copies have theirs in the mesh.
                copy.material_slots[index].link = "DATA"
                copy.data.materials[index] = slot.material
                if slot.material not in self._materials:
                    self._materials.append(slot.material)
                    self._show_pictures(slot.material)

    def _show_pictures(self, material: bpy.types.Material) -> None:
        """Has the material show pictures that are files beside the exported one, or packed, for as long as the file is written.

        A copy of the material would do, if 4.2 did not leave a user of each image behind when it copies node trees.
        """
        for node in image_nodes(material, only_visible=not self._for_blender):
            picture = self._picture(node.image)
            if picture != node.image:
                self._shown.append((node, node.image))
                node.image = picture

    def _picture(self, image: bpy.types.Image) -> bpy.types.Image:
        if self._for_blender and image.packed_file is not None and not image.is_dirty:
            return image
        if image not in self._pictures:
            file = write_picture(image, self._folder, self._stem, self._kind_of(image))
            copy = self._new(bpy.data.images.load(str(file), check_existing=False))
            copy.colorspace_settings.name = image.colorspace_settings.name
            copy.alpha_mode = image.alpha_mode
            if self._for_blender:
                copy.pack()
                file.unlink()
                copy.filepath_raw = f"//textures/{file.name}"
                for mark, value in image.items():
                    copy[mark] = value
            self._pictures[image] = copy
            self._names.lend(image, copy)
        return self._pictures[image]

    def _kind_of(self, image: bpy.types.Image) -> str:
        """What the picture is, without the head's name: other programs choke on odd letters in the paths of pictures."""
        name = Path(image.name).stem
        for start in sorted((*self._head_names, self._stem), key=len, reverse=True):
            name = name.removeprefix(start)
        return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_-") or "texture"

    def _new(self, made: bpy.types.ID) -> bpy.types.ID:
        self._made.setdefault(made.id_type, []).append(made)
        return made


def _placed(matrix: Matrix, origin: Vector, metres: float) -> Matrix:
    placed = matrix.copy()
    placed.translation = (matrix.translation - origin) * metres
    return placed


def _take_camera(scene: bpy.types.Scene, camera: bpy.types.Object) -> None:
    """Makes it the scene's, with the size of the photo, which formats write as the camera's aspect."""
    if scene.camera is None:
        scene.camera = camera
        scene.render.resolution_x = int(camera.data.get(WIDTH, scene.render.resolution_x))
        scene.render.resolution_y = int(camera.data.get(HEIGHT, scene.render.resolution_y))
