"""Photos to prepared crops: what is written, going on after a kill, what is said about bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from focus_backend.commands.prepare import prepare_command
from focus_backend.errors import ConfigError, NoFaceError, OutputError
from focus_backend.landmarks import create_detector
from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from train.data import index
from train.data.ar import MaskedPhotos
from train.data.folder import PhotoFolder
from train.data.photos import SourcePhoto
from train.data.prepare import PrepareSummary, crop_settings, prepare
from train.data.prepared import PreparedFaces
from train.data.workers import Job, answers

ROOT = Path(__file__).parents[3]
ASTRONAUT = ROOT / "docs" / "demo" / "astronaut.jpg"


@pytest.fixture(scope="module")
def anny():
    """The shipped face model."""
    return load_model("anny")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """One face of about 110 pixels."""
    return Image.open(ASTRONAUT).convert("RGB")


@pytest.fixture
def photos(tmp_path: Path, astronaut: Image.Image) -> Path:
    """Three usable photos, one of them small, in folders; one damaged, one without a face."""
    folder = tmp_path / "photos"
    for name in ("train/more", "val", "test"):
        (folder / name).mkdir(parents=True)
    (folder / "train/a.jpg").write_bytes(ASTRONAUT.read_bytes())
    astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "val/mirrored.png")
    astronaut.crop((150, 40, 300, 190)).save(folder / "train/more/cut [1].png")
    Image.new("RGB", (90, 90), "grey").save(folder / "train/wall.png")
    (folder / "test/damaged.jpg").write_bytes(ASTRONAUT.read_bytes()[:3000])
    return folder


def run(folder: Path, out: Path, model, **options) -> PrepareSummary:
    return prepare(PhotoFolder(folder), out, model, size=112, **options)


def test_crops_landmarks_and_reasons_are_written(photos: Path, tmp_path: Path, anny):
    out, reports = tmp_path / "out", []
    summary = run(photos, out, anny, report=reports.append)
    assert (summary.photos, summary.done, summary.known, summary.bad) == (5, 3, 0, 2)
    assert summary.faces == {"train": 2, "val": 1}
    assert [report.number for report in reports] == [1, 2, 3, 4, 5]
    bad = {line["photo"]: line for line in map(json.loads, (out / "bad.jsonl").read_text().splitlines())}
    assert bad["train/wall.png"]["code"] == "no-face"
    assert "damaged" in bad["test/damaged.jpg"]["reason"]
    records = index.read_index(out)
    assert set(records) == {"train/a.jpg", "val/mirrored.png", "train/more/cut [1].png"}
    assert records["train/a.jpg"].split == "train"
    frame = CropFrame.of(anny, 112)
    mean = frame.camera(torch.zeros(1, 3), frame.start_translation[None]).project(
        anny.landmarks68.on(anny.mean_shape, anny.triangles)[None]
    )
    for split in ("train", "val"):
        batch = PreparedFaces(out, frame, split=split).batch(0, 1)
        # A face that looks at the camera has its landmarks where the mean face has them in the frame.
        assert (batch.landmarks - mean).norm(dim=-1).mean() < 5
        assert batch.image.shape == (1, 3, 112, 112)


def test_a_crop_shows_the_photo_where_it_says(photos: Path, tmp_path: Path, anny, astronaut: Image.Image):
    out = tmp_path / "out"
    run(photos, out, anny)
    record = index.read_index(out)["train/more/cut [1].png"]
    crop = np.asarray(Image.open(index.crop_path(out, record.sha256, 0)).convert("RGB")).astype(float)
    photo = np.asarray(astronaut.crop((150, 40, 300, 190))).astype(float)
    matrix = np.array(record.faces[0].to_photo).reshape(2, 3)
    steps = np.arange(len(crop)) + 0.5
    places = np.stack(np.meshgrid(steps, steps), -1) @ matrix[:, :2].T + matrix[:, 2]
    inside = ((places >= 1) & (places < 149)).all(-1)
    column, row = places[inside].astype(int).T
    assert 0.5 < inside.mean() < 1, "the cut photo must end within the crop for this test to tell"
    assert np.abs(crop[inside] - photo[row, column]).mean() < 6
    assert crop[~((places > -1) & (places < 151)).all(-1)].mean() < 3
    batch = PreparedFaces(out, CropFrame.of(anny, 112)).batch(0, 2)
    plain = np.pad(np.zeros((112, 112), bool), (len(crop) - 112) // 2, constant_values=True)
    expected = ((places >= 0) & (places < 150)).all(-1)[~plain].reshape(112, 112)
    assert any((shown.numpy() == expected).all() for shown in batch.inside)


def test_the_true_mask_is_cut_like_the_photo(tmp_path: Path, anny, astronaut: Image.Image):
    source = tmp_path / "ar"
    for folder in ("photos", "masks"):
        (source / folder).mkdir(parents=True)
    # The mask is what of the photo is bright, so photo and mask can be held against each other.
    pixels = np.asarray(astronaut)
    bright = pixels.mean(-1) > 128
    astronaut.save(source / "photos/m-001-08.png")
    Image.fromarray(bright).resize((1024, 1024), Image.Resampling.NEAREST).save(source / "masks/m-001-08.png")
    out = tmp_path / "out"
    prepare(MaskedPhotos(source), out, anny, size=112)
    batch = PreparedFaces(out, CropFrame.of(anny, 112), split="test", needs_mask=True).batch(0, 1)
    assert batch.mask is not None
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}
    # Averaging in the crop moves pixels near the threshold to the other side.
    assert ((batch.image.mean(1) > 0.5).float() == batch.mask).float().mean() > 0.95
    assert index.read_index(out)["photos/m-001-08.png"].tags == ("glasses",)


def test_a_second_run_does_only_what_is_new(photos: Path, tmp_path: Path, anny, astronaut: Image.Image):
    out = tmp_path / "out"
    run(photos, out, anny)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    lines = (out / "index.jsonl").read_bytes()
    again = run(photos, out, anny)
    assert (again.done, again.known, again.bad) == (0, 3, 2)
    assert (out / "index.jsonl").read_bytes() == lines
    # A torn line of a run that was killed, a photo that was moved, a new one, and one whose crop is lost.
    with (out / "index.jsonl").open("ab") as file:
        file.write(b'{"photo": "train/new.jpg", "fing')
    (photos / "val/mirrored.png").rename(photos / "train/moved.png")
    astronaut.crop((50, 0, 450, 400)).save(photos / "train/new.jpg")
    lost = index.crop_path(out, index.read_index(out)["train/a.jpg"].sha256, 0)
    lost.unlink()
    again = run(photos, out, anny)
    assert (again.done, again.known, again.bad) == (2, 2, 2)
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in before if path != lost} == {p: t for p, t in before.items() if p != lost}
    # The moved photo is one photo still, and what was for validation does not become training.
    assert again.faces == {"train": 3, "val": 1}
    # Mending a photo gives it another chance.
    (photos / "test/damaged.jpg").write_bytes(ASTRONAUT.read_bytes() + b"another")
    assert run(photos, out, anny).bad == 1


KILLED = """
import sys, pathlib
from focus_backend.commands.prepare import prepare_command
sys.exit(prepare_command("folder", pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), workers=2, size=64))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path, anny, astronaut: Image.Image):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(16):
        astronaut.crop((number, 0, 400 + number, 400)).save(folder / f"{number:02d}.png")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(out)], env=environment)
    while child.poll() is None and not list(index.whole_lines(out / "index.jsonl")):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = list(index.whole_lines(out / "index.jsonl"))
    assert 0 < len(kept) < 16, "killed too late for this test to tell"
    summary = prepare(PhotoFolder(folder), out, anny, size=64)
    assert summary.known >= len(kept)
    assert summary.known + summary.done == 16
    whole = prepare(PhotoFolder(folder), tmp_path / "whole", anny, size=64)
    assert whole.faces == summary.faces
    assert index.read_index(out) == index.read_index(tmp_path / "whole")
    crops = [sorted(path.relative_to(root) for path in (root / "crops").rglob("*.*")) for root in (out, tmp_path / "whole")]
    assert crops[0] == crops[1]


