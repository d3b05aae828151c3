"""CelebAMask-HQ's layout: parts merged, splits of CelebA."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus_backend.errors import ConfigError
from focus_backend.photo import Photo, read_photo
from train.data.celebamask import CelebAMaskHQ
from train.data.crops import PhotoBytes, face_mask

ASTRONAUT = Path(__file__).parents[3] / "docs" / "demo" / "astronaut.jpg"


def write_mask(path: Path, rows: slice, columns: slice, size: int = 256) -> None:
    """A part's mask, half the photo's size, as the data set's are."""
    mask = np.zeros((size, size, 3), np.uint8)
    mask[rows, columns] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four photos; the first one's parts are rectangles."""
    photos = tmp_path / "CelebA-HQ-img"
    photos.mkdir()
    for number in (0, 8, 9, 2001):
        (photos / f"{number}.jpg").write_bytes(ASTRONAUT.read_bytes())
        write_mask(tmp_path / f"CelebAMask-HQ-mask-anno/{number // 2000}/{number:05d}_skin.png", slice(40, 120), slice(60, 160))
    masks = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    write_mask(masks / "00000_l_eye.png", slice(60, 70), slice(80, 100))
    write_mask(masks / "00000_eye_g.png", slice(60, 70), slice(70, 90))
    write_mask(masks / "00000_hair.png", slice(20, 50), slice(50, 170))
    write_mask(masks / "00000_l_ear.png", slice(60, 70), slice(20, 40))
    return tmp_path


def test_parts_merge_into_the_face(root: Path):
    photo = next(photo for photo in CelebAMaskHQ(root).photos() if photo.name.endswith("/0.jpg"))
    assert photo.tags == ("eye_g",)
    mask = face_mask(PhotoBytes.read(photo), read_photo(photo.path))
    expected = np.zeros((512, 512), bool)
    expected[100:240, 120:320] = True  # skin below the hair
    expected[120:140, 140:180] = False  # glasses, over skin and eye
    # The border of an enlarged mask may be off by the enlargement.
    assert (mask != expected).mean() < 0.005
    assert mask[170, 200]
    assert not mask[130, 60], "an ear is no face"


def test_splits_are_celebas(root: Path):
    (root / "list_eval_partition.txt").write_text("000007.jpg 2\n000008.jpg 0\n000009.jpg 1\n000010.jpg 0\n")
    rows = ["idx\torig_idx\torig_file", "0 6 000007.jpg", "8 7 000008.jpg", "9 8 000009.jpg", "2001 9 000010.jpg"]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(rows))
    splits = {photo.path.stem: photo.split for photo in CelebAMaskHQ(root).photos()}
    assert splits == {"0": "test", "8": "train", "9": "val", "2001": "train"}


def test_splits_without_the_partition_go_by_number(root: Path):
    splits = {photo.path.stem: photo.split for photo in CelebAMaskHQ(root).photos()}
    assert splits == {"0": "train", "8": "val", "9": "test", "2001": "train"}


def test_lists_that_leave_a_photo_out_are_said(root: Path):
    (root / "list_eval_partition.txt").write_text("000007.jpg 2\n")
    with pytest.raises(ConfigError, match=r"no CelebA-HQ-to-CelebA-mapping\.txt"):
        CelebAMaskHQ(root).photos()
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("idx orig_idx orig_file\n0 6 000007.jpg\n")
    with pytest.raises(ConfigError, match="do not tell the split of a photo"):
        CelebAMaskHQ(root).photos()


def test_another_layout_is_said(tmp_path: Path):
    with pytest.raises(ConfigError, match="has no folder CelebA-HQ-img"):
        CelebAMaskHQ(tmp_path).photos()
    (tmp_path / "CelebA-HQ-img").mkdir()
    (tmp_path / "CelebAMask-HQ-mask-anno").mkdir()
    with pytest.raises(ConfigError, match=r"no photos <id>\.jpg"):
        CelebAMaskHQ(tmp_path).photos()
    (tmp_path / "CelebA-HQ-img" / "3.jpg").write_bytes(ASTRONAUT.read_bytes())
    with pytest.raises(ConfigError, match=r"no masks <id>_<part>\.png"):
        CelebAMaskHQ(tmp_path).photos()


def test_a_mask_of_zeros_and_ones_counts_as_white():
    photo = Photo(np.zeros((80, 100, 3), np.uint8), "some.jpg", (100, 80))
    mask = np.zeros((80, 100), np.uint8)
    mask[10:20, 30:60] = 1
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    data = PhotoBytes(b"", (buffer.getvalue(),), (), "", "")
    assert (face_mask(data, photo) == mask.astype(bool)).all()
