# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads of the scene as files for other programs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bpy

from ..errors import AddonError
from .destination import Destination, not_written
from .formats import check_exporter, write
from .options import ExportOptions, has_pictures_beside, with_suffix
from .stage import staged
from .wholeness import is_whole


def export_heads(heads: Sequence[bpy.types.Object], path: Path, file_format: str, options: ExportOptions) -> list[Path]:
    """Writes heads with their shape keys and pictures; nothing in the scene changes.

    Args:
        heads: mesh objects, at least one.
        path: of the file; where several heads have a file each, their names follow its stem. An ending of the format is added
            where there is none. Missing folders are made.
        file_format: one of `FORMATS`.
        options: what the files hold.

    Returns:
        Every file that was written, each head's own before those beside it.

    Raises:
        AddonError: no such format or exporter, nothing to export, a file that is in the way, or a place that cannot be written to.
    """
    path = with_suffix(Path(path), file_format).absolute()
    check_exporter(file_format)
    if not heads or any(head.type != "MESH" for head in heads):
        raise AddonError("there is no head to export", "select a head", "head")
    # Where objects were moved by a program, their matrices are those of before.
    bpy.context.view_layer.update()
    groups = [list(heads)] if options.together or len(heads) == 1 else [[head] for head in heads]
    paths = [path] if len(groups) == 1 else _paths_of(path, [group[0].name for group in groups])
    destinations = [Destination(target, options.overwrite) for target in paths]
    for destination in destinations:
        destination.check_free()
    for destination, group in zip(destinations, groups, strict=True):
        _export(group, destination, file_format, options)
    return [written for destination in destinations for written in destination.written]


def _paths_of(path: Path, names: Sequence[str]) -> list[Path]:
    """A file for each head, all different also where case does not count."""
    paths: dict[str, Path] = {}
    for name in names:
        safe = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name)
        candidates = (path.with_name(f"{path.stem}-{safe}{f'-{number}' if number > 1 else ''}{path.suffix}") for number in range(1, 10_000))
        found = next(candidate for candidate in candidates if candidate.name.casefold() not in paths)
        paths[found.name.casefold()] = found
    return list(paths.values())


def _export(heads: Sequence[bpy.types.Object], destination: Destination, file_format: str, options: ExportOptions) -> None:
    vertices = sum(len(head.data.vertices) for head in heads)
    faces = sum(len(head.data.polygons) for head in heads)
    with destination.staging() as folder:
        path, for_blender = folder / destination.path.name, file_format == "blend"
        try:
            with tempfile.TemporaryDirectory(dir=folder) as hidden:
                pictures = folder if has_pictures_beside(path) else Path(hidden)
                with staged(heads, path.stem, pictures, options, for_blender=for_blender) as scene:
                    write(scene, path, file_format, options)
        except RuntimeError as error:
            raise not_written(destination.path, _reason(error)) from error
        if not path.is_file() or not is_whole(path, vertices, faces):
            raise not_written(destination.path, "the exporter wrote a part of it only")


def _reason(error: RuntimeError) -> str:
    """The last line of what an exporter says, which may be a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(("Location:", "Error: Python"))), "the exporter failed")
