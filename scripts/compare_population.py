"""Prints measures of the model and of scan statistics, for docs/face-model.md: `python scripts/compare_population.py STATISTICS.npz`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from calibration.scans import read_scan_statistics
from focus_backend.morphable.measures import face_width, nose_width, point_measures
from focus_backend.morphable.store import load_model

PEOPLE = 1000
ORDER = ("zy-zy", "n-gn", "n-sn", "en-en", "ex-ex", "al-al", "ch-ch", "ls-li")


def all_measures(skin: Float[ndarray, "n v 3"], landmarks: Float[ndarray, "n 68 3"]) -> dict[str, Float[ndarray, "n"]]:
    """Every measure of heads."""
    return point_measures(landmarks) | {"zy-zy": face_width(skin, landmarks), "al-al": nose_width(skin, landmarks)}


def main() -> None:
    """Print the table's rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("statistics", type=Path)
    parser.add_argument("--model", default="anny")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    model, scans = load_model(options.model), read_scan_statistics(options.statistics)
    people = model.decode_shape(torch.from_numpy(random.standard_normal((PEOPLE, model.shape_size))).float())
    skin = model.quads[model.quad_in_face].unique()
    ours = all_measures(people[:, skin].numpy(), model.landmarks68.on(people, model.triangles).numpy())
    draws = np.clip(random.standard_normal((PEOPLE, len(scans.modes))), -3, 3)
    used = np.concatenate([scans.points[scans.is_scanned], scans.landmarks])
    heads = scans.vertices[used] + np.tensordot(draws, scans.modes[:, used].astype(np.float64), 1)
    theirs = all_measures(heads[:, :-68], heads[:, -68:])
    for name in ORDER:
        cells = [f"{values[name].mean():.1f} ± {values[name].std():.1f}" for values in (ours, theirs)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
