# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's exporters, asked so that heads come out in metres, with the axes of the format, their keys and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ..errors import AddonError
from .options import ExportOptions

# Operator, and the add-on that brings it.
_EXPORTERS = {
    "glb": ("export_scene", "gltf", "glTF 2.0"),
    "fbx": ("export_scene", "fbx", "FBX"),
    "obj": ("wm", "obj_export", ""),
    "usd": ("wm", "usd_export", ""),
}


def write_glb(path: Path, options: ExportOptions) -> None:
    """glTF, binary: metres, y up, looking along +z; pictures inside, keys as morph targets."""
    _export(
        "glb",
        filepath=str(path),
        export_format="GLB",
        check_existing=False,
        use_active_scene=True,
        export_yup=True,
        export_apply=False,
        export_animations=False,
        export_morph=True,
        export_morph_normal=True,
        export_skins=False,
        export_cameras=options.camera,
        export_lights=False,
        export_extras=False,
        export_attributes=False,
        export_vertex_color="NONE",
        export_all_vertex_colors=False,
        export_image_format="AUTO",
        will_save_settings=False,
    )


def write_fbx(path: Path, options: ExportOptions) -> None:
    """FBX, binary: one Blender unit is a metre, which the file holds as 100 cm; y up; pictures inside, keys as blend shapes."""
    _export(
        "fbx",
        filepath=str(path),
        check_existing=False,
        use_selection=False,
        object_types={"MESH", "CAMERA"},
        global_scale=1.0,
        apply_unit_scale=True,
        apply_scale_options="FBX_SCALE_NONE",
        axis_forward="-Z",
        axis_up="Y",
        use_mesh_modifiers=False,
        mesh_smooth_type="FACE",
        colors_type="NONE",
        use_custom_props=False,
        bake_anim=False,
        path_mode="COPY",
        embed_textures=True,
        use_metadata=False,
    )


def write_obj(path: Path, options: ExportOptions) -> None:
    """Wavefront OBJ: metres, y up, looking along +z; the head as its sliders stand, for OBJ has no keys; .mtl and pictures beside."""
    _export(
        "obj",
        filepath=str(path),
        check_existing=False,
        export_selected_objects=False,
        export_animation=False,
        forward_axis="NEGATIVE_Z",
        up_axis="Y",
        global_scale=1.0,
        apply_modifiers=True,
        export_uv=True,
        export_normals=True,
        export_colors=False,
        export_materials=True,
        export_vertex_groups=False,
        export_triangulated_mesh=False,
        path_mode="RELATIVE",
    )


def write_usd(path: Path, options: ExportOptions) -> None:
    """USD: metres, z up, which the file says; keys as blend shapes; pictures inside .usdz, and beside the others."""
    is_packed = path.suffix.lower() == ".usdz"
    _export(
        "usd",
        filepath=str(path),
        check_existing=False,
        selected_objects_only=False,
        visible_objects_only=False,
        # Where keys stand is written with animation only; the scene has one frame.
        export_animation=True,
        export_uvmaps=True,
        export_normals=True,
        export_materials=True,
        generate_preview_surface=True,
        # What the setting was before 4.5, and is now.
        export_textures=is_packed,
        export_textures_mode="NEW" if is_packed else "KEEP",
        overwrite_textures=True,
        relative_paths=True,
        export_shapekeys=True,
        export_cameras=options.camera,
        export_lights=False,
        export_hair=False,
        convert_world_material=False,
        export_custom_properties=False,
        author_blender_name=False,
        allow_unicode=True,
    )


def write_blend(path: Path, scene: bpy.types.Scene) -> None:
    """A .blend file with the scene and what it uses."""
    bpy.data.libraries.write(str(path), {scene}, path_remap="NONE", fake_user=False)


WRITERS = {"glb": write_glb, "fbx": write_fbx, "obj": write_obj, "usd": write_usd}


def write(scene: bpy.types.Scene, path: Path, file_format: str, options: ExportOptions) -> None:
    """Writes everything in the scene.

    Raises:
        RuntimeError: the exporter failed.
        OSError: the file cannot be written.
    """
    if file_format == "blend":
        write_blend(path, scene)
        return
    with bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0]):
        WRITERS[file_format](path, options)


def check_exporter(file_format: str) -> None:
    """Checks that this Blender can write the format: some are built without USD, and add-ons may be switched off.

    Raises:
        AddonError: it cannot.
    """
    if file_format in _EXPORTERS and _properties(file_format) is None:
        module, name, addon = _EXPORTERS[file_format]
        remedy = f"enable the add-on {addon!r} in the Preferences" if addon else "choose another format, or a Blender from blender.org"
        raise AddonError(f"this Blender cannot write {file_format}, for it has no bpy.ops.{module}.{name}", remedy, "exporter")


def _export(file_format: str, /, **arguments: Any) -> None:
    """Calls an exporter with those arguments that this version of it knows.

    Raises:
        RuntimeError: it failed.
    """
    known = _properties(file_format) or ()
    result = _operator(file_format)(**{key: value for key, value in arguments.items() if key in known})
    if result != {"FINISHED"}:
        raise RuntimeError("the exporter gave up")


def _operator(file_format: str) -> Any:
    module, name, _ = _EXPORTERS[file_format]
    return getattr(getattr(bpy.ops, module), name)


def _properties(file_format: str) -> list[str] | None:
    """Names of the exporter's arguments; None where there is no exporter."""
    try:
        return list(_operator(file_format).get_rna_type().properties.keys())
    except KeyError:
        return None
