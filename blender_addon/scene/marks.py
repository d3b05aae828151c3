# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom properties by which data-blocks of ours are told from the user's, whatever their names have become."""

from __future__ import annotations

import os
from typing import Any, TypeGuard

import bpy

ROLE = "focus_mark"
KEY = "focus_mark_key"
PHOTO = "focus_mark_photo"
SHA256 = "focus_mark_sha256"
FACE_INDEX = "focus_mark_index"
UNIT_SCALE = "focus_mark_unit_scale"


def mark(block: bpy.types.ID, role: str, key: str = "") -> None:
    """Says that a data-block is ours, what it is, and of which head; nobody edits these texts."""
    block[ROLE] = role
    if key:
        block[KEY] = key


def role_of(block: bpy.types.ID | None) -> str:
    """What a data-block of ours is: "head", "camera", "material"...; "" for the user's own."""
    return "" if block is None else _text(block, ROLE)


def key_of(block: bpy.types.ID | None) -> str:
    """Which head a data-block of ours belongs to; "" for the user's own."""
    return "" if block is None else _text(block, KEY)


def is_ours_to_change(block: bpy.types.ID | None, role: str) -> TypeGuard[bpy.types.ID]:
    """Whether it is ours, and neither linked from another file nor an override of such a one."""
    return block is not None and role_of(block) == role and block.library is None and block.override_library is None


def mark_photo(block: bpy.types.ID, photo_path: str, photo_sha256: str) -> None:
    """Says of which photo a head or a collection is."""
    block[PHOTO] = photo_path
    block[SHA256] = photo_sha256


def is_of_photo(block: bpy.types.ID, photo_path: str, photo_sha256: str) -> bool:
    """Whether a marked block is of the photo at this path, or of one with the same content."""
    same_content = bool(photo_sha256) and _text(block, SHA256) == photo_sha256
    return same_content or (bool(photo_path) and is_same_file(_text(block, PHOTO), photo_path))


def is_same_file(first: str, second: str) -> bool:
    """Whether two absolute paths name the same file, as far as their letters tell."""
    return bool(first) and _normal(first) == _normal(second)


def _normal(path: str) -> str:
    return os.path.normcase(os.path.normpath(path))


def _text(block: Any, name: str) -> str:
    value = block.get(name, "")
    return value if isinstance(value, str) else ""
