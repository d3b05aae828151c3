# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""FOCUS: a photo of a face becomes a head in the scene. Blender calls `register` and `unregister`; nothing happens at import."""

from __future__ import annotations


def register() -> None:
    """Adds panel, operators and properties to Blender."""
    from . import interface

    interface.register()


def unregister() -> None:
    """Takes them away, gives up what is under way and ends the backend that was started."""
    from . import interface

    interface.unregister()
