"""One photo's heads, through Blender's scene into files; the same inside Blender and with the `bpy` package."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from focus_backend.export.names import face_names

from .arguments import Arguments
from .manifest import manifest_path, read_manifest, write_manifest
from .outcome import FaceFiles, Failure, PhotoFailedError
from .photos import Photo


@dataclass(frozen=True)
class Addon:
    """The extension's package, whatever it is called where it was installed.

    Attributes:
        root: "blender_addon" in the repository, "bl_ext.<repository>.focus_face" in Blender.
    """

    root: str

    def module(self, name: str) -> ModuleType:
        """One of its modules."""
        return importlib.import_module(f"{self.root}.{name}")

    def scene_options(self, arguments: Arguments) -> Any:
        """What lands in the scene: no more than the formats can hold."""
        keeps_all = "blend" in arguments.formats
        return self.module("options").SceneOptions(
            unit_scale=arguments.unit_scale,
            expression=arguments.expression,
            use_photo_texture=arguments.texture == "photo",
            identity=arguments.identity,
            camera=arguments.camera,
            world=keeps_all,
            mask=keeps_all,
            set_up_scene=False,
        )

    def check_formats(self, arguments: Arguments) -> None:
        """Checks that this Blender can write all formats, before anybody waits for heads.

        Raises:
            AddonError: it cannot.
        """
        for kind in arguments.formats:
            self.module("export.formats").check_exporter(kind)


def parts_for(arguments: Arguments, shows_upright: bool) -> list[str]:
    """The parts of an answer that the scene needs."""
    keeps_all = "blend" in arguments.formats
    wanted = {
        "geometry": True,
        "texture": keeps_all or arguments.texture == "photo",
        "albedo": keeps_all or arguments.texture == "albedo",
        "masks": keeps_all,
        "photo": keeps_all and arguments.camera and not shows_upright,
        "model": True,
        "identity": arguments.identity,
    }
    return [part for part, is_wanted in wanted.items() if is_wanted]


def write_photo(
    addon: Addon, plan: Any, photo: Photo, sha256: str | None, arguments: Arguments, reserved: frozenset[str]
) -> tuple[FaceFiles, ...]:
    """Builds the heads of a photo's plan, writes them in every format, and takes them away again.

    Args:
        addon: the extension.
        plan: a `PhotoPlan`.
        photo: whose name the files get.
        sha256: of the photo's file; None where it cannot be read.
        arguments: formats and folder.
        reserved: folded names of all photos.

    Raises:
        PhotoFailedError: a file of somebody else is in the way.
        AddonError: the plan is unusable, or a file cannot be written.
    """
    is_new = not read_manifest(arguments.out, photo.name)
    if is_new and manifest_path(arguments.out, photo.name).exists() and not arguments.overwrite:
        problem = f"{manifest_path(arguments.out, photo.name)} is no manifest of this script"
        raise PhotoFailedError(Failure("exists", problem, "choose another folder, or add --overwrite"))
    names = face_names(photo.name, len(plan.heads), reserved)
    try:
        _check_free(names, is_new and not arguments.overwrite, arguments)
        # From here on these files are ours, also for the next run if this one is cut off.
        if is_new:
            write_manifest(arguments.out, photo.name, photo.path, None, arguments, ())
        faces = _write_heads(addon, plan, names, arguments)
        write_manifest(arguments.out, photo.name, photo.path, sha256, arguments, faces)
    except BaseException:
        if is_new and not _taken(names, arguments):
            manifest_path(arguments.out, photo.name).unlink(missing_ok=True)
        raise
    return faces


def _check_free(names: list[str], is_checked: bool, arguments: Arguments) -> None:
    taken = _taken(names, arguments) if is_checked else []
    if taken:
        raise PhotoFailedError(
            Failure("exists", f"{taken[0]} exists, and is not of this script", "choose another folder, or add --overwrite")
        )


def _taken(names: list[str], arguments: Arguments) -> list[Path]:
    """Files of these names that are there."""
    return [path for name in names for kind in arguments.formats if (path := arguments.out / f"{name}.{_ending(kind)}").exists()]


def _ending(file_format: str) -> str:
    return "usdz" if file_format == "usd" else file_format


def _write_heads(addon: Addon, plan: Any, names: list[str], arguments: Arguments) -> tuple[FaceFiles, ...]:
    import bpy

    find, build = addon.module("scene.find"), addon.module("scene.build")
    scene, older = bpy.context.scene, {block.session_uid for block in bpy.context.scene.objects}
    try:
        for _ in build.build_photo(plan, addon.scene_options(arguments), scene):
            pass
        blocks = sorted((block for block in find.heads(scene) if block.session_uid not in older), key=find.face_index_of)
        return tuple(_write_head(addon, *each, arguments) for each in zip(blocks, names, plan.heads, strict=True))
    finally:
        for block in [block for block in find.heads(scene) if block.session_uid not in older]:
            find.remove_head(block)


def _write_head(addon: Addon, block: Any, name: str, head: Any, arguments: Arguments) -> FaceFiles:
    export = addon.module("export")
    options = export.ExportOptions(include_identity=arguments.identity, camera=arguments.camera, overwrite=True)
    files: dict[str, list[str]] = {}
    for kind in arguments.formats:
        written = export.export_heads([block], arguments.out / name, kind, options)
        files[kind] = [str(path.relative_to(arguments.out.absolute())) for path in written]
    return FaceFiles(name, files, tuple(head.warnings))


def photo_path(photo: Photo) -> Path:
    """Absolute, as plans want it."""
    return photo.path.absolute()
