# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The photos that wait for the panel's button."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import bpy

from ..errors import AddonError
from ..session.settings import AUTOMATIC
from . import backend_settings, runtime, timer


def choose_photos(paths: Sequence[str]) -> None:
    """Makes these the photos that wait; none for an empty sequence."""
    runtime.choose_photos(paths)
    if paths and not bpy.app.background:
        _warm_up()


def _warm_up() -> None:
    """Starts our backend while the user still looks at photo and options: it takes longer to load than a face takes.

    One that failed, and one to connect to, wait for the button.
    """
    if runtime.running().status.light != "off" or backend_settings.read().mode != AUTOMATIC:
        return
    # Should it be impossible, the button will say why.
    with contextlib.suppress(AddonError):
        runtime.session().start_backend()
    timer.wake()