@pytest.mark.slow
def test_a_stopped_run_ends_what_it_began(tmp_path: Path, astronaut: Image.Image):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(16):
        astronaut.crop((number, 0, 400 + number, 400)).save(folder / f"{number:02d}.png")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(out)], **options)
    while child.poll() is None and not list(index.whole_lines(out / "index.jsonl")):
        time.sleep(0.005)
    # An impatient user, and a terminal that tells the workers too.
    os.killpg(child.pid, signal.SIGINT)
    os.killpg(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted: what was finished is kept" in told
    assert "Traceback" not in told
    assert 0 < len(index.read_index(out)) < 16
    assert not list(out.rglob(".*"))


class Bomb(type(Path())):  # type: ignore[misc]
    """A path that ends the process it is sent to, as a fault in a decoder does."""

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.slow
def test_a_photo_that_ends_its_process_costs_itself_only(photos: Path, tmp_path: Path, anny):
    job = Job(crop_settings(anny, create_detector("mediapipe"), 64), "mediapipe", tmp_path / "out", frozenset())
    found = PhotoFolder(photos).photos()
    todo = [*found[:2], SourcePhoto("bomb.jpg", Bomb("bomb.jpg")), *found[2:]]
    ended = {photo.name: answer for photo, answer in answers(todo, job, 2)}
    assert set(ended) == {photo.name for photo in todo}
    assert "bomb.jpg ends the program" in str(ended["bomb.jpg"].error)
    assert {name for name, answer in ended.items() if answer.error is None} == {"train/a.jpg", "val/mirrored.png", "train/more/cut [1].png"}


def test_a_folder_for_something_else_is_left_alone(photos: Path, tmp_path: Path, anny):
    out = tmp_path / "out"
    run(photos, out, anny)
    with pytest.raises(ConfigError, match=r"was prepared for size 112, not 64: .*start over"):
        prepare(PhotoFolder(photos), out, anny, size=64)
    with pytest.raises(ConfigError, match="was prepared for crops of 112 pixels, not 64"):
        PreparedFaces(out, CropFrame.of(anny, 64))
    summary = prepare(PhotoFolder(photos), out, anny, size=64, resume=False)
    assert summary.done == 3
    assert len(PreparedFaces(out, CropFrame.of(anny, 64))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("words")
    with pytest.raises(OutputError, match=r"holds other files, such as thesis\.txt"):
        run(photos, tmp_path / "mine", anny)


def test_nothing_to_prepare_is_said(tmp_path: Path, anny):
    with pytest.raises(ConfigError, match="is not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out", anny)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="no photos in"):
        run(empty, tmp_path / "out", anny)
    Image.new("RGB", (80, 80), "grey").save(empty / "wall.png")
    with pytest.raises(NoFaceError, match=r"none of the 1 photos .* can be used: see the reasons in .*bad\.jsonl"):
        run(empty, tmp_path / "out", anny)
    with pytest.raises(ConfigError, match="no kind of photos 'celeb'"):
        prepare_command("celeb", empty, tmp_path / "out")


def test_splits_of_a_plain_folder(tmp_path: Path):
    for number in range(200):
        (tmp_path / f"{number}.jpg").touch()
    splits = [photo.split for photo in PhotoFolder(tmp_path).photos()]
    assert 3 <= splits.count("val") <= 20
    assert splits.count("train") == 200 - splits.count("val")
    pair = tmp_path / "pair"
    pair.mkdir()
    for name in "ab":
        (pair / f"{name}.jpg").touch()
    assert sorted(photo.split for photo in PhotoFolder(pair).photos()) == ["train", "val"]


def test_the_command_reports(photos: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert prepare_command("folder", photos, out, as_json=True, size=64) == 0
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(lines) == 5
    assert sum("error" in line for line in lines) == 2
    assert last["summary"]["faces"] == {"train": 2, "val": 1}
    assert prepare_command("folder", photos, out, size=64) == 0
    assert "5 photos: 0 prepared, 3 known, 2 bad" in capsys.readouterr().out
