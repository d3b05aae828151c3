"""Prepared faces as a source of batches: order, ranks, prefetch, errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from focus_backend.errors import ConfigError, PhotoError
from focus_backend.files import write_whole
from focus_backend.networks.frame import CropFrame
from train.data import index
from train.data.augment import AugmentConfig, stored_size
from train.data.batch import FaceSource
from train.data.crops import encode_jpeg, encode_mask
from train.data.prepared import PreparedFaces

SIZE, FACES = 64, 11
STORED = stored_size(SIZE)


@pytest.fixture(scope="module")
def frame(tiny_model) -> CropFrame:
    """Of the tiny model."""
    return CropFrame.of(tiny_model, SIZE)


def write_folder(folder: Path, frame: CropFrame, faces: int = FACES, has_mask: bool = True) -> Path:
    """A prepared folder of plain pictures, each of its own grey; masks are their left halves."""
    points = [tuple(point) for point in frame.five_points.tolist()]
    more = {"model": "tiny", "model_sha256": "", "detector": "none", "detector_version": "0"}
    description = index.FolderDescription(size=frame.size, stored=STORED, centre=tuple(frame.centre.tolist()), five_points=points, **more)
    write_whole(folder / index.DESCRIPTION, description.model_dump_json().encode())
    mask = np.zeros((STORED, STORED), bool)
    mask[:, : STORED // 2] = True
    for number in range(faces):
        sha = hashlib.sha256(str(number).encode()).hexdigest()
        write_whole(index.crop_path(folder, sha, 0), encode_jpeg(np.full((STORED, STORED, 3), 10 + 20 * number, np.uint8)))
        if has_mask:
            write_whole(index.mask_path(folder, sha, 0), encode_mask(mask))
        landmarks = tuple((STORED / 2 + number, float(k)) for k in range(68))
        face = index.FaceRecord(landmarks=landmarks, to_photo=(2.0, 0.0, 0.0, 0.0, 2.0, 0.0), score=1.0, has_mask=has_mask)
        common = {"fingerprint": "", "sha256": sha, "mask_sha256": "", "split": "train", "width": 999, "height": 999}
        record = index.PhotoRecord(photo=f"{number:03d}.jpg", faces=(face,), **common)
        index.append_line(folder / index.INDEX, record.model_dump())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frame: CropFrame) -> Path:
    """Eleven faces."""
    return write_folder(tmp_path_factory.mktemp("prepared"), frame)


def same(one, other) -> bool:
    names = ("image", "landmarks", "inside", "mask")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def shown(batch) -> list[int]:
    """Numbers of the faces by their grey."""
    return [round((value * 255 - 10) / 20) for value in batch.image[:, 0, 32, 32].tolist()]


def test_a_batch_depends_on_its_step_alone(folder: Path, frame: CropFrame):
    source = PreparedFaces(folder, frame, augment=AugmentConfig(), seed=3)
    assert isinstance(source, FaceSource)
    batches = [source.batch(step, 4) for step in range(5)]
    later = PreparedFaces(folder, frame, augment=AugmentConfig(), seed=3, prefetch=0, threads=1)
    assert same(later.batch(3, 4), batches[3])
    # Back and forth, as after a resume.
    assert same(source.batch(1, 4), batches[1])
    assert same(source.batch(4, 4), batches[4])
    other = PreparedFaces(folder, frame, augment=AugmentConfig(), seed=4)
    assert not same(other.batch(3, 4), batches[3])


def test_every_epoch_shows_every_face_once_in_a_new_order(folder: Path, frame: CropFrame):
    source = PreparedFaces(folder, frame)
    faces = [face for step in range(9) for face in shown(source.batch(step, 4))]
    epochs = [faces[start : start + FACES] for start in (0, FACES, 2 * FACES)]
    assert all(sorted(epoch) == list(range(FACES)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert shown(source.batch(0, 4)) == faces[:4]


def test_ranks_share_what_one_process_would_see(folder: Path, frame: CropFrame):
    alone = PreparedFaces(folder, frame, augment=AugmentConfig())
    ranks = [PreparedFaces(folder, frame, augment=AugmentConfig(), rank=rank, world=2) for rank in range(2)]
    for step in range(3):
        whole, parts = alone.batch(step, 6), [source.batch(step, 3) for source in ranks]
        assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
        assert torch.equal(whole.landmarks, torch.cat([part.landmarks for part in parts]))


def test_what_a_batch_holds(folder: Path, frame: CropFrame):
    batch = PreparedFaces(folder, frame).batch(0, FACES)
    order = shown(batch)
    margin = (STORED - SIZE) / 2
    expected = torch.tensor([[STORED / 2 - margin + number, 7 - margin] for number in order])
    torch.testing.assert_close(batch.landmarks[:, 7], expected)
    assert (batch.landmark_weight == 1).all()
    assert batch.inside.all()
    assert batch.mask is not None
    assert (batch.mask[:, :, : SIZE // 2] == 1).all()
    assert (batch.mask[:, :, SIZE // 2 :] == 0).all()
    assert batch.image.dtype == torch.float32


def test_faces_without_masks(tmp_path: Path, frame: CropFrame):
    folder = write_folder(tmp_path, frame, faces=2, has_mask=False)
    assert PreparedFaces(folder, frame).batch(0, 2).mask is None
    with pytest.raises(ConfigError, match="has no train faces with a mask"):
        PreparedFaces(folder, frame, needs_mask=True)


def test_what_cannot_be_used_is_said(folder: Path, tmp_path: Path, frame: CropFrame, tiny_model):
    with pytest.raises(ConfigError, match=r"holds no prepared faces: .*train prepare"):
        PreparedFaces(tmp_path, frame)
    with pytest.raises(ConfigError, match=rf"has no val faces \(it has {FACES} train, 0 val, 0 test\)"):
        PreparedFaces(folder, frame, split="val")
    with pytest.raises(ConfigError, match="was prepared for crops of 64 pixels, not 32"):
        PreparedFaces(folder, CropFrame.of(tiny_model, 32))
    with pytest.raises(ConfigError, match="margin too small"):
        PreparedFaces(folder, frame, augment=AugmentConfig(shift=40))
    other = CropFrame(SIZE, frame.centre, frame.five_points + 1)
    with pytest.raises(ConfigError, match="was prepared for the face model 'tiny'"):
        PreparedFaces(folder, other)


def test_damage_is_said(tmp_path: Path, frame: CropFrame):
    folder = write_folder(tmp_path, frame, faces=1)
    crop = next(folder.rglob("*.jpg"))
    crop.write_bytes(crop.read_bytes()[:100])
    with pytest.raises(PhotoError, match="is missing or damaged: delete it and run"):
        PreparedFaces(folder, frame).batch(0, 1)
    lines = (folder / index.INDEX).read_bytes()
    (folder / index.INDEX).write_bytes(lines + b'{"photo": "torn')
    assert len(PreparedFaces(folder, frame)) == 1
    (folder / index.INDEX).write_bytes(lines + lines.replace(b'"width":999', b'"width":-1'))
    with pytest.raises(ConfigError, match=r"line 2 of .*index\.jsonl is damaged \(width"):
        PreparedFaces(folder, frame)
    (folder / index.DESCRIPTION).write_text("{}")
    with pytest.raises(ConfigError, match=r"prepared\.json is damaged"):
        PreparedFaces(folder, frame)


def test_a_photo_in_two_splits_is_not_for_training(folder: Path, tmp_path: Path):
    found = index.read_index(folder)
    first = found["000.jpg"]
    doubled = {**found, "copy.jpg": first.model_copy(update={"photo": "copy.jpg", "split": "test"})}
    kept = index.distinct_photos(doubled)
    assert len(kept) == FACES
    assert next(record for record in kept if record.sha256 == first.sha256).split == "test"
