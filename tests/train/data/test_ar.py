"""Photos and masks side by side, as for the AR faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focus_backend.errors import ConfigError, PhotoError
from focus_backend.photo import read_photo
from train.data.ar import MaskedPhotos
from train.data.crops import PhotoBytes, face_mask


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures by the names of the AR database."""
    for name in ("m-001-01", "m-001-08", "w-012-26", "somebody"):
        write(tmp_path / f"photos/{name}.bmp", np.full((96, 128, 3), 99, np.uint8))
        mask = np.zeros((96, 128), np.uint8)
        mask[20:60, 30:90] = 255
        write(tmp_path / f"masks/{name}.png", mask)
    return tmp_path


def test_photos_meet_their_masks(root: Path):
    photos = MaskedPhotos(root).photos()
    assert [photo.name for photo in photos] == [f"photos/{name}.bmp" for name in ("m-001-01", "m-001-08", "somebody", "w-012-26")]
    assert [photo.tags for photo in photos] == [("unoccluded",), ("glasses",), (), ("scarf",)]
    assert {photo.split for photo in photos} == {"test"}
    mask = face_mask(PhotoBytes.read(photos[0]), read_photo(photos[0].path))
    assert mask[20:60, 30:90].all()
    assert mask.sum() == 40 * 60


def test_wrong_layouts_are_said(root: Path):
    with pytest.raises(ConfigError, match="has no folder photos"):
        MaskedPhotos(root / "photos").photos()
    (root / "masks/somebody.png").unlink()
    with pytest.raises(ConfigError, match=r"1 photos of .* have no mask, such as somebody"):
        MaskedPhotos(root).photos()
    write(root / "masks/somebody.png", np.zeros((96, 96), np.uint8))
    photo = MaskedPhotos(root).photos()[2]
    with pytest.raises(PhotoError, match=r"the mask of somebody\.bmp has 96 x 96 pixels, the photo 128 x 96"):
        face_mask(PhotoBytes.read(photo), read_photo(photo.path))
    write(root / "photos/somebody.png", np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(ConfigError, match="share a name"):
        MaskedPhotos(root).photos()
