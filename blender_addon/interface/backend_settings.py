# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences as settings of the session."""

from __future__ import annotations

import bpy

from ..session.settings import AUTOMATIC, CONNECT, BackendSettings
from . import package


def preferences() -> bpy.types.AddonPreferences | None:
    """Ours; None where the package was registered without being switched on in the preferences."""
    addon = bpy.context.preferences.addons.get(package.ROOT_PACKAGE)
    return addon.preferences if addon is not None else None


def read() -> BackendSettings:
    """How the backend is reached."""
    ours = preferences()
    online = bool(bpy.app.online_access)
    if ours is None:
        return BackendSettings(online=online)
    return BackendSettings(
        mode=CONNECT if ours.backend_mode == "CONNECT" else AUTOMATIC,
        executable=_absolute(ours.executable),
        arguments=_arguments(ours),
        address=ours.address.strip(),
        key_file=_absolute(ours.key_file),
        online=online,
    )


def _absolute(path: str) -> str:
    return bpy.path.abspath(path.strip()) if path.strip() else ""


def _arguments(ours: bpy.types.AddonPreferences) -> tuple[str, ...]:
    """For `focus-backend serve`."""
    arguments: list[str] = []
    if ours.weights.strip():
        arguments += ["--weights", _absolute(ours.weights)]
    if ours.device.strip():
        arguments += ["--device", ours.device.strip()]
    return tuple(arguments)
