# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where `focus-backend` may be installed: Blender, started from a desktop, often knows less of it than the user's terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_NAME = "focus-backend"
# Where programs lie in an environment.
_BINARY_FOLDERS = ("Scripts", "bin") if sys.platform == "win32" else ("bin",)
_VENV_NAMES = (".venv", "venv", "env")
# Folders in the user's home that hold environments side by side.
_VENV_COLLECTIONS = (".virtualenvs", ".venvs", "venvs", "envs", "virtualenvs", ".pyenv/versions", ".local/share/virtualenvs")
_CONDA_NAMES = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", "miniconda", "anaconda", ".conda", ".mamba")
# Web pages put files into these, and macOS asks the user before a program may look into them.
_GUARDED = {"Desktop", "Documents", "Downloads", "Library", "Movies", "Music", "Pictures", "Public"}
# A home with more folders than that is not searched to its end.
_MOST_FOLDERS = 400


def find_backend(preferred: str = "") -> Path | None:
    """The program `focus-backend`: what the user prefers, else $FOCUS_BACKEND, else on the PATH, else where installers put it.

    Args:
        preferred: the program, or a folder that has it: of an environment, of a project with one, of programs; "" for no preference.
            Where it is not, no other is looked for.

    Returns:
        Absolute; None when there is none.
    """
    if preferred.strip():
        return _in_place(preferred)
    chosen = os.environ.get("FOCUS_BACKEND", "").strip()
    found = _in_place(chosen) if chosen else None
    if found is not None:
        return found
    folders = itertools.chain(_folders_on_path(), _common_folders())
    return next((program for folder in folders if (program := _program_in(folder)) is not None), None)


def _in_place(text: str) -> Path | None:
    """The program at a place that the user named."""
    # Copied paths come with quotes.
    place = Path(os.path.expandvars(text.strip().strip("\"'"))).expanduser().absolute()
    try:
        if place.is_dir():
            return next((program for folder in _near(place) if (program := _program_in(folder)) is not None), None)
        if re.match(r"python[0-9.]*w?(\.exe)?$", place.name, re.IGNORECASE):
            # The environment's Python is meant for the environment.
            return _program_in(place.parent)
        return place if _can_run(place) else None
    except (OSError, ValueError):
        return None


def _near(folder: Path) -> Iterator[Path]:
    yield folder
    for environment in (folder, *(folder / name for name in _VENV_NAMES)):
        yield from (environment / name for name in _BINARY_FOLDERS)


def _program_in(folder: Path) -> Path | None:
    names = [f"{_NAME}{ending}" for ending in (".exe", ".cmd", ".bat")] if sys.platform == "win32" else [_NAME]
    return next((folder / name for name in names if _can_run(folder / name)), None)


