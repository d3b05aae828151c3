"""Where the backend's program is found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from blender_addon.connection import installed_backends
from blender_addon.connection.backend_process import find_backend

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the program's name and mode are POSIX here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with nothing installed anywhere."""
    folder = tmp_path / "Zoë 走 home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    for name in ("FOCUS_BACKEND", "PIPX_BIN_DIR", "PIPX_HOME", "UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "XDG_BIN_HOME", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    # What this machine has outside of the home.
    inside = installed_backends._program_in
    monkeypatch.setattr(installed_backends, "_program_in", lambda place: inside(place) if place.is_relative_to(tmp_path) else None)
    return folder


def install(folder: Path) -> Path:
    """A program of the right name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "focus-backend"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_nothing_is_installed(home):
    assert find_backend() is None
    assert find_backend(str(home)) is None


@pytest.mark.parametrize(
    "place",
    [
        ".local/bin",
        ".local/share/pipx/venvs/focus-backend/bin",
        ".local/pipx/venvs/focus-backend/bin",
        ".local/share/uv/tools/focus-backend/bin",
        "miniconda3/bin",
        "miniforge3/envs/any name/bin",
        ".conda/envs/faces/bin",
        ".venv/bin",
        "venv/bin",
        "focus for blender/.venv/bin",
        "project/venv/bin",
        "an-environment/bin",
        ".virtualenvs/faces/bin",
        ".pyenv/versions/3.11.9/bin",
        "bin",
    ],
)
def test_common_places(home, place):
    path = install(home / place)
    assert find_backend() == path


def test_tools_that_were_told_other_places(home, monkeypatch, tmp_path):
    for variable, below in (("PIPX_BIN_DIR", ""), ("UV_TOOL_DIR", "focus-backend/bin"), ("CONDA_PREFIX", "bin")):
        folder = tmp_path / variable
        path = install(folder / below)
        monkeypatch.setenv(variable, str(folder))
        assert find_backend() == path
        monkeypatch.delenv(variable)
    listed = install(tmp_path / "listed env" / "bin")
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_text(f"/nowhere\n\n{tmp_path / 'listed env'}\n")
    assert find_backend() == listed


def test_newer_versions_come_first(home):
    older, newer = (install(home / f".pyenv/versions/{version}/bin") for version in ("3.9.1", "3.11.2"))
    assert find_backend() == newer
    newer.unlink()
    assert find_backend() == older


def test_the_path_comes_before_common_places_and_the_variable_before_the_path(home, tmp_path, monkeypatch):
    install(home / ".local/bin")
    on_path = install(tmp_path / "programs")
    assert find_backend() == on_path
    named = install(tmp_path / "named")
    monkeypatch.setenv("FOCUS_BACKEND", str(named))
    assert find_backend() == named
    monkeypatch.setenv("FOCUS_BACKEND", str(tmp_path / "gone"))
    assert find_backend() == on_path


@pytest.mark.parametrize("entries", ["", ".", "relative"])
def test_the_folder_that_blender_is_in_is_not_searched(tmp_path, monkeypatch, entries):
    install(tmp_path / "scenes" / "relative")
    install(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path / "scenes")
    monkeypatch.setenv("PATH", f"{entries}{os.pathsep}{tmp_path / 'programs'}")
    assert find_backend() is None
    assert find_backend(str(tmp_path / "scenes")) is not None


@pytest.mark.parametrize("place", ["Downloads", "Downloads/bin", "Desktop/venv/bin", "unpacked", ""])
def test_what_was_downloaded_is_not_taken_for_installed(home, place):
    install(home / place)
    assert find_backend() is None


def test_what_the_user_prefers(home, tmp_path, monkeypatch):
    on_path = install(tmp_path / "programs")
    path = install(home / "my project" / ".venv" / "bin")
    python = path.with_name("python3.11")
    python.touch(0o755)
    environment = path.parent.parent
    for preferred in (path, python, path.parent, environment, environment.parent, f'"{path}"', f" {path} ", "~/my project"):
        assert find_backend(str(preferred)) == path
    renamed = path.rename(path.with_name("focus-backend-2"))
    assert find_backend(str(renamed)) == renamed
    # A wrong choice is not replaced by another behind the user's back.
    assert find_backend(str(path)) is None
    assert find_backend(str(tmp_path / "programs/none")) is None
    assert find_backend("a\0b") is None
    assert find_backend("  ") == on_path


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="the administrator may read everything")
def test_folders_that_cannot_be_read_are_passed_over(home):
    (home / "closed").mkdir(mode=0)
    path = install(home / "project/.venv/bin")
    assert find_backend() == path


def test_files_that_cannot_be_run_and_folders_are_none(home):
    install(home / ".local/bin").chmod(0o644)
    (home / "bin/focus-backend").mkdir(parents=True)
    assert find_backend() is None


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert find_backend() is None
