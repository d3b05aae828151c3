"""Switching the extension on and off leaves Blender as it was."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from pathlib import Path

import bpy
import pytest

import blender_addon
from blender_addon.interface import drop, handlers, package, registration, runtime, timer

_MENUS = ("VIEW3D_MT_mesh_add", "TOPBAR_MT_file_import", "TOPBAR_MT_file_export")


@pytest.fixture
def switched_on() -> Iterator[None]:
    blender_addon.register()
    yield
    blender_addon.unregister()


def _traces() -> set[str]:
    """Everything in Blender that is ours."""
    found = {name for name in dir(bpy.types) if name.startswith("FOCUS_FACE_")}
    # Blender names a subclass of an abstract type only while it is registered.
    found |= {registered.__name__ for registered in registration.CLASSES if registered.is_registered}
    for name in dir(bpy.app.handlers):
        listed = getattr(bpy.app.handlers, name)
        if isinstance(listed, list):
            found |= {f"{name} {each}" for each in listed if "blender_addon" in str(getattr(each, "__module__", ""))}
    for menu in _MENUS:
        draws = getattr(getattr(bpy.types, menu).draw, "_draw_funcs", [])
        found |= {f"{menu} {draw}" for draw in draws if draw.__module__ == drop.__name__}
    found |= {"timer" for each in (timer.tick, registration._settle) if bpy.app.timers.is_registered(each)}
    if hasattr(bpy.types.WindowManager, "focus_face"):
        found.add("WindowManager.focus_face")
    return found


def test_on_and_off_twice_leaves_nothing() -> None:
    for _ in range(2):
        blender_addon.register()
        assert {"WindowManager.focus_face", "FOCUS_FACE_OT_reconstruct"} <= _traces()
        timer.wake()
        blender_addon.unregister()
        assert _traces() == set()


def test_off_without_on_is_harmless() -> None:
    blender_addon.unregister()
    assert _traces() == set()


@pytest.mark.parametrize("failing", [0, 3, len(registration.CLASSES) - 1])
def test_a_failure_in_the_middle_leaves_nothing(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    class NoBlenderType:
        is_registered = False

    classes = list(registration.CLASSES)
    classes.insert(failing, NoBlenderType)
    monkeypatch.setattr(registration, "CLASSES", tuple(classes))
    with pytest.raises((ValueError, RuntimeError, TypeError)):
        blender_addon.register()
    assert _traces() == set()


def test_a_failure_after_the_classes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("disk full")

    monkeypatch.setattr(runtime, "start", fail)
    with pytest.raises(OSError, match="disk full"):
        blender_addon.register()
    assert _traces() == set()


def test_switching_on_starts_no_session(switched_on: None) -> None:
    assert runtime.running().session is None
    assert runtime.log_file() is None


def test_switching_off_ends_the_session(switched_on: None) -> None:
    session = runtime.session()
    folder = runtime.running().folder.path
    assert folder.is_dir()
    blender_addon.unregister()
    assert runtime.running().session is None
    assert session._is_closed
    # Not installed as an extension, it wrote into a temporary folder.
    assert not folder.exists()


def test_the_end_of_blender_is_heard_once(switched_on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    monkeypatch.setattr(atexit, "unregister", heard.append)
    blender_addon.unregister()
    assert heard == [runtime.stop]
    monkeypatch.undo()
    atexit.unregister(runtime.stop)


def test_every_class_is_told_of_and_named_alike(switched_on: None) -> None:
    names = [registered.__name__ for registered in registration.CLASSES]
    assert len(set(names)) == len(names)
    for registered in registration.CLASSES:
        if issubclass(registered, bpy.types.Operator):
            area, _, name = registered.bl_idname.partition(".")
            assert registered.__name__ == f"{area.upper()}_OT_{name}"
            assert registered.__doc__
            assert registered.bl_label[0].isupper()


def test_operators_have_tooltips_on_every_property(switched_on: None) -> None:
    for registered in registration.CLASSES:
        if issubclass(registered, bpy.types.Operator) and "blender_addon.interface" in registered.__module__:
            for found in registered.bl_rna.properties:
                if found.is_runtime and found.identifier not in ("filter_glob", "is_shown", "which", "filepath", "directory", "files"):
                    assert found.description, f"{registered.bl_idname} {found.identifier}"


def test_handlers_outlive_the_file(switched_on: None) -> None:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    for name, function in handlers._HANDLERS.items():
        assert function in getattr(bpy.app.handlers, name)


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setattr(bpy.utils, "extension_path_user", lambda name: str(blocked / "folder"))
    folder = package.user_folder()
    assert str(blocked / "folder") in folder.problem.problem
    assert str(folder.path) in folder.problem.remedy
    assert folder.path.is_dir()
    folder.close()
    assert not folder.path.exists()


def test_the_extensions_own_folder_is_made_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bpy.utils, "extension_path_user", lambda name: str(tmp_path / "user" / "focus_face"))
    folder = package.user_folder()
    assert folder.problem is None
    folder.close()
    assert folder.path == tmp_path / "user" / "focus_face"
    assert list(folder.path.iterdir()) == []
