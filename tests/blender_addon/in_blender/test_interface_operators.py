"""Operators as scripts use them: what they take, what they refuse, what they say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import bpy
import pytest

import blender_addon
from blender_addon.errors import AddonError
from blender_addon.interface import backend_settings, handlers, reconstruct, runtime, waiting
from blender_addon.interface.properties import METHODS, OPTION_NAMES, TEXTURE_SIZES, reconstruction_options, scene_options
from blender_addon.options import ReconstructionOptions, SceneOptions
from blender_addon.session.job import FAILED, Job
from blender_addon.session.settings import AUTOMATIC, CONNECT


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    blender_addon.register()
    yield
    blender_addon.unregister()


@pytest.fixture
def preferences() -> Iterator[bpy.types.AddonPreferences]:
    """The extension's preferences, as if it was switched on in Blender's."""
    addon = bpy.context.preferences.addons.new()
    addon.module = "blender_addon"
    yield addon.preferences
    bpy.context.preferences.addons.remove(addon)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the operator puts in line; every photo called bad fails."""
    calls: list[tuple] = []

    def submit(
        photos: list[Path], options: ReconstructionOptions, what: SceneOptions, scene: bpy.types.Scene, viewport: object
    ) -> list[Job]:
        # Nobody looks while a script waits.
        assert viewport is None
        calls.append((photos, options, what))
        return [Job(number, photo, options, what) for number, photo in enumerate(photos, 1)]

    def wait_for(jobs: list[Job]) -> list[AddonError]:
        return [AddonError(f"{job.photo.name} shows no face", "use another", "no-face") for job in jobs if "bad" in job.name]

    monkeypatch.setattr(reconstruct, "submit", submit)
    monkeypatch.setattr(reconstruct, "wait_for", wait_for)
    return calls


def test_the_panels_defaults_are_those_of_the_plain_options() -> None:
    options = bpy.context.window_manager.focus_face.options
    assert reconstruction_options(options) == ReconstructionOptions()
    assert scene_options(options) == SceneOptions()


def test_every_plain_option_can_be_set() -> None:
    plain = set(ReconstructionOptions.__dataclass_fields__) | set(SceneOptions.__dataclass_fields__)
    assert set(OPTION_NAMES) == plain
    assert all(int(size) >= 0 for size, *_ in TEXTURE_SIZES)
    assert [method for method, *_ in METHODS] == ["auto", "network", "refine", "fit"]


def test_options_that_are_given_win_over_the_panels(submitted: list) -> None:
    panel = bpy.context.window_manager.focus_face.options
    panel.method, panel.faces, panel.unit_scale, panel.camera = "fit", 3, 100.0, False
    bpy.ops.focus_face.reconstruct(filepath="/photos/me.jpg", faces=0, world=False, texture_size="512")
    _, options, what = submitted[0]
    assert options == ReconstructionOptions("fit", True, 0, 512)
    assert what == SceneOptions(unit_scale=100.0, camera=False, world=False)


def test_options_of_one_call_are_not_kept_for_the_next(submitted: list) -> None:
    bpy.ops.focus_face.reconstruct(filepath="/photos/me.jpg", faces=5, method="fit")
    bpy.ops.focus_face.reconstruct(filepath="/photos/me.jpg")
    assert submitted[1][1] == ReconstructionOptions()


def test_defaults_of_the_preferences_fill_the_panel_once(preferences: bpy.types.AddonPreferences, submitted: list) -> None:
    preferences.defaults.faces = 4
    bpy.ops.focus_face.reconstruct(filepath="/photos/me.jpg")
    assert submitted[0][1].faces == 4
    bpy.context.window_manager.focus_face.options.faces = 2
    handlers.use_defaults()
    bpy.ops.focus_face.reconstruct(filepath="/photos/me.jpg")
    assert submitted[1][1].faces == 2


def test_the_panels_options_become_the_defaults(preferences: bpy.types.AddonPreferences) -> None:
    bpy.context.window_manager.focus_face.options.unit_scale = 10.0
    assert bpy.ops.focus_face.use_as_defaults() == {"FINISHED"}
    assert preferences.defaults.unit_scale == 10.0


def test_several_photos_of_a_folder_each_once(submitted: list, tmp_path: Path) -> None:
    names = ["one.jpg", "zwei Köpfe.png", "one.jpg"]
    bpy.ops.focus_face.reconstruct(directory=str(tmp_path), files=[{"name": name} for name in names])
    assert submitted[0][0] == [tmp_path / "one.jpg", tmp_path / "zwei Köpfe.png"]


def test_relative_paths_begin_at_the_open_file(submitted: list, tmp_path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    bpy.ops.focus_face.reconstruct(filepath="//photos/../me.jpg")
    assert submitted[0][0] == [tmp_path / "me.jpg"]


def test_without_a_path_the_panels_photos_are_taken(submitted: list) -> None:
    bpy.context.window_manager.focus_face.photo = "/photos/me.jpg"
    bpy.ops.focus_face.reconstruct()
    runtime.choose_photos(["/a.jpg", "/b.jpg"])
    bpy.ops.focus_face.reconstruct()
    assert [photos for photos, *_ in submitted] == [[Path("/photos/me.jpg")], [Path("/a.jpg"), Path("/b.jpg")]]


def test_without_any_photo_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="no photo was chosen"):
        bpy.ops.focus_face.reconstruct()


