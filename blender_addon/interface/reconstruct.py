# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator that everything is about: photos in, heads in the scene."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt
from bpy.props import BoolProperty, CollectionProperty, StringProperty

from ..errors import AddonError
from ..options import ReconstructionOptions, SceneOptions
from ..session.job import Job
from . import runtime, timer, windows
from .delivery import target_of
from .handlers import use_defaults
from .options_layout import draw_options
from .properties import OPTION_NAMES, RELATIVE, Options, reconstruction_options, scene_options
from .remedies import in_one_line
from .showing import Viewport, viewport_of
from .waiting import wait_for

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp")
PHOTO_GLOB = ";".join(f"*{ending}" for ending in PHOTO_ENDINGS)


class FOCUS_FACE_OT_reconstruct(Options, bpy.types.Operator):
    """Reconstruct the faces of photos as heads with shape keys, textures, camera and lighting"""

    bl_idname = "focus_face.reconstruct"
    bl_label = "Reconstruct Face from Photo"
    bl_options = {"REGISTER"}

    filepath: StringProperty(
        name="Photo",
        description="Photo to be reconstructed; empty for those chosen in the panel",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"} | RELATIVE,
    )
    directory: StringProperty(
        name="Folder", description="Folder of several photos", subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"} | RELATIVE
    )
    files: CollectionProperty(
        name="Photos", description="Several photos of the folder", type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"}
    )
    filter_glob: StringProperty(default=PHOTO_GLOB, options={"HIDDEN", "SKIP_SAVE"})
    wait: BoolProperty(
        name="Wait",
        description="Return when the heads are in the scene; always so in background mode",
        default=False,
        options={"SKIP_SAVE", "HIDDEN"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene is not None

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Photos that were dropped are taken at once; otherwise asks for photos."""
        if given_photos(self):
            windows.reveal_panel(context.area)
            return self.execute(context)
        for name in OPTION_NAMES:
            if not self.properties.is_property_set(name):
                setattr(self, name, getattr(context.window_manager.focus_face.options, name))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context: bpy.types.Context) -> None:
        draw_options(self.layout, self, runtime.running().status.methods)

    def execute(self, context: bpy.types.Context) -> set[str]:
        photos = given_photos(self) or [absolute_photo(path) for path in runtime.running().photos]
        try:
            if not photos:
                raise AddonError(pgettext_rpt("no photo was chosen"), pgettext_rpt("choose one in the panel, or give filepath"), "photo")
            chosen = self._chosen_options(context)
            waits = self.wait or bpy.app.background
            viewport = None if waits else viewport_of(context)
            jobs = submit(photos, reconstruction_options(chosen), scene_options(chosen), context.scene, viewport)
            failures = wait_for(jobs) if waits else []
        except AddonError as error:
            self.report({"ERROR"}, in_one_line(error))
            return {"CANCELLED"}
        if failures and len(failures) == len(jobs):
            self.report({"ERROR"}, "\n".join(in_one_line(failure) for failure in failures))
            return {"CANCELLED"}
        for failure in failures:
            self.report({"WARNING"}, in_one_line(failure))
        return {"FINISHED"}

    def _chosen_options(self, context: bpy.types.Context) -> ChosenOptions:
        """Those that were given; the panel's for the others."""
        use_defaults()
        panel = context.window_manager.focus_face.options
        sources = {name: self if self.properties.is_property_set(name) else panel for name in OPTION_NAMES}
        return ChosenOptions({name: getattr(source, name) for name, source in sources.items()})


class ChosenOptions(Options):
    """Values of `Options`, as attributes."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)


def given_photos(operator: FOCUS_FACE_OT_reconstruct) -> list[Path]:
    """Photos that the operator was called with, each once; several files win over the one path."""
    folder = bpy.path.abspath(operator.directory) if operator.directory else ""
    names = [file.name for file in operator.files if file.name]
    # Without a folder, the names are paths themselves.
    paths = [os.path.join(folder, name) for name in names] or ([operator.filepath] if operator.filepath else [])
    return list(dict.fromkeys(absolute_photo(path) for path in paths))


def absolute_photo(path: str) -> Path:
    """A path as the user gave it, `//` for the folder of the open file."""
    return Path(os.path.abspath(bpy.path.abspath(path)))


def submit(
    photos: Sequence[Path],
    options: ReconstructionOptions,
    what: SceneOptions,
    scene: bpy.types.Scene,
    viewport: Viewport | None = None,
) -> list[Job]:
    """Puts photos in line for a scene; the first head that comes is shown in the viewport.

    Raises:
        AddonError: nothing can be put in line now.
    """
    runtime.dismiss_error()
    session, target = runtime.session(), target_of(scene, runtime.running().file_number, viewport)
    jobs = []
    for photo in photos:
        job = session.submit(photo, options, what)
        job.tag = target
        jobs.append(job)
    timer.wake()
    return jobs


CLASSES = (FOCUS_FACE_OT_reconstruct,)
