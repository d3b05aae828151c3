"""Photo files before they are sent, and the messages that carry them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from blender_addon import wire
from blender_addon.errors import AddonError
from blender_addon.options import ReconstructionOptions, SceneOptions
from blender_addon.session import messages
from blender_addon.session.job import Job
from blender_addon.session.kept_models import MODEL_PARTS, KeptModels
from blender_addon.session.photo_reading import PhotoFile, check_photo, read_photo
from blender_addon.session.requests import most_photo_bytes, preview_in, request_for, shown_stage
from focus_backend.serving.config import LimitsConfig

ASTRONAUT = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
LIMITS = LimitsConfig().published()
MODEL = wire.ModelInfo("anny", "b" * 64, 4, ["jawOpen"])
PARTS = ["geometry", "texture", "masks", "albedo", "rendering", "photo", "model", "identity", "files"]


def welcome(**changes: object) -> wire.Welcome:
    told = {"models": [MODEL], "methods": ["fit", "network"], "parts": PARTS, "limits": LIMITS}
    return wire.Welcome("focus", [1], device="cpu", workers=1, workers_ready=1, is_owner=True, **(told | changes))


def job_of(options: ReconstructionOptions | None = None, scene: SceneOptions | None = None, name: str = "photo.jpg") -> Job:
    return Job(1, Path(name), options or ReconstructionOptions(), scene or SceneOptions())


def arrays_of(*parts: str) -> dict[str, wire.Array]:
    return {name: wire.Array("uint8", (1,), b"0") for part in parts for name in MODEL_PARTS[part]}


def error_of(path: Path) -> AddonError:
    with pytest.raises(AddonError) as caught:
        read_photo(path, 10_000)
    with pytest.raises(AddonError) as checked:
        check_photo(path)
    assert str(checked.value) == str(caught.value)
    assert caught.value.code == "photo"
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


def test_photo_as_it_is():
    photo = read_photo(ASTRONAUT, 2**26)

    assert photo.data == ASTRONAUT.read_bytes()
    assert not photo.needs_upright_pixels


def test_file_that_blender_does_not_read_comes_back_as_pixels(tmp_path):
    path = tmp_path / "photo.heic"
    path.write_bytes(b"....ftypheic")

    assert read_photo(path, 100).needs_upright_pixels


def test_missing(tmp_path):
    assert error_of(tmp_path / "gone.jpg").problem.endswith("gone.jpg is missing")


def test_folder(tmp_path):
    assert error_of(tmp_path).problem == f"{tmp_path.name} is a folder"


def test_empty(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert error_of(tmp_path / "empty.jpg").problem == "empty.jpg is empty"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes among files")
def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert error_of(tmp_path / "pipe.jpg").problem == "pipe.jpg is no file"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user may read everything")
def test_forbidden(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"0")
    (tmp_path / "secret.jpg").chmod(0)
    assert "may not be read" in error_of(tmp_path / "secret.jpg").problem


@pytest.mark.parametrize("name", ["photo\0.jpg", "x" * 300])
def test_path_that_is_none(name):
    assert "cannot be read" in error_of(Path(name)).problem


def test_disk_that_fails(monkeypatch):
    def fail(*_arguments: object, **_more: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert error_of(ASTRONAUT).problem == "astronaut.jpg cannot be read: Input/output error"


def test_largest_photo_and_one_byte_more(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"0" * 1000)
    assert len(read_photo(path, 1000).data) == 1000
    path.write_bytes(b"0" * 3 * 2**20)
    with pytest.raises(AddonError, match=r"photo.jpg has 3 MB, more than the 2 MB"):
        read_photo(path, 2 * 2**20)


def test_server_that_admits_more_than_there_is_memory(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"0" * 1000)
    assert len(read_photo(path, 2**53 - 1).data) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_name_that_is_no_text_can_be_shown():
    path = Path(os.fsdecode(b"/nowhere/\xff\nphoto.jpg"))
    assert error_of(path).problem == "/nowhere/??photo.jpg is missing"
    job = job_of(name=os.fsdecode(b"\xff.jpg"))
    assert job.name == "?.jpg"
    assert messages.cancelled(job.name).problem.encode() == b"?.jpg was cancelled"


def test_largest_photo_fits_into_every_limit():
    assert most_photo_bytes(LIMITS) == 64 * 2**20
    assert most_photo_bytes(LimitsConfig(queue_bytes=2**20).published()) < 2**20
    assert most_photo_bytes(LimitsConfig(queue_bytes=1024).published()) == 0


def test_request_says_what_the_user_chose():
    options = ReconstructionOptions("network", False, 3, 512)
    request = request_for(job_of(options), PhotoFile(b"0", False), welcome(), KeptModels())

    assert request.body.options == wire.Options("network", False, 3, 512)
    assert request.body.parts == ["geometry", "texture", "albedo", "masks", "model", "identity"]
    assert request.body.preview_side == 256
    assert request.body.name == "photo.jpg"


def test_request_leaves_open_what_the_user_left_open():
    request = request_for(job_of(ReconstructionOptions(faces=0)), PhotoFile(b"0", True), welcome(), KeptModels())

    assert request.body.options == wire.Options(None, True, None, None)
    assert "photo" in request.body.parts


def test_model_and_sliders_are_asked_for_once_each():
    kept = KeptModels()
    without, with_sliders = (job_of(scene=SceneOptions(identity=identity)) for identity in (False, True))

    def asked(job: Job, told: wire.Welcome, sha256: str | None = None) -> list[str]:
        return request_for(job, PhotoFile(b"0", False), told, kept, sha256).body.parts[4:]

    assert asked(without, welcome()) == ["model"]
    kept.keep(MODEL.sha256, arrays_of("model"))
    assert (asked(without, welcome()), asked(with_sliders, welcome())) == ([], ["identity"])
    kept.keep(MODEL.sha256, arrays_of("identity"))
    assert asked(with_sliders, welcome()) == []
    assert asked(with_sliders, welcome(models=[], parts=[])) == ["model", "identity"]
    assert asked(with_sliders, welcome(), "c" * 64) == ["model", "identity"]


def test_only_the_last_models_are_kept():
    kept = KeptModels()
    for letter in "abc":
        kept.keep(letter * 64, arrays_of("model"))
    kept.keep("", arrays_of("model"))

    assert [kept.missing(letter * 64, ["model"]) for letter in "abc"] == [["model"], [], []]
    assert kept.missing("", ["model"]) == ["model"]


def test_result_gets_the_model_that_is_kept():
    kept = KeptModels()
    kept.keep("a", arrays_of("model", "identity"))
    own = {"face0/neutral": wire.Array("uint8", (1,), b"1")}

    assert kept.with_model("a", own) == arrays_of("model", "identity") | own
    assert kept.with_model("b", own) == own


def test_method_is_checked_as_soon_as_methods_are_known():
    job = job_of(ReconstructionOptions("refine"))
    assert request_for(job, PhotoFile(b"0", False), welcome(methods=[]), KeptModels()).body.options.method == "refine"
    with pytest.raises(AddonError, match=r"no method 'refine': choose one of fit, network"):
        request_for(job, PhotoFile(b"0", False), welcome(), KeptModels())


@pytest.mark.parametrize("name", ["\udcff" * 400 + ".jpg", "ü" * 400 + ".jpg", "photo.jpg", "🙂" * 255])
def test_header_is_within_the_room_that_is_left_for_it(name):
    request = request_for(job_of(name=name), PhotoFile(b"0", True), welcome(), KeptModels())
    frames = wire.pack(wire.Message("x" * 64, request.body, {"photo": wire.Array("uint8", (1,), b"0")}, "s" * 64))

    assert len(frames[0]) < 4096
    assert len(request.body.name) <= 255


def test_preview_becomes_a_picture():
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    preview = preview_in({"preview": wire.Array.of(pixels)})

    assert np.array_equal(preview, pixels)
    assert preview.flags.writeable


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5), (2, 5, 4)])
def test_preview_that_is_no_picture(shape):
    assert preview_in({"preview": wire.Array.of(np.zeros(shape, np.uint8))}) is None
    assert preview_in({}) is None


def test_server_texts_cannot_break_the_panel():
    assert shown_stage("fit\x1b[2J\n two") == "Fit?[2J two"
    error = messages.of_answer(wire.Error("no-\nface", "no face\nhere", "try\tagain"))
    assert (error.code, error.problem, error.remedy) == ("no- face", "no face here", "try again")


@pytest.mark.parametrize("code", ["busy", "deadline", "refused", "closing", "worker-lost", "internal", "protocol", "no-face"])
def test_every_answer_has_a_remedy(code):
    assert messages.of_answer(wire.Error(code, "something is wrong")).remedy
