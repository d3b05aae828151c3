"""The command line: exit codes, lines for people and machines, batches that go on, folders and patterns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus_backend import __version__
from focus_backend.commands.inputs import find_photos, in_results_below
from focus_backend.commands.reconstruct import ReconstructOptions, parse_faces, reconstruct_photos
from focus_backend.errors import ConfigError, ModelError, OutputError
from focus_backend.export.folder import RESULT_FILES
from focus_backend.reconstruction.method import choose_device


def _command(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "focus_backend", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def _photo(path: Path, seed: int = 0, size: tuple[int, int] = (90, 110)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(plain_reconstructor, tmp_path, capsys):
    """Run `reconstruct` in this process; (exit code, stdout lines, stderr lines)."""

    def run(*photos: Path | str, out: Path = tmp_path / "out", **options):
        code = reconstruct_photos(ReconstructOptions([str(p) for p in photos], out, **options), lambda: plain_reconstructor)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


def test_help_and_version():
    assert "reconstruct" in _command("--help").stdout
    assert _command("--version").stdout == f"focus-backend {__version__}\n"
    for command in (["reconstruct"], ["models"], ["models", "list"], ["models", "info"], ["models", "build"]):
        done = _command(*command, "--help")
        assert done.returncode == 0
        assert "--help" in done.stdout


def test_help_needs_no_heavy_package():
    code = "import sys; import focus_backend.cli; print([m for m in ('torch', 'numpy', 'cv2', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["reconstruct"],
        ["reconstruct", "a.jpg"],
        ["reconstruct", "a.jpg", "-o", "out", "--method", "magic"],
        ["reconstruct", "a.jpg", "-o", "out", "--faces", "none"],
        ["reconstruct", "a.jpg", "-o", "out", "--faces", "0"],
        ["reconstruct", "a.jpg", "-o", "out", "--texture-size", "1"],
        ["reconstruct", "a.jpg", "-o", "out", "--threads", "0"],
        ["reconstruct", "a.jpg", "b.jpg", "-o", "out", "--landmarks-file", "l.json"],
        ["destroy"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, tmp_path):
    done = _command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_photos_one_line_each_exit_2_and_nothing_written(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    _photo(tmp_path / "whole.jpg", size=(200, 200))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    (tmp_path / "whole.jpg").unlink()
    _photo(tmp_path / "tiny.png", size=(8, 8))
    Image.new("L", (20_000, 100)).save(tmp_path / "wide.png")
    (tmp_path / "folder").mkdir()
    names = ["missing.jpg", "empty.jpg", "text.jpg", "cut.jpg", "tiny.png", "wide.png", "folder", "no*.jpg"]
    done = _command("reconstruct", *(tmp_path / name for name in names), "-o", tmp_path / "out")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(names)
    for name, line in zip(names, errors, strict=True):
        assert name in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert "8 photos: 0 done (0 faces), 0 skipped, 8 failed" in done.stdout


def test_one_photo_leaves_the_whole_layout(run, tmp_path):
    code, out, err = run(_photo(tmp_path / "me.png"))
    assert code == 0
    assert err == []
    assert len(out) == 1
    assert "me.png" in out[0]
    assert set(os.listdir(tmp_path / "out" / "me")) == RESULT_FILES
    assert os.listdir(tmp_path / "out") == ["me"]


def test_batch_goes_on_past_bad_photos_and_lists_them(run, tmp_path):
    photos = [_photo(tmp_path / "a.png"), tmp_path / "gone.jpg", _photo(tmp_path / "nobody.png"), _photo(tmp_path / "b.png")]
    code, out, err = run(*photos)
    assert code == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "b"]
    assert "4 photos: 2 done (2 faces), 0 skipped, 2 failed" in out[-1]
    assert all(line.startswith("failed: ") for line in err[-2:])
    assert "gone.jpg" in err[-2]
    assert "no face in nobody.png" in err[-1]


def test_our_own_fault_is_one_line_exit_1_and_does_not_stop_the_batch(run, tmp_path):
    code, _, err = run(_photo(tmp_path / "crash.png"), _photo(tmp_path / "b.png"), tmp_path / "gone.jpg")
    assert code == 1
    assert os.listdir(tmp_path / "out") == ["b"]
    line = next(line for line in err if "crash.png" in line)
    assert "ZeroDivisionError: a bug" in line
    assert "--debug" in line
    assert not any("Traceback" in line for line in err)


def test_debug_shows_the_traceback(run, tmp_path):
    _, _, err = run(_photo(tmp_path / "crash.png"), debug=True)
    assert any("Traceback" in line for line in err)
    assert any("ZeroDivisionError" in line for line in err)


def test_faces_get_a_folder_each(run, tmp_path):
    photo = _photo(tmp_path / "three_faces.png")
    assert run(photo)[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["three_faces", "three_faces-2", "three_faces-3"]
    indices = [json.loads((tmp_path / "out" / f / "result.json").read_text())["face_index"] for f in sorted(os.listdir(tmp_path / "out"))]
    assert indices == [0, 1, 2]
    assert run(photo, out=tmp_path / "two", faces="2")[0] == 0
    assert len(os.listdir(tmp_path / "two")) == 2


def test_second_face_and_a_photo_of_its_name_do_not_collide(run, tmp_path):
    code, *_ = run(_photo(tmp_path / "three_faces.png"), _photo(tmp_path / "three_faces-2.png", 5))
    assert code == 0
    sources = {
        folder: json.loads((tmp_path / "out" / folder / "result.json").read_text())["photo"]["name"]
        for folder in os.listdir(tmp_path / "out")
    }
    assert sources["three_faces-2"] == "three_faces-2.png"
    assert sorted(sources.values()).count("three_faces.png") == 3


def test_equal_stems_from_two_folders_are_both_kept(run, tmp_path):
    code, *_ = run(_photo(tmp_path / "a" / "me.png", 1), _photo(tmp_path / "b" / "me.png", 2))
    assert code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["b_me_png", "me"]


def test_result_of_another_photo_is_not_replaced_silently(run, tmp_path):
    run(_photo(tmp_path / "a" / "me.png", 1))
    code, _, err = run(_photo(tmp_path / "b" / "me.png", 2))
    assert code == 0
    assert any("another photo" in line for line in err)
    assert run(tmp_path / "b" / "me.png")[2] == []


def test_own_folder_of_photos_is_never_replaced(run, tmp_path):
    photo = _photo(tmp_path / "me" / "me.png")
    code, _, err = run(photo, _photo(tmp_path / "you.png"), out=tmp_path)
    assert code == 2
    assert "holds other files" in err[0]
    assert photo.exists()
    assert (tmp_path / "you" / "result.json").exists()


def test_skip_existing(run, plain_reconstructor, tmp_path):
    first, second = _photo(tmp_path / "a.png", 1), _photo(tmp_path / "b.png", 2)
    run(first)
    code, out, _ = run(first, second, skip_existing=True)
    assert code == 0
    assert plain_reconstructor.seen == ["a.png", "b.png"]
    assert "skipped" in out[0]
    _photo(first, 3)
    run(first, skip_existing=True)
    assert plain_reconstructor.seen[-1] == "a.png", "another photo of the same name is not done yet"


def test_skip_existing_when_all_is_there_loads_nothing(run, tmp_path):
    photo = _photo(tmp_path / "a.png")
    run(photo)

    def explode():
        raise AssertionError("loaded for nothing")

    options = ReconstructOptions([str(photo)], tmp_path / "out", skip_existing=True)
    assert reconstruct_photos(options, explode) == 0


def test_json_lines(run, tmp_path):
    code, out, err = run(_photo(tmp_path / "three_faces.png"), tmp_path / "gone.jpg", _photo(tmp_path / "crash.png"), json=True)
    assert code == 1
    assert err == []
    lines = [json.loads(line) for line in out]
    assert [line.get("status") for line in lines] == ["done", "done", "done", "failed", "failed", None]
    assert [line["face"] for line in lines[:3]] == [0, 1, 2]
    assert Path(lines[0]["folder"]) == tmp_path / "out" / "three_faces"
    assert lines[3]["error"]["code"] == "photo"
    assert lines[3]["error"]["remedy"]
    assert lines[4]["error"]["code"] == "internal"
    summary = lines[5]["summary"]
    assert (summary["photos"], summary["done"], summary["failed"], summary["faces"], summary["exit_code"]) == (3, 1, 2, 3, 1)


def test_photo_s_file_is_named_in_the_result(run, tmp_path):
    run(_photo(tmp_path / "me.png"))
    source = json.loads((tmp_path / "out" / "me" / "result.json").read_text())["photo"]
    assert source["name"] == "me.png"
    assert re.fullmatch("[0-9a-f]{64}", source["sha256"])
    assert (source["original_width"], source["original_height"]) == (110, 90)


def test_texture_size_scales_down_but_never_up(run, tmp_path):
    photo = _photo(tmp_path / "me.png")
    run(photo, texture_size=16)
    assert Image.open(tmp_path / "out" / "me" / "texture.png").size == (16, 16)
    run(photo, texture_size=64)
    assert Image.open(tmp_path / "out" / "me" / "texture.png").size == (32, 32)


def _landmarks(tmp_path: Path, points: list[list[float]]) -> Path:
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps(points))
    return path


FIVE = [[30.0, 40.0], [70.0, 40.0], [50.0, 55.0], [35.0, 70.0], [65.0, 70.0]]


def test_own_landmarks_reach_the_fit(run, plain_reconstructor, tmp_path):
    code, *_ = run(_photo(tmp_path / "me.png"), landmarks_file=_landmarks(tmp_path, FIVE))
    assert code == 0
    assert plain_reconstructor.landmarks.points.tolist() == FIVE


def test_own_landmarks_follow_a_photo_that_is_scaled_down(plain_reconstructor, tmp_path):
    photo = tmp_path / "huge.jpg"
    Image.new("RGB", (8192, 6000), (90, 120, 150)).save(photo)
    points = [[80 * x, 60 * y] for x, y in FIVE]
    options = ReconstructOptions([str(photo)], tmp_path / "out", landmarks_file=_landmarks(tmp_path, points))
    assert reconstruct_photos(options, lambda: plain_reconstructor) == 0
    assert np.allclose(plain_reconstructor.landmarks.points, np.array(points) / 2)
    assert np.allclose(plain_reconstructor.landmarks.box, [1200, 1200, 2800, 2100])


@pytest.mark.parametrize("wrong", [[[float("nan"), 1.0], *FIVE[1:]], FIVE[:4], [[5000.0, 40.0], *FIVE[1:]]])
def test_bad_landmarks_are_bad_input(wrong, tmp_path):
    done = _command("reconstruct", _photo(tmp_path / "me.png"), "-o", tmp_path / "out", "--landmarks-file", _landmarks(tmp_path, wrong))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_failing_to_load_ends_the_batch_with_its_error(tmp_path, capsys):
    def broken():
        raise ModelError("the model is damaged", "build it again")

    photos = [str(tmp_path / "gone.jpg"), str(_photo(tmp_path / "a.png"))]
    with pytest.raises(ModelError, match="damaged"):
        reconstruct_photos(ReconstructOptions(photos, tmp_path / "out", json=True), broken)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["error"]["code"] == "photo"
    assert lines[-1]["summary"]["error"]["code"] == "model"
    assert lines[-1]["summary"]["not_tried"] == 1
    assert lines[-1]["summary"]["exit_code"] == 2
    assert not (tmp_path / "out").exists()


def test_unwritable_output_is_told_before_any_work(run, plain_reconstructor, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="in the way"):
        run(_photo(tmp_path / "a.png"), out=tmp_path / "file" / "out")
    assert plain_reconstructor.seen == []
    done = _command("reconstruct", tmp_path / "a.png", "-o", tmp_path / "file")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_disk_that_fills_up_stops_the_batch(run, plain_reconstructor, tmp_path):
    out = tmp_path / "disk"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", out], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        code, lines, err = run(*(_photo(tmp_path / f"{name}.png") for name in "abcd"), out=out)
        assert code == 2
        assert "no space left" in err[0]
        assert "not tried" in lines[-1]
        assert len(plain_reconstructor.seen) < 4
        assert all(set(os.listdir(out / folder)) == RESULT_FILES for folder in os.listdir(out))
    finally:
        subprocess.run(["umount", out], check=True)


def test_ctrl_c_keeps_what_is_done(plain_reconstructor, tmp_path, capsys):
    class Interrupted:
        def reconstruct(self, photo, **options):
            if photo.name == "b.png":
                raise KeyboardInterrupt
            return plain_reconstructor.reconstruct(photo, **options)

    photos = [str(_photo(tmp_path / f"{name}.png")) for name in "abc"]
    code = reconstruct_photos(ReconstructOptions(photos, tmp_path / "out"), Interrupted)
    captured = capsys.readouterr()
    assert code == 130
    assert os.listdir(tmp_path / "out") == ["a"]
    assert "interrupted" in captured.err
    assert "Traceback" not in captured.err


def test_results_are_not_taken_for_photos(run, tmp_path):
    photo = _photo(tmp_path / "p" / "me.png")
    run(photo, out=tmp_path / "p" / "results")
    run(photo, out=tmp_path / "p")
    for recursive in (False, True):
        found = find_photos([str(tmp_path / "p")], recursive, in_results_below(tmp_path / "p" / "results"))
        assert [f.path for f in found] == [photo]


def test_faces_option():
    assert parse_faces("all") is None
    assert parse_faces("3") == 3
    for wrong in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(ConfigError):
            parse_faces(wrong)


def test_device_option():
    assert choose_device("cpu") == "cpu"
    for wrong in ("cuda:99", "abacus"):
        with pytest.raises(ConfigError, match=wrong):
            choose_device(wrong)
