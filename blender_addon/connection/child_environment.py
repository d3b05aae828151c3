# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of a backend: the user's own, without what Blender adds for its own Python and libraries."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# Lists of folders in which the system looks for libraries.
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES")
# Set by macOS's Python for its children.
_LAUNCHER = "__PYVENV_LAUNCHER__"
# Folders that programs share are no program's own.
_SHARED = {Path(name) for name in ("/", "/bin", "/usr", "/usr/bin", "/usr/local", "/usr/local/bin", "/opt")}


def child_environment(environment: Mapping[str, str] | None = None, own_folders: Iterable[Path] | None = None) -> dict[str, str]:
    """What a backend is started with.

    Args:
        environment: of this process; None for `os.environ`.
        own_folders: where this program lies; its libraries are nobody else's. None to find out.
    """
    given = os.environ if environment is None else environment
    own = program_folders() if own_folders is None else list(own_folders)
    kept = {name: value for name, value in given.items() if not name.upper().startswith("PYTHON") and name != _LAUNCHER}
    for name in _LIBRARY_PATHS:
        if name in kept:
            others = [entry for entry in kept[name].split(os.pathsep) if entry and not _is_inside(Path(entry), own)]
            kept[name] = os.pathsep.join(others)
            if not others:
                del kept[name]
    # Its log is read as UTF-8, whatever the system's code page.
    return kept | {"PYTHONIOENCODING": "utf-8:backslashreplace"}


def program_folders() -> list[Path]:
    """Where the program lies that runs this Python: Blender, with its libraries and its Python."""
    places = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable or "").parent]
    # In Blender `sys.executable` is the Python that comes along.
    with contextlib.suppress(OSError):
        places.append(Path(os.readlink("/proc/self/exe")).parent)
    snap = os.environ.get("SNAP")
    if snap:
        places.append(Path(snap))
    return [place for place in dict.fromkeys(places) if place.is_absolute() and place not in _SHARED]


def _is_inside(path: Path, folders: Iterable[Path]) -> bool:
    normal = Path(os.path.normpath(path))
    return any(normal.is_relative_to(folder) for folder in folders)
