"""Marks the face region of the head: outer skin that scanners see, and the front of the eyeballs."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from calibration.scans import ScanStatistics
from calibration.surface import nearest_points, triangulate
from focus_backend.morphable.anny_source import AnnyHead
from focus_backend.rendering.camera import Camera, rotation_from_axis_angle
from focus_backend.rendering.rasterize import rasterize

NEAR = 4.0  # mm from the scanned part
UNDER_CHIN = 8.0  # mm; what lies lower is throat
YAWS, PITCHES, PIXELS = (-60, -30, 0, 30, 60), (-20, 0, 20), 1024
SEEN_PIXELS = 3  # of a quad, in some view, or it is inside of mouth or nose
SMOOTHING_ROUNDS = 6


def mark_face_quads(
    head: AnnyHead, mean: Float[ndarray, "v 3"], registered: Float[ndarray, "v 3"], scans: ScanStatistics, chin: float
) -> Int[ndarray, "quads"]:
    """Quads of the face region, the same on both sides.

    Args:
        mean: the symmetric mean head.
        registered: the head that lies on the scans' mean.
        chin: height of the chin's lowest point on the mean, mm.
    """
    is_scanned = np.zeros(len(scans.vertices), dtype=bool)
    is_scanned[scans.points[scans.is_scanned]] = True
    distance, triangles, _ = nearest_points(registered, scans.vertices, scans.triangles)
    near = (distance < NEAR) & is_scanned[scans.triangles[triangles]].all(1)
    near = near | near[head.mirror]
    skin = np.isin(head.quads[:, 0], head.skin)
    seen = _seen_quads(head, mean)
    mirror = mirror_quads(head)
    seen = (seen | seen[mirror]) & (mean[head.quads][:, :, 1].mean(1) > chin - UNDER_CHIN)
    neighbours = quad_neighbours(head.quads)
    face = _largest_part(near[head.quads].all(1) & skin & seen, neighbours)
    face = _smooth_outline(face, skin & seen, neighbours)
    eyes = np.concatenate([head.left_eye, head.right_eye])
    is_front = np.zeros(len(mean), dtype=bool)
    is_front[eyes] = head.vertices[eyes, 2] > -1.0
    return np.flatnonzero((face & face[mirror]) | is_front[head.quads].all(1))


def mirror_quads(head: AnnyHead) -> Int[ndarray, "quads"]:
    """The quad on the other side of each."""
    place = {tuple(sorted(quad)): index for index, quad in enumerate(head.quads.tolist())}
    return np.array([place[tuple(sorted(quad))] for quad in head.mirror[head.quads].tolist()])


def quad_neighbours(quads: Int[ndarray, "quads 4"]) -> Int[ndarray, "quads 4"]:
    """The quad across each edge, -1 for none."""
    edges = np.sort(np.stack([quads, np.roll(quads, -1, axis=1)], -1), axis=-1).reshape(-1, 2)
    keys = edges[:, 0] * (quads.max() + 1) + edges[:, 1]
    order = np.argsort(keys, kind="stable")
    result = np.full(len(keys), -1)
    paired = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    first, second = order[paired], order[paired + 1]
    result[first], result[second] = second // 4, first // 4
    return result.reshape(-1, 4)


def _seen_quads(head: AnnyHead, mean: Float[ndarray, "v 3"]) -> Bool[ndarray, "quads"]:
    """Quads that some view of the front shows."""
    triangles = torch.from_numpy(triangulate(head.quads))
    vertices = torch.from_numpy(mean).float()
    most = np.zeros(len(head.quads), dtype=np.int64)
    for yaw in YAWS:
        for pitch in PITCHES:
            turn, nod = torch.tensor([[0.0, yaw, 0.0], [pitch, 0.0, 0.0]]).deg2rad()
            rotation = rotation_from_axis_angle(nod) @ rotation_from_axis_angle(turn)
            shift = torch.tensor([0.0, 0.0, -900.0]) - rotation @ torch.tensor([0.0, -30.0, -60.0])
            camera = Camera(rotation, shift, torch.tensor(PIXELS * 3.0), torch.tensor([PIXELS / 2, PIXELS / 2]), PIXELS, PIXELS)
            screen = camera.to_screen(camera.to_camera_space(vertices))
            ids = rasterize(screen[None], triangles, PIXELS, PIXELS, cull_backfaces=True)[0]
            shown = ids[ids >= 0].numpy() % len(head.quads)
            most = np.maximum(most, np.bincount(shown, minlength=len(head.quads)))
    return most >= SEEN_PIXELS


def _largest_part(face: Bool[ndarray, "quads"], neighbours: Int[ndarray, "quads 4"]) -> Bool[ndarray, "quads"]:
    """The largest connected part."""
    left, best = set(np.flatnonzero(face).tolist()), set()
    while left:
        part, border = set(), [left.pop()]
        while border:
            quad = border.pop()
            part.add(quad)
            for other in neighbours[quad].tolist():
                if other in left:
                    left.discard(other)
                    border.append(other)
        best = max(best, part, key=len)
    result = np.zeros_like(face)
    result[list(best)] = True
    return result


def _smooth_outline(
    face: Bool[ndarray, "quads"], allowed: Bool[ndarray, "quads"], neighbours: Int[ndarray, "quads 4"]
) -> Bool[ndarray, "quads"]:
    """Spikes taken off, notches filled, then rounded."""
    face = _grow(_shrink(face, allowed, neighbours), face, neighbours)
    for _ in range(SMOOTHING_ROUNDS):
        count = _inside_count(face, neighbours)
        face = (face & (count >= 2)) | (allowed & (count >= 3))
    return _largest_part(face, neighbours)


def _inside_count(face: Bool[ndarray, "quads"], neighbours: Int[ndarray, "quads 4"]) -> Int[ndarray, "quads"]:
    return (face[neighbours] & (neighbours >= 0)).sum(1)


def _shrink(face: Bool[ndarray, "quads"], allowed: Bool[ndarray, "quads"], neighbours: Int[ndarray, "quads 4"]) -> Bool[ndarray, "quads"]:
    """Without the quads at the outline; rims of eyes, mouth and nostrils, where nothing more is allowed, do not count."""
    at_outline = (~face[neighbours] & allowed[neighbours] & (neighbours >= 0)).any(1)
    return face & ~at_outline


def _grow(core: Bool[ndarray, "quads"], limit: Bool[ndarray, "quads"], neighbours: Int[ndarray, "quads 4"]) -> Bool[ndarray, "quads"]:
    """With the quads around, corners included, within a limit."""
    for _ in range(2):
        core = core | (limit & (_inside_count(core, neighbours) >= 1))
    return core