def _can_run(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except (OSError, ValueError):
        return False


def _folders_on_path() -> Iterator[Path]:
    """Never the folder that Blender happens to be in, which Windows searches first: beside a downloaded scene anything may lie."""
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        folder = Path(entry.strip('"'))
        if folder.is_absolute():
            yield folder


def _common_folders() -> Iterator[Path]:
    """Folders of programs, the likeliest first."""
    try:
        home = Path.home()
    except RuntimeError:
        # A user without a home.
        return
    yield from _of_installers(home)
    yield from {"win32": _on_windows, "darwin": _on_macos}.get(sys.platform, _on_linux)(home)
    for environment in _conda_environments(home):
        yield from (environment / name for name in _BINARY_FOLDERS)
    projects = [folder for folder in _folders_in(home) if not folder.name.startswith(".") and folder.name not in _GUARDED]
    for place in (home, *projects):
        # Environments only: a program that lies about in a folder was installed by nobody.
        yield from itertools.islice(_near(place), 1, None)
    for collection in _VENV_COLLECTIONS:
        for environment in _folders_in(home / collection):
            yield from (environment / name for name in _BINARY_FOLDERS)


def _of_installers(home: Path) -> Iterator[Path]:
    """pipx and uv: their folders of programs, then the environments behind."""
    for variable in ("PIPX_BIN_DIR", "UV_TOOL_BIN_DIR", "XDG_BIN_HOME"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield home / ".local" / "bin"
    tools = [home / ".local/pipx/venvs", home / ".local/share/pipx/venvs", home / "pipx/venvs", home / ".local/share/uv/tools"]
    if os.environ.get("PIPX_HOME"):
        tools.insert(0, Path(os.environ["PIPX_HOME"]) / "venvs")
    if os.environ.get("UV_TOOL_DIR"):
        tools.insert(0, Path(os.environ["UV_TOOL_DIR"]))
    if sys.platform == "win32":
        local, roaming = _windows_data(home)
        tools += [local / "pipx" / "pipx" / "venvs", local / "pipx" / "venvs", roaming / "uv" / "tools", roaming / "uv" / "data" / "tools"]
    if sys.platform == "darwin":
        tools.append(home / "Library/Application Support/pipx/venvs")
    for folder in tools:
        yield from (folder / _NAME / name for name in _BINARY_FOLDERS)


def _on_linux(_home: Path) -> Iterator[Path]:
    yield from (Path("/usr/local/bin"), Path("/usr/bin"))
    yield from _near(Path("/opt") / _NAME)
    yield from _near(Path("/opt"))


def _on_macos(home: Path) -> Iterator[Path]:
    yield from (Path("/opt/homebrew/bin"), Path("/usr/local/bin"))
    # `pip install --user`, and Python from python.org.
    for versions in (home / "Library/Python", Path("/Library/Frameworks/Python.framework/Versions")):
        yield from (version / "bin" for version in _folders_in(versions))


def _on_windows(home: Path) -> Iterator[Path]:
    local, roaming = _windows_data(home)
    # `pip install --user`, and Python from python.org.
    for versions in (roaming / "Python", local / "Programs" / "Python"):
        yield from (version / "Scripts" for version in _folders_in(versions))
    # Python of the Microsoft Store keeps its own.
    for package in _folders_in(local / "Packages"):
        if package.name.startswith("PythonSoftwareFoundation."):
            for version in _folders_in(package / "LocalCache" / "local-packages"):
                yield version / "Scripts"
    yield Path(os.environ.get("PROGRAMFILES", "C:\\Program Files")) / _NAME


def _windows_data(home: Path) -> tuple[Path, Path]:
    local = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return local, Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")


def _conda_environments(home: Path) -> Iterator[Path]:
    # Conda's own list of all environments that it ever made.
    with contextlib.suppress(OSError):
        listed = (home / ".conda" / "environments.txt").read_text("utf-8", "replace")
        yield from (Path(line) for line in listed.splitlines() if line.strip())
    roots = [home / name for name in _CONDA_NAMES]
    if os.environ.get("CONDA_PREFIX"):
        roots.insert(0, Path(os.environ["CONDA_PREFIX"]))
    if sys.platform == "win32":
        shared = Path(os.environ.get("PROGRAMDATA", "C:\\ProgramData"))
        roots += [shared / name for name in _CONDA_NAMES]
    else:
        roots += [Path("/opt") / name for name in ("conda", *_CONDA_NAMES[:4])] + [Path("/opt/homebrew/Caskroom/miniconda/base")]
    for root in roots:
        yield root
        yield from _folders_in(root / "envs")


def _folders_in(folder: Path) -> list[Path]:
    """Sorted, the newest version of a tool first."""
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry, _ in zip(entries, range(_MOST_FOLDERS), strict=False) if entry.is_dir()]
    except OSError:
        return []
    return sorted(found, key=_version, reverse=True)


def _version(path: Path) -> tuple[int, list[int], str]:
    numbers = [int(number) for number in re.findall(r"[0-9]{1,9}", path.name)]
    return (bool(numbers), numbers, path.name)