def test_a_photo_that_fails_raises_with_problem_and_remedy(submitted: list) -> None:
    with pytest.raises(RuntimeError, match=r"bad\.jpg shows no face: crop the photo"):
        bpy.ops.focus_face.reconstruct(filepath="/photos/bad.jpg")


def test_one_bad_photo_among_good_ones_is_reported_only(submitted: list, capfd: pytest.CaptureFixture) -> None:
    files = [{"name": "bad.jpg"}, {"name": "good.jpg"}]
    assert bpy.ops.focus_face.reconstruct(directory="/photos", files=files) == {"FINISHED"}
    assert "bad.jpg shows no face: crop the photo" in capfd.readouterr().out


def test_all_photos_bad_raises_with_each(submitted: list) -> None:
    files = [{"name": "bad1.jpg"}, {"name": "bad2.jpg"}]
    with pytest.raises(RuntimeError, match=r"(?s)bad1\.jpg.*bad2\.jpg"):
        bpy.ops.focus_face.reconstruct(directory="/photos", files=files)


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nobody\.jpg"):
        bpy.ops.focus_face.reconstruct(filepath=str(tmp_path / "nobody.jpg"))
    assert runtime.running().session.jobs[-1].state == FAILED
    runtime.cancel(0)


def test_no_photo_is_written_into_files(tmp_path: Path) -> None:
    bpy.context.window_manager.focus_face.photo = "/secret/me.jpg"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"), compress=False)
    assert b"/secret/me.jpg" not in (tmp_path / "scene.blend").read_bytes()


def test_choosing_photos_keeps_them_for_the_button(tmp_path: Path) -> None:
    bpy.ops.focus_face.choose_photo(directory=str(tmp_path), files=[{"name": "a.jpg"}, {"name": "b.jpg"}])
    assert runtime.running().photos == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    bpy.context.window_manager.focus_face.photo = "/one.jpg"
    assert runtime.running().photos == ["/one.jpg"]
    bpy.context.window_manager.focus_face.photo = ""
    assert runtime.running().photos == []


def test_ctrl_c_ends_the_waiting_and_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = []
    monkeypatch.setattr(runtime, "cancel", given_up.append)
    monkeypatch.setattr(runtime, "advance", lambda budget: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    job = Job(1, Path("me.jpg"), ReconstructionOptions(), SceneOptions())
    with pytest.raises(AddonError, match="Ctrl-C"):
        waiting.wait_for([job])
    assert given_up == [0]
    assert signal.getsignal(signal.SIGINT) is before


def test_settings_follow_the_preferences(preferences: bpy.types.AddonPreferences, tmp_path: Path) -> None:
    assert backend_settings.read().mode == AUTOMATIC
    preferences.executable, preferences.weights, preferences.device = str(tmp_path), str(tmp_path / "w"), "cpu"
    settings = backend_settings.read()
    assert settings.executable == str(tmp_path)
    assert settings.arguments == ("--weights", str(tmp_path / "w"), "--device", "cpu")
    preferences.backend_mode, preferences.address = "CONNECT", " tcp://127.0.0.1:5 "
    settings = backend_settings.read()
    assert (settings.mode, settings.address, settings.key_file) == (CONNECT, "tcp://127.0.0.1:5", "")
    assert settings.online == bpy.app.online_access


def test_a_running_session_takes_changed_preferences(preferences: bpy.types.AddonPreferences) -> None:
    session = runtime.session()
    preferences.address = "tcp://127.0.0.1:7"
    assert session.settings.address == "tcp://127.0.0.1:7"


def test_looking_for_the_backend_shows_what_was_found(preferences: bpy.types.AddonPreferences, tmp_path: Path) -> None:
    program = tmp_path / ("focus-backend.exe" if os.name == "nt" else "focus-backend")
    program.write_bytes(b"#!/bin/sh\n")
    program.chmod(0o755)
    preferences.executable = str(program)
    assert bpy.ops.focus_face.find_backend() == {"FINISHED"}
    assert preferences.found_backend == str(program)
    preferences.executable = ""
    assert preferences.found_backend == ""


def test_buttons_without_anything_to_do_are_off() -> None:
    assert not bpy.ops.focus_face.cancel.poll()
    assert not bpy.ops.focus_face.stop_backend.poll()
    assert not bpy.ops.focus_face.dismiss_error.poll()
    assert not bpy.ops.focus_face.find_backend.poll()
    assert bpy.ops.focus_face.start_backend.poll()
    assert bpy.ops.focus_face.connect.poll()


def test_a_message_can_be_dismissed() -> None:
    runtime.session().error = AddonError("a", "b")
    assert bpy.ops.focus_face.dismiss_error.poll()
    bpy.ops.focus_face.dismiss_error()
    assert runtime.shown_error() is None


def test_without_a_log_it_says_so() -> None:
    assert bpy.ops.focus_face.open_log() == {"CANCELLED"}


def test_a_photo_is_dropped_into_viewports_only() -> None:
    from blender_addon.interface.drop import FOCUS_FACE_FH_photo

    handler = FOCUS_FACE_FH_photo
    assert set(handler.bl_file_extensions.split(";")) == {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp"}
    assert not handler.poll_drop(bpy.context)
