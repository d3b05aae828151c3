"""Draws reconstructed photos on one page: `python scripts/photo_sheet.py docs/photos.jpg out/*` with folders that `reconstruct` wrote.

A row a face: the photo, the reconstruction laid over it, the mask, and the neutral head with the photo's texture from two sides. Rows
stand in several columns where there are many.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from draw_heads import LIGHT, SIZE, turned_camera
from focus_backend.errors import FocusError, OutputError
from focus_backend.export.folder import RESULT_FILE
from focus_backend.export.pictures import PANEL_SIZE
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.rendering.lighting import decode_srgb
from focus_backend.rendering.renderer import render
from train.evaluate.meshes import read_mesh

TURNS = (0.0, 35.0)
# Of the report's panels, those that are shown: photo, overlay, mask.
PANELS, REPORT_PANELS = (0, 2, 3), 4
CELL, GAP, BACKGROUND = 224, 4, (24, 26, 30)
# Rows before there is another column of them.
MOST_ROWS = 8
MOST_BYTES = 400_000


def result_folders(places: Sequence[Path]) -> list[Path]:
    """The results among folders and in them, in the order given, then by name.

    Raises:
        FocusError: there are none in one of them.
    """
    found: list[Path] = []
    for place in places:
        inside = [place] if (place / RESULT_FILE).is_file() else sorted(path.parent for path in place.glob(f"*/{RESULT_FILE}"))
        if not inside:
            raise FocusError(f"{place} holds no results", "give folders that `focus-backend reconstruct` wrote")
        found += inside
    return found


def draw_row(folder: Path, model: FaceModel) -> list[Image.Image]:
    """The pictures of one result.

    Raises:
        FocusError: it is not whole, or of another face model.
    """
    try:
        report, texture = (Image.open(folder / name).convert("RGB") for name in ("report.jpg", "texture.png"))
    except OSError as error:
        raise FocusError(f"the result {folder} is not whole ({error})", "reconstruct the photo again") from error
    gap = (report.width - REPORT_PANELS * PANEL_SIZE) // (REPORT_PANELS + 1)
    top = report.height - PANEL_SIZE - gap
    lefts = [gap + place * (PANEL_SIZE + gap) for place in PANELS]
    shown = [report.crop((left, top, left + PANEL_SIZE, top + PANEL_SIZE)) for left in lefts]
    return [*shown, *(draw_head(folder, model, texture, turn) for turn in TURNS)]


def draw_head(folder: Path, model: FaceModel, texture: Image.Image, turn: float) -> Image.Image:
    """The neutral head of a result with its texture, turned by so many degrees.

    Raises:
        FocusError: the mesh is not of the face model.
    """
    vertices = torch.from_numpy(read_mesh(folder / "neutral.obj").vertices).float()
    if vertices.shape != model.mean_shape.shape:
        raise FocusError(f"the head in {folder} is not of the face model {model.name}", "give the right --model")
    colours = decode_srgb(torch.from_numpy(np.array(texture)).float() / 255)
    light = torch.tensor(LIGHT)[None, :, None].expand(1, 9, 3)
    background = torch.full((1, SIZE, SIZE, 3), BACKGROUND[2] / 255)
    drawn = render(model, vertices[None], colours[None], light, turned_camera(turn), region="head", background=background)
    return Image.fromarray((drawn.image[0].clamp(0, 1) * 255).round().byte().numpy())


def draw_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All rows, in as many columns as keep the page short."""
    columns = math.ceil(len(rows) / MOST_ROWS)
    height = math.ceil(len(rows) / columns)
    wide = max(map(len, rows)) * (CELL + GAP) + 3 * GAP
    sheet = Image.new("RGB", (columns * wide, height * (CELL + GAP) + GAP), BACKGROUND)
    for index, row in enumerate(rows):
        column, line = divmod(index, height)
        for place, picture in enumerate(row):
            cell = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (column * wide + GAP + place * (CELL + GAP), GAP + line * (CELL + GAP)))
    return sheet


def encode_sheet(sheet: Image.Image) -> bytes:
    """JPEG of at most `MOST_BYTES`: of lower quality, then smaller, as far as it has to be."""
    while True:
        for quality in (90, 80, 70, 60):
            file = io.BytesIO()
            sheet.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= MOST_BYTES:
                return file.getvalue()
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path, help="JPEG to write")
    parser.add_argument("results", type=Path, nargs="+", help="results, or folders of results")
    parser.add_argument("--model", default="anny", help="their face model")
    options = parser.parse_args()
    try:
        model = load_model(options.model)
        sheet = draw_sheet([draw_row(folder, model) for folder in result_folders(options.results)])
        options.sheet.write_bytes(encode_sheet(sheet))
    except OSError as error:
        raise SystemExit(str(OutputError(f"{options.sheet} cannot be written ({error.strerror})", "choose another place"))) from error
    except FocusError as error:
        raise SystemExit(str(error)) from error
    print(f"{options.sheet} ({options.sheet.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
