"""A detector whose truth is known: it finds spots of pure colour that are painted on a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from focus_backend.landmarks.detector import Detection, bounding_box

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "cyan": (0, 1, 1), "magenta": (1, 0, 1)}
TEXTURE = 256
_LINEAR = (np.arange(256) / 255.0) ** 2.2


class SpotDetector:
    """Finds spots of pure colour: a detector whose truth is known, because the spots are painted on the model."""

    name = "spots"
    version = "1"
    point_names = (*COLOURS, "nowhere")

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, pixels: np.ndarray) -> list[Detection]:
        self.calls += 1
        # Every other pixel tells enough.
        light = _LINEAR[pixels[::2, ::2]]
        chroma = light / light.sum(-1, keepdims=True).clip(1e-6)
        points = [self._centre(light, chroma, np.array(colour) / sum(colour)) for colour in COLOURS.values()]
        # A point that is somewhere else in every picture has no place on the model.
        points.append(np.random.default_rng(self.calls).uniform(0, len(pixels), 2))
        found = np.array([point for point in points if point is not None])
        if len(found) < 3:
            return []
        points = np.array([(-9.0, -9.0) if point is None else point for point in points])
        return [Detection(self.name, self.point_names, points, points[:5], bounding_box(found))]

    @staticmethod
    def _centre(light, chroma, colour):
        rows, columns = np.nonzero((np.abs(chroma - colour).max(-1) < 0.12) & (light.max(-1) > 0.05))
        return 2 * np.array([columns.mean(), rows.mean()]) + 0.5 if len(rows) > 8 else None


def spotted_model(tiny_model):
    """A model with a spot at six of its NoW points, and where those are (mm)."""
    points = tiny_model.now_landmarks
    uv = (tiny_model.uv[tiny_model.triangle_uv[points.triangles]] * points.barycentric[:, :, None]).sum(1)[: len(COLOURS)]
    rows, columns = (index.flatten() for index in torch.meshgrid(torch.arange(TEXTURE), torch.arange(TEXTURE), indexing="ij"))
    texel_uv = torch.stack([(columns + 0.5) / TEXTURE, 1 - (rows + 0.5) / TEXTURE], -1)
    albedo = torch.full((TEXTURE**2, 3), 0.5)
    for place, colour in zip(uv, COLOURS.values(), strict=True):
        albedo[((texel_uv - place) * torch.tensor([2.0, 1.0])).norm(dim=1) < 0.02] = torch.tensor(colour, dtype=torch.float32)
    model = dataclasses.replace(
        tiny_model,
        texture_size=TEXTURE,
        texels=torch.arange(TEXTURE**2),
        albedo_mean=albedo,
        albedo_basis=torch.zeros(1, TEXTURE**2, 3),
    )
    return model, points.on(model.mean_shape, model.triangles)[: len(COLOURS)]
