"""Draws a sheet of random people of a face model: `python scripts/draw_heads.py docs/heads.jpg`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.rendering.camera import Camera
from focus_backend.rendering.renderer import render

SIZE, COLUMNS, ROWS = 320, 4, 4
TURNS = (0.0, 25.0, -25.0, 50.0)  # degrees, one a column
# Spherical harmonics of a soft light from above, in front and a little from the subject's right.
LIGHT = (2.7, 0.45, 0.95, -0.3, 0.0, 0.0, 0.12, 0.0, 0.0)


def turned_camera(degrees: float) -> Camera:
    """A portrait lens from a metre away, the head turned about the vertical axis."""
    angle = math.radians(degrees)
    rotation = torch.tensor([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    centre = torch.tensor([0.0, -12.0, -60.0])
    translation = -rotation @ centre + torch.tensor([0.0, 0.0, -1000.0])
    middle = torch.tensor([SIZE / 2, SIZE / 2])
    return Camera(rotation[None], translation[None], torch.tensor([SIZE * 3.1]), middle[None], SIZE, SIZE)


def draw_people(model: FaceModel, shape: Float[Tensor, "n s"], albedo: Float[Tensor, "n a"], region: str) -> Image.Image:
    """A sheet of people, row by row, each column seen from another side."""
    sheet = Image.new("RGB", (COLUMNS * SIZE, ROWS * SIZE))
    light = torch.tensor(LIGHT)[None, :, None].expand(1, 9, 3)
    background = torch.full((1, SIZE, SIZE, 3), 0.42)
    for index in range(len(shape)):
        row, column = divmod(index, COLUMNS)
        skin = model.decode_albedo(albedo[index : index + 1]).clamp(0, 1)
        picture = render(
            model,
            model.decode_shape(shape[index : index + 1]),
            skin,
            light,
            turned_camera(TURNS[column]),
            region=region,
            background=background,
        )
        pixels = (picture.image[0].clamp(0, 1) * 255).round().byte().numpy()
        sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (column * SIZE, row * SIZE))
    return sheet


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="anny", help="name or file of a face model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--region", default="head", choices=["head", "face"])
    parser.add_argument("--mean", action="store_true", help="the mean head's shape and skin instead of random people")
    options = parser.parse_args()
    model = load_model(options.model)
    random = torch.Generator().manual_seed(options.seed)
    spread = 0.0 if options.mean else 1.0
    shape = spread * torch.randn(COLUMNS * ROWS, model.shape_size, generator=random)
    albedo = spread * torch.randn(COLUMNS * ROWS, model.albedo_size, generator=random)
    draw_people(model, shape, albedo, options.region).save(options.output, quality=90)


if __name__ == "__main__":
    main()
