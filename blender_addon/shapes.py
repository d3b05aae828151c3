# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for the shapes in signatures. Blender's Python has no jaxtyping: there they stay text that nobody reads."""

from __future__ import annotations

from typing import Annotated

try:
    from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
except ImportError:
    Bool = Float = Float32 = Int = Int32 = UInt8 = Annotated

__all__ = ["Bool", "Float", "Float32", "Int", "Int32", "UInt8"]
