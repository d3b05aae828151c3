# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters and versions of a reconstruction, as an object's custom properties can hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# The whole result.json as JSON; the others are what a person may want to read.
DOCUMENT = "focus_document"


def reconstruction_properties(document: Mapping[str, Any], face_index: int, seconds: float) -> dict[str, str | int | float]:
    """Custom properties of a head: `focus_photo`, `focus_photo_sha256`, `focus_face`, `focus_method`, `focus_misfit` (0 or 1),
    `focus_model`, `focus_model_sha256`, `focus_weights` (their hash, "" without), `focus_software`, `focus_seconds`, and `focus_document`.

    Args:
        document: what `result.json` holds.
        face_index: 0 for the largest face.
        seconds: that the backend worked on the photo.
    """
    version = _text(document, "versions", "focus_backend")
    return {
        "focus_photo": _text(document, "photo", "name"),
        "focus_photo_sha256": _text(document, "photo", "sha256"),
        "focus_face": face_index,
        "focus_method": _text(document, "method"),
        "focus_misfit": int(document.get("misfit") is True),
        "focus_model": _text(document, "model", "name"),
        "focus_model_sha256": _text(document, "model", "sha256"),
        "focus_weights": _text(document, "weights", "sha256"),
        "focus_software": f"focus_backend {version}".strip(),
        "focus_seconds": float(seconds),
        # ASCII, so that half a surrogate in a file name stays what it is.
        DOCUMENT: json.dumps(document, separators=(",", ":")),
    }


def _text(document: Mapping[str, Any], *keys: str) -> str:
    """A text of the document as Blender can keep it; "" where there is none."""
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "") if isinstance(value, str) else ""
