"""The built extension from its zip: installed into a private user folder, used, taken away again. Every step is a Blender of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[3]
_MODULE = "bl_ext.user_default.focus_face"
_OPERATORS = {
    "cancel",
    "choose_photo",
    "connect",
    "dismiss_error",
    "export",
    "look_through",
    "open_log",
    "reconstruct",
    "remove_head",
    "select_head",
    "start_backend",
    "stop_backend",
}
_INSTALL = """
bpy.ops.extensions.package_install_files(filepath=argument, repo="user_default", enable_on_install=True)
result = {"enabled": list(bpy.context.preferences.addons.keys()), "operators": dir(bpy.ops.focus_face)}
"""
_ENABLE = """
bpy.ops.preferences.addon_enable(module=module)
import importlib
result = {
    "operators": dir(bpy.ops.focus_face),
    "zmq": importlib.import_module("zmq").__file__,
    "wire": importlib.import_module(module + ".wire").PROTOCOL,
    "backend": sorted(name for name in sys.modules if name.split(".")[0] in ("focus_backend", "torch")),
}
bpy.ops.preferences.addon_disable(module=module)
result["off"] = dir(bpy.ops.focus_face)
bpy.ops.preferences.addon_enable(module=module)
result["on"] = dir(bpy.ops.focus_face)
"""
_UNINSTALL = """
bpy.ops.preferences.addon_enable(module=module)
repositories = [repository.module for repository in bpy.context.preferences.extensions.repos]
bpy.ops.extensions.package_uninstall(repo_index=repositories.index("user_default"), pkg_id="focus_face")
result = {
    "operators": dir(bpy.ops.focus_face),
    "properties": [name for name in dir(bpy.types.Scene) + dir(bpy.types.Object) if "focus" in name.lower()],
    "classes": [name for name in dir(bpy.types) if "focus_face" in name.lower()],
    "enabled": list(bpy.context.preferences.addons.keys()),
}
"""
_RECONSTRUCT = """
bpy.ops.preferences.addon_enable(module=module)
bpy.ops.wm.read_homefile(use_empty=True)
status = bpy.ops.focus_face.reconstruct(filepath=argument)
heads = [item for item in bpy.data.objects if item.type == "MESH"]
result = {
    "status": sorted(status),
    "vertices": [len(head.data.vertices) for head in heads],
    "keys": [len(head.data.shape_keys.key_blocks) for head in heads],
    "cameras": [camera.name for camera in bpy.data.cameras],
}
bpy.ops.preferences.addon_disable(module=module)
"""
_FRAME = """
import json, sys
import bpy
module, argument = sys.argv[1:3]
{step}
print("RESULT " + json.dumps(result))
"""


def _run_step(step: str, argument: str, folder: Path, seconds: float = 120) -> dict[str, Any]:
    """What a step found out, in a Blender that keeps its settings in `folder`."""
    # The folder of the extension's own packages comes before ours only where Python's path is left alone.
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(folder), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", _FRAME.format(step=step), _MODULE, argument]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert found, done.stdout + done.stderr
    return json.loads(found[-1].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def archive() -> Path:
    """The extension, built for this machine."""
    named = os.environ.get("FOCUS_EXTENSION_ZIP")
    if not named:
        pytest.skip("FOCUS_EXTENSION_ZIP is not set: test_in_blenders.py builds the extension, or scripts/build_extension.py does")
    return Path(named)


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user folder with the extension installed."""
    folder = tmp_path_factory.mktemp("user")
    found = _run_step(_INSTALL, str(archive), folder)
    assert _MODULE in found["enabled"]
    assert set(found["operators"]) >= _OPERATORS
    return folder


@pytest.fixture(scope="module")
def next_start(folder: Path) -> dict[str, Any]:
    """What the Blender that starts next finds, and what is left when the extension is turned off and on again."""
    return _run_step(_ENABLE, "", folder)


@pytest.fixture
def step(folder: Path) -> Callable[..., dict[str, Any]]:
    """Runs a step in the folder with the extension."""
    return lambda code, argument="", **options: _run_step(code, argument, folder, **options)


def test_next_start_uses_the_extensions_own_packages(next_start: dict[str, Any], folder: Path) -> None:
    assert Path(next_start["zmq"]).is_relative_to(folder / "extensions" / ".local")
    assert set(next_start["operators"]) >= _OPERATORS
    assert next_start["wire"] == 1
    assert next_start["backend"] == []


def test_extension_can_be_turned_off_and_on(next_start: dict[str, Any]) -> None:
    assert next_start["off"] == []
    assert set(next_start["on"]) >= _OPERATORS


@pytest.mark.slow
def test_photo_becomes_a_head(step: Callable[..., dict[str, Any]]) -> None:
    if "FOCUS_BACKEND" not in os.environ:
        pytest.skip("FOCUS_BACKEND is not set: test_in_blenders.py names the backend that is started")
    found = step(_RECONSTRUCT, str(_ROOT / "docs" / "demo" / "astronaut.jpg"), seconds=300)

    assert found["status"] == ["FINISHED"]
    assert len(found["vertices"]) == 1
    assert found["vertices"][0] > 1000
    # Neutral, the fitted expression, ARKit's and some of identity.
    assert found["keys"][0] > 54
    assert len(found["cameras"]) == 1


def test_uninstalling_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "user"))
    assert [path for path in own.rglob("*") if "focus_face" in path.name]

    found = _run_step(_UNINSTALL, "", own)

    assert found["operators"] == []
    assert found["properties"] == []
    assert found["classes"] == []
    assert _MODULE not in found["enabled"]
    assert [path for path in tmp_path.rglob("*") if "focus_face" in path.name or "zmq" in path.name] == []
