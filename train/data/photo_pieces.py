"""Pieces of a user's pictures, as backgrounds and as things in front of faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from focus_backend.errors import ConfigError, PhotoError
from focus_backend.photo import PhotoLimits, read_photo
from focus_backend.photo_paths import PHOTO_SUFFIXES
from train.data.draws import Draws

# Kept in memory of the device: 256 squares of 256 pixels are 50 MB.
_MOST_PICTURES = 256
_SIDE = 256


def load_pieces(folder: Path, device: torch.device | str = "cpu") -> UInt8[Tensor, "n 3 side side"]:
    """Middle squares of the first pictures below a folder, in the order of their names; what cannot be read is passed over.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} of synthetic.photos is no folder", "give a folder of pictures, or leave it out")
    squares: list[Tensor] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES):
        try:
            squares.append(_square(read_photo(path, PhotoLimits(working_side=2 * _SIDE)).pixels))
        except PhotoError:
            continue
        if len(squares) == _MOST_PICTURES:
            break
    if not squares:
        raise ConfigError(f"there is no picture in {folder}", "give a folder of pictures, or leave it out")
    return torch.stack(squares).to(device)


def _square(pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[Tensor, "3 side side"]:
    """The middle of a picture."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = pixels[top : top + side, left : left + side]
    return torch.from_numpy(cv2.resize(cut, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)).permute(2, 0, 1)


def draw_pieces(pictures: UInt8[Tensor, "n 3 side side"], draws: Draws, count: int, size: int) -> Float[Tensor, "count 3 size size"]:
    """Random cut-outs, turned a little and mirrored at will; sRGB."""
    chosen = pictures[draws.integers(len(pictures), count)].float() / 255
    zoom, angle = draws.log_uniform(count, low=0.25, high=1.0), draws.normal(count, scale=0.2)
    mirrored = 2.0 * draws.integers(2, count) - 1
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    shift = (1 - zoom) * draws.uniform(2, count, low=-1, high=1)
    rows = [torch.stack([mirrored * cosine, -sine, shift[0]], -1), torch.stack([mirrored * sine, cosine, shift[1]], -1)]
    places = affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    return grid_sample(chosen, places, mode="bilinear", padding_mode="reflection", align_corners=False)
