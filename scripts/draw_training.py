"""Draws a training run on one page: loss curves and the last pictures of each stage. python scripts/draw_training.py RUN PAGE.png"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from train.config import STAGES
from train.logs import read_losses


def draw_run(run: Path, page: Path) -> None:
    """One row a stage: each weighted loss over the steps, and the last panel of faces that are not learnt from."""
    stages = [stage for stage in STAGES if (run / stage / "losses.jsonl").is_file()]
    figure, rows = plt.subplots(len(stages), 2, figsize=(18, 4 * len(stages)), squeeze=False, width_ratios=(3, 5))
    for stage, (losses, picture) in zip(stages, rows, strict=True):
        lines = read_losses(run / stage / "losses.jsonl")
        _draw_lines(losses, [(line["step"], line["losses"]) for line in lines if "losses" in line], stage)
        _draw_picture(picture, run / stage / "pictures")
    figure.tight_layout()
    figure.savefig(page, dpi=60)


def _draw_lines(axes: Axes, points: list[tuple[int, dict[str, float]]], title: str) -> None:
    for name in sorted({name for _, values in points for name in values}):
        known = [(step, values[name]) for step, values in points if name in values]
        axes.plot(*zip(*known, strict=True), label=name, marker="." if len(known) < 15 else None)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    if points:
        axes.legend(fontsize=8)


def _draw_picture(axes: Axes, folder: Path) -> None:
    axes.axis("off")
    special = folder / "misfit.png"
    pictures = [special] if special.is_file() else sorted(folder.glob("*.png"))[-1:]
    for path in pictures:
        axes.imshow(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder that `focus-backend train` wrote")
    parser.add_argument("page", type=Path, help="PNG to write")
    options = parser.parse_args()
    draw_run(options.run, options.page)


if __name__ == "__main__":
    main()
