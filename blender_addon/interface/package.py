# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who we are for Blender, and where we may write."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bpy

from ..errors import AddonError

# "bl_ext.<repository>.focus_face" where Blender installed it as an extension.
ROOT_PACKAGE = __package__.rpartition(".")[0]


@dataclass(frozen=True)
class UserFolder:
    """Where we write while we run.

    Attributes:
        path: of the folder, which is there.
        is_temporary: whether it goes with us.
        problem: what the user should know of it.
    """

    path: Path
    is_temporary: bool = False
    problem: AddonError | None = None

    def close(self) -> None:
        """Removes the folder where it was temporary."""
        if self.is_temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def user_folder() -> UserFolder:
    """The extension's own folder; a temporary one where that cannot be written."""
    folder = _folder_of_extension()
    if folder is not None and _is_writable(folder):
        return UserFolder(folder)
    stand_in = Path(tempfile.mkdtemp(prefix="focus_face_"))
    if folder is None:
        return UserFolder(stand_in, is_temporary=True)
    remedy = f"allow writing there; until then the backend's log is kept in {stand_in}"
    problem = AddonError(f"the extension's folder {folder} cannot be written", remedy, "read-only")
    return UserFolder(stand_in, is_temporary=True, problem=problem)


def _folder_of_extension() -> Path | None:
    """None where this package runs without being installed as an extension, as in tests."""
    try:
        path = bpy.utils.extension_path_user(ROOT_PACKAGE)
    except ValueError:
        return None
    return Path(path) if path else None


def _is_writable(folder: Path) -> bool:
    # Permission bits lie on Windows and for the superuser: only a file written shows it.
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True
