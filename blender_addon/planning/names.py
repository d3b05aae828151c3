# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of what lands in the scene."""

from __future__ import annotations

import unicodedata
from pathlib import Path

# Blender 4.2 keeps 63 bytes; " 12 outlier overlay" and ".001" have to fit in as well.
LONGEST_NAME_BYTES = 40
LONGEST_KEY_BYTES = 63
BASIS = "Basis"
FITTED_EXPRESSION = "Fitted expression"
IDENTITY = "Identity"


def photo_name(photo: Path) -> str:
    """The photo's stem, fit for Blender: printable, without odd spaces, at most 40 bytes of UTF-8; "photo" where nothing is left."""
    # macOS writes accents as letters of their own, which Blender's fonts do not join.
    text = unicodedata.normalize("NFC", photo.stem.encode("utf-8", "replace").decode("utf-8"))
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    # A letter that is cut in half goes.
    return text.encode("utf-8")[:LONGEST_NAME_BYTES].decode("utf-8", "ignore").strip() or "photo"


def is_key_name(name: str) -> bool:
    """Whether Blender keeps a name of an expression as it is, and none of our own keys has it."""
    is_own = name in (BASIS, FITTED_EXPRESSION) or name.startswith(f"{IDENTITY} ")
    return bool(name) and name.isprintable() and len(name.encode("utf-8")) <= LONGEST_KEY_BYTES and not is_own


def head_name(photo: Path, face_index: int) -> str:
    """The photo's name, with a number from the second face on."""
    return photo_name(photo) if face_index == 0 else f"{photo_name(photo)} {face_index + 1}"
