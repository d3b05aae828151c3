"""Draws synthetic training faces to be looked at, each with its mask: `python scripts/draw_synthetic.py sheet.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from focus_backend.morphable.store import load_model
from focus_backend.networks.frame import CropFrame
from train.data.batch import FaceBatch
from train.data.synthetic import SyntheticConfig, SyntheticFaces


def contact_sheet(batch: FaceBatch, columns: int, with_masks: bool) -> Image.Image:
    """Pictures in rows, each beside itself with what is no face painted blue and the 68 points in yellow."""
    assert batch.mask is not None
    pictures = batch.image.permute(0, 2, 3, 1)
    blue = torch.tensor([0.1, 0.2, 0.9])
    marked = torch.where(batch.mask[..., None] > 0.5, pictures, 0.35 * pictures + 0.65 * blue)
    size = pictures.shape[1]
    places = batch.landmarks.long().clamp(0, size - 1)
    marked[torch.arange(len(batch))[:, None], places[..., 1], places[..., 0]] = torch.tensor([1.0, 1.0, 0.0])
    tiles = torch.cat([pictures, marked], 2) if with_masks else pictures
    rows = [torch.cat(list(row), 1) for row in tiles[: len(tiles) // columns * columns].split(columns)]
    return Image.fromarray(np.ascontiguousarray((torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()))


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="anny", help="name or file of a face model")
    parser.add_argument("--size", type=int, default=224, help="pixels of a crop")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--no-masks", action="store_true", help="pictures only")
    parser.add_argument("--clean", action="store_true", help="nothing in front of the faces, no defects of photos")
    options = parser.parse_args()
    model = load_model(options.model)
    config = SyntheticConfig.clean() if options.clean else SyntheticConfig()
    source = SyntheticFaces(model, CropFrame.of(model, options.size), config, seed=options.seed)
    batch = source.batch(options.step, options.count)
    contact_sheet(batch, options.columns, not options.no_masks).save(options.output)


if __name__ == "__main__":
    main()
