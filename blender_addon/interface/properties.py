# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties that users set: one set of options, for the panel and as defaults in the preferences."""

from __future__ import annotations

import os

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from ..options import ReconstructionOptions, SceneOptions
from . import rows, runtime
from .choosing import choose_photos

# Since Blender 4.5 a path has to say that it may begin with `//`.
RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5) else set()
METHODS = (
    ("auto", "Automatic", "What the backend thinks best"),
    ("network", "Network", "Networks only: fastest"),
    ("refine", "Refined", "Networks, then a fit to the photo: closest"),
    ("fit", "Fit", "A fit to landmarks and photo, without trained networks"),
)
TEXTURE_SIZES = (
    ("0", "Full Size", "As the backend makes them"),
    ("512", "512", "At most 512 pixels a side"),
    ("1024", "1024", "At most 1,024 pixels a side"),
    ("2048", "2048", "At most 2,048 pixels a side"),
    ("4096", "4096", "At most 4,096 pixels a side"),
)
SCENE_FLAGS = ("expression", "use_photo_texture", "expressions", "identity", "camera", "world", "mask", "set_up_scene", "show")


class Options:
    """What a user may choose for a photo; shared by the panel, the preferences and the operator.

    Remembered values of an operator would win over the panel's, so nothing is remembered.
    """

    method: EnumProperty(name="Method", description="How the face is reconstructed", items=METHODS, default="auto", options={"SKIP_SAVE"})
    misfit: BoolProperty(
        name="Misfit Correction",
        description="Take off what the face model always gets wrong, where the backend has learned it",
        default=True,
        options={"SKIP_SAVE"},
    )
    faces: IntProperty(
        name="Faces",
        description="How many faces of the photo, largest first; 0 for all",
        default=1,
        min=0,
        soft_max=10,
        options={"SKIP_SAVE"},
    )
    texture_size: EnumProperty(
        name="Texture Size", description="Textures are scaled down to this size", items=TEXTURE_SIZES, default="0", options={"SKIP_SAVE"}
    )
    unit_scale: FloatProperty(
        name="Unit Scale",
        description="Blender units a metre: 1 for real scale, 100 for a scene in centimetres",
        default=1.0,
        min=0.001,
        max=1000.0,
        options={"SKIP_SAVE"},
    )
    expression: BoolProperty(
        name="Show Expression",
        description="The head shows the photo's expression; otherwise it is neutral and the shape key waits at 0",
        default=True,
        options={"SKIP_SAVE"},
    )
    use_photo_texture: BoolProperty(
        name="Photo Texture",
        description="The material shows the photo's colours; otherwise the model's albedo",
        default=True,
        options={"SKIP_SAVE"},
    )
    expressions: BoolProperty(
        name="Expression Keys",
        description="The 52 ARKit expressions as shape keys, at 0",
        default=True,
        options={"SKIP_SAVE"},
    )
    identity: BoolProperty(
        name="Identity Sliders", description="Shape keys for the first components of identity", default=True, options={"SKIP_SAVE"}
    )
    camera: BoolProperty(
        name="Camera", description="A camera that matches the photo, with the photo behind", default=True, options={"SKIP_SAVE"}
    )
    world: BoolProperty(name="Lighting", description="The photo's lighting as a world", default=True, options={"SKIP_SAVE"})
    mask: BoolProperty(
        name="Outlier Mask",
        description="What covers the face in the photo, as image, vertex group, attribute and overlay",
        default=True,
        options={"SKIP_SAVE"},
    )
    set_up_scene: BoolProperty(
        name="Set Up Scene",
        description="The new camera, its render size and the world become the scene's, and colours are shown as the photo has them "
        "(view transform Standard, no look, exposure 0, gamma 1)",
        default=True,
        options={"SKIP_SAVE"},
    )
    show: BoolProperty(
        name="Show It",
        description="Turn the viewport to the new head: through the photo's camera where that was made the scene's",
        default=True,
        options={"SKIP_SAVE"},
    )


OPTION_NAMES = tuple(Options.__annotations__)


def reconstruction_options(source: Options) -> ReconstructionOptions:
    """Of anything with the properties of `Options`."""
    method = "" if source.method == "auto" else source.method
    return ReconstructionOptions(method=method, misfit=source.misfit, faces=source.faces, texture_size=int(source.texture_size))


def scene_options(source: Options) -> SceneOptions:
    """Of anything with the properties of `Options`."""
    return SceneOptions(unit_scale=source.unit_scale, **{name: getattr(source, name) for name in SCENE_FLAGS})


def copy_options(source: Options, target: Options) -> None:
    """Sets the options of `target` to those of `source`."""
    for name in OPTION_NAMES:
        setattr(target, name, getattr(source, name))


class FOCUS_FACE_PG_options(Options, bpy.types.PropertyGroup):
    """A set of options."""


def _chosen_photo(self: FOCUS_FACE_PG_panel) -> str:
    photos = runtime.running().photos
    return photos[0] if photos else ""


def _choose_photo(self: FOCUS_FACE_PG_panel, path: str) -> None:
    choose_photos([path] if path else [])


def _name_of_photo(self: FOCUS_FACE_PG_panel) -> str:
    return os.path.basename(_chosen_photo(self))


def _choose_named_photo(self: FOCUS_FACE_PG_panel, path: str) -> None:
    # Who leaves the field as it was has chosen nothing new.
    if path != _name_of_photo(self):
        _choose_photo(self, path.strip())


def _active_head_row(self: FOCUS_FACE_PG_panel) -> int:
    return rows.active_row()


def _choose_head_row(self: FOCUS_FACE_PG_panel, row: int) -> None:
    rows.choose(row)


class FOCUS_FACE_PG_panel(bpy.types.PropertyGroup):
    """What the panel holds. It belongs to the window manager, so that undo does not take back what was set.

    Blender writes it into files: so the photo's path is kept elsewhere.
    """

    photo: StringProperty(
        name="Photo",
        description="A photo with a face: JPEG, PNG, WebP, TIFF or BMP",
        subtype="FILE_PATH",
        options=RELATIVE,
        get=_chosen_photo,
        set=_choose_photo,
    )
    photo_name: StringProperty(
        name="Photo",
        description="A photo with a face; a path may be written or pasted here",
        options={"SKIP_SAVE"},
        get=_name_of_photo,
        set=_choose_named_photo,
    )
    options: PointerProperty(type=FOCUS_FACE_PG_options)
    has_defaults: BoolProperty(options={"HIDDEN"})
    head_row: IntProperty(name="Head", description="Heads of this scene", get=_active_head_row, set=_choose_head_row)


def add_properties() -> None:
    """Hangs the panel's properties on the window manager."""
    bpy.types.WindowManager.focus_face = PointerProperty(type=FOCUS_FACE_PG_panel)


def remove_properties() -> None:
    """Takes them away; nothing to do where they are not there."""
    if hasattr(bpy.types.WindowManager, "focus_face"):
        del bpy.types.WindowManager.focus_face
