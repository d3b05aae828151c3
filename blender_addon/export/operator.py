# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator: heads as files, from the file browser or from Python."""

from __future__ import annotations

import re
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..errors import AddonError
from ..scene.find import heads, is_head
from .heads import export_heads
from .options import SUFFIXES, ExportOptions, with_suffix

_FORMATS = (
    ("glb", "glTF (.glb)", "One file with textures and shape keys: metres, y up"),
    ("fbx", "FBX (.fbx)", "One file with textures and shape keys, of real size in programs that honour FBX units"),
    (
        "obj",
        "Wavefront OBJ (.obj)",
        "The head as its sliders stand, without shape keys; material and texture files beside: metres, y up",
    ),
    ("usd", "USD (.usdz)", "One file with textures and shape keys: metres, z up. Type .usdc or .usda for a file with its textures beside"),
    ("blend", "Blender (.blend)", "A file with the head's collection, to be opened or appended from; textures packed"),
)
_WHICH = (
    ("ACTIVE", "Active", "The active head, or the one of the active camera"),
    ("SELECTED", "Selected", "All selected heads"),
    ("ALL", "All", "All heads of the scene"),
)


class FOCUS_FACE_OT_export(bpy.types.Operator):
    """Write heads with shape keys and textures as GLB, FBX, OBJ, USD or .blend, in real size"""

    bl_idname = "focus_face.export"
    bl_label = "Export Heads"
    bl_options = {"REGISTER", "PRESET"}

    filepath: StringProperty(name="File", description="File to write; its folder is made where it is missing", subtype="FILE_PATH")
    file_format: EnumProperty(name="Format", description="For which program", items=_FORMATS, default="glb")
    which: EnumProperty(name="Heads", description="Which heads to write", items=_WHICH, default="ACTIVE")
    include_identity: BoolProperty(
        name="Identity Sliders", description="Keep identity sliders as shape keys; otherwise they become part of the head", default=True
    )
    camera: BoolProperty(name="Camera", description="Write the camera that matches the photo, too", default=False)
    together: BoolProperty(name="One File", description="Several heads come into one file; otherwise each has its own", default=False)
    keep_place: BoolProperty(
        name="Keep Place", description="The head lies where it lies in the scene; otherwise at the origin", default=False
    )
    overwrite: BoolProperty(name="Overwrite", description="Replace files that exist", default=False, options={"SKIP_SAVE"})
    check_existing: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default="*.glb;*.fbx;*.obj;*.usd;*.usda;*.usdc;*.usdz;*.blend", options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("There is no head in this scene")
        return any(is_head(block) for block in context.scene.objects)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        # The file browser shows in red what would be replaced.
        self.overwrite = True
        chosen = _chosen(context, self.which) or heads(context.scene)
        folder = Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()
        stem = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", chosen[0].name)
        self.filepath = str(folder / (stem + SUFFIXES[self.file_format][0]))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def check(self, context: bpy.types.Context) -> bool:
        """Keeps the ending in step with the format while the file browser is open."""
        if not Path(self.filepath).name:
            return False
        fitting = str(with_suffix(Path(self.filepath), self.file_format))
        has_changed, self.filepath = fitting != self.filepath, fitting
        return has_changed

    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = _chosen(context, self.which)
        options = ExportOptions(self.include_identity, self.camera, self.together, self.keep_place, self.overwrite)
        try:
            if not self.filepath or not Path(self.filepath).name:
                raise AddonError("no file was named", "choose a file to write", "output")
            written = export_heads(chosen, Path(bpy.path.abspath(self.filepath)), self.file_format, options)
        except AddonError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, pgettext_rpt("Wrote {files}").format(files=", ".join(path.name for path in written)))
        return {"FINISHED"}


def _chosen(context: bpy.types.Context, which: str) -> list[bpy.types.Object]:
    """The heads that the user means; a head is also meant by its camera."""
    if which == "ALL":
        return heads(context.scene)
    layer = context.view_layer
    active = [layer.objects.active] if layer.objects.active is not None else []
    meant = active if which == "ACTIVE" else [block for block in layer.objects if block.select_get(view_layer=layer)]
    found = [block if is_head(block) else block.parent for block in meant]
    return list(dict.fromkeys(block for block in found if is_head(block)))


CLASSES = (FOCUS_FACE_OT_export,)
