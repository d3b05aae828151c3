# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that go by their originals' names while a file is written, for the names end up in the file."""

from __future__ import annotations

import uuid

import bpy


class LentNames:
    """Names that are given to copies for a while."""

    def __init__(self) -> None:
        self._lent: dict[bpy.types.ID, str] = {}

    def lend(self, original: bpy.types.ID, copy: bpy.types.ID) -> None:
        """Names the copy as the original, which has another name until `give_back`; a second copy gets a number, as in Blender."""
        name = self._lent.get(original, original.name)
        # A linked original keeps its name: names of other files do not get in the way.
        if original.library is None and original not in self._lent:
            self._lent[original] = name
            original.name = f".{uuid.uuid4().hex}"
        copy.name = name

    def give_back(self) -> None:
        """Names the originals as before; the copies must be gone."""
        for original, name in self._lent.items():
            original.name = name
        self._lent.clear()
