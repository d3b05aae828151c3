"""Faces that are drawn once: the same as the source's, every one once an epoch, kept in files that are never trusted blindly."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest
import torch

from focus_backend.errors import OutputError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import CropFrame
from train.data.batch import FaceBatch
from train.data.pool import PooledFaces
from train.data.synthetic import SyntheticConfig, SyntheticFaces

COUNT = 10


class Counted:
    """A source that says how often it was asked."""

    def __init__(self, source: SyntheticFaces) -> None:
        self.source, self.asked = source, 0

    def batch(self, step: int, size: int) -> FaceBatch:
        """The source's, with borders in every picture."""
        self.asked += 1
        batch = self.source.batch(step, size)
        inside = torch.ones_like(batch.inside)
        inside[:, :5] = False
        return dataclasses.replace(batch, inside=inside)


@pytest.fixture
def source(tiny_model: FaceModel) -> Counted:
    return Counted(SyntheticFaces(tiny_model, CropFrame.of(tiny_model, 32), SyntheticConfig(), seed=4))


def test_faces_are_the_sources(source: Counted) -> None:
    pool = PooledFaces(source, COUNT, seed=1)
    batch, drawn = pool.batch(0, COUNT), source.batch(0, 64)
    assert len(batch) == COUNT
    for number in range(COUNT):
        distances = (drawn.theta.shape - batch.theta.shape[number]).abs().sum(1)
        place = int(distances.argmin())
        assert place < COUNT
        assert float(distances[place]) == 0
        assert float((drawn.image[place] - batch.image[number]).abs().max()) <= 0.5 / 255 + 1e-6
        assert torch.equal(drawn.mask[place] > 0.5, batch.mask[number] > 0.5)
        assert torch.equal(drawn.landmarks[place], batch.landmarks[number])
        assert torch.equal(drawn.inside[place], batch.inside[number])
    assert not bool(batch.inside[:, :5].any()), "what lies beside the photo is no part of it in a pool, either"


def test_every_face_comes_once_an_epoch_and_in_another_order(source: Counted) -> None:
    pool = PooledFaces(source, COUNT, seed=1)
    # Batches of four do not divide ten: an epoch's end lies within one.
    shapes = torch.cat([pool.batch(step, 4).theta.shape for step in range(5)])
    first, second = shapes[:COUNT, 0], shapes[COUNT:, 0]
    assert torch.equal(first.sort().values, second.sort().values)
    assert len(first.unique()) == COUNT
    assert not torch.equal(first, second)
    # More than one epoch in a batch.
    assert torch.equal(pool.batch(0, 20).theta.shape[:, 0], shapes[:, 0])


def test_a_batch_hangs_on_seed_rank_and_step_alone(source: Counted) -> None:
    pool, same = PooledFaces(source, COUNT, seed=1), PooledFaces(source, COUNT, seed=1)
    same.batch(7, 3)
    assert torch.equal(pool.batch(2, 3).image, same.batch(2, 3).image)
    others = [PooledFaces(source, COUNT, seed=1, rank=1), PooledFaces(source, COUNT, seed=2)]
    for other in others:
        assert not torch.equal(pool.batch(0, COUNT).theta.shape, other.batch(0, COUNT).theta.shape)


def test_kept_faces_are_used_again_only_for_the_same_key(source: Counted, tmp_path: Path) -> None:
    folder, told = tmp_path / "faces", []
    first = PooledFaces(source, COUNT, seed=1, folder=folder, key="one", report=told.append)
    assert (source.asked, told) == (1, [COUNT])
    again = PooledFaces(source, COUNT, seed=1, folder=folder, key="one")
    assert source.asked == 1
    assert torch.equal(first.batch(1, 6).image, again.batch(1, 6).image)
    PooledFaces(source, COUNT, seed=1, folder=folder, key="another")
    assert source.asked == 2
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, damage in (("image.npy", b""), ("image.npy", before["image.npy"][:-1]), ("pool.json", b"{"), ("pool.json", b"[]")):
        (folder / name).write_bytes(damage)
        asked = source.asked
        PooledFaces(source, COUNT, seed=1, folder=folder, key="another")
        assert source.asked == asked + 1
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_stopped_drawing_goes_on_where_it_was(source: Counted, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int) -> None:
        raise StoppedError

    count = 64 + COUNT
    with pytest.raises(StoppedError):
        PooledFaces(source, count, seed=1, folder=tmp_path / "faces", key="one", report=stop)
    assert source.asked == 1
    told: list[int] = []
    resumed = PooledFaces(source, count, seed=1, folder=tmp_path / "faces", key="one", report=told.append)
    assert (source.asked, told) == (2, [count])
    whole = PooledFaces(source, count, seed=1)
    for name, value in vars(whole.batch(0, count).theta).items():
        assert torch.equal(getattr(resumed.batch(0, count).theta, name), value)
    assert torch.equal(resumed.batch(0, count).image, whole.batch(0, count).image)


def test_a_pool_without_a_place_says_so(source: Counted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        PooledFaces(source, COUNT, seed=1, folder=tmp_path / "file" / "faces", key="one")
    assert source.asked == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system does not say beforehand whether there is room")
def test_a_full_disk_is_told_before_anything_is_drawn_in_vain(source: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device"):
        PooledFaces(source, COUNT, seed=1, folder=tmp_path / "faces", key="one")
    assert list(tmp_path.iterdir()) == []
