# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads as files for other programs: glTF, FBX, OBJ, USD and Blender's own."""

from __future__ import annotations

from .heads import export_heads
from .options import FORMATS, ExportOptions

__all__ = ["FORMATS", "ExportOptions", "export_heads"]
