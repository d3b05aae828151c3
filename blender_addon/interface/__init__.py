# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user sees: panel, preferences, operators, drops; and the timer that keeps it up to date."""

from __future__ import annotations


def register() -> None:
    """Registers everything; after a failure in the middle nothing stays.

    Raises:
        Exception: whatever Blender said against it.
    """
    from . import registration

    registration.register()


def unregister() -> None:
    """Takes everything away; also what only a part of was registered."""
    from . import registration

    registration.unregister()
