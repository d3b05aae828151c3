"""Rendered people whose truth is known: the photos of these tests, with what a fit should find."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.landmarks.calibration import LandmarkNoise, soft_light
from focus_backend.landmarks.calibration_store import independent_noise
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.landmarks.user import LANDMARKS68_NAMES, embed_names
from focus_backend.morphable.face_model import FaceModel
from focus_backend.reconstruction.landmark_fit import LandmarkTerm, landmark_term
from focus_backend.reconstruction.state import CameraPrior, FaceState
from focus_backend.rendering import ambient_lighting, render, rotation_from_axis_angle

SIDE = 384
PRIOR = CameraPrior(torch.full((2,), SIDE / 2, dtype=torch.float64), math.log(1.4 * SIDE), 0.6, math.log(800.0), 0.45)
SMILE = {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "jawOpen": 0.25}


@dataclass(frozen=True)
class Person:
    """A rendered person.

    Attributes:
        pixels: RGB, sRGB-encoded.
        region: pixels of the face region.
        truth: theta of the picture.
        vertices: model space, mm, with the expression.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    region: Bool[np.ndarray, "size size"]
    truth: FaceState
    vertices: Float[Tensor, "vertices 3"]


def lamp(direction: tuple[float, float, float], strength: float, ambient: float) -> Float[Tensor, "9 3"]:
    """Ambient light and one soft lamp."""
    towards = torch.tensor(direction)
    return ambient_lighting(ambient) + soft_light(towards / towards.norm(), torch.full((3,), strength))


def random_person(
    model: FaceModel,
    seed: int,
    *,
    expression: dict[str, float] | None = None,
    lighting: Float[Tensor, "9 3"] | None = None,
    yaw: float | None = None,
) -> Person:
    """A random person before a mottled wall; `expression` in activations by name, `yaw` in radians."""
    random = torch.Generator().manual_seed(seed)
    shape = torch.randn(model.shape_size, generator=random)
    albedo = 0.7 * torch.randn(model.albedo_size, generator=random).clamp(-2.5, 2.5)
    draws = torch.rand(6, generator=random)
    turn = [0.3 * float(draws[0]) - 0.15, (0.8 * float(draws[1]) - 0.4) if yaw is None else yaw, 0.1 * float(draws[2]) - 0.05]
    distance = 500 + 400 * float(draws[3])
    side_light = 2 * float(draws[4]) - 1
    state = FaceState(
        shape=shape.double(),
        expression=coefficients(model, expression or {}),
        albedo=albedo.double(),
        lighting=(lamp((side_light, 0.4, 1.0), 0.5, 0.5) if lighting is None else lighting).double(),
        rotation=rotation_from_axis_angle(torch.tensor(turn, dtype=torch.float64)),
        translation=torch.tensor([8.0, 20.0, -distance], dtype=torch.float64),
        log_focal=torch.tensor(math.log(0.5 * SIDE * distance / 190), dtype=torch.float64),
    )
    return draw_person(model, state, wall(seed))


def coefficients(model: FaceModel, activations: dict[str, float]) -> Float[Tensor, "expression"]:
    """Expression coefficients, standard deviations, of activations by name."""
    values = torch.zeros(model.expression_size, dtype=torch.float64)
    for name, activation in activations.items():
        index = model.expression_names.index(name)
        values[index] = activation / float(model.expression_scale[index])
    return values


def wall(seed: int) -> Float[np.ndarray, "side side 3"]:
    """A mottled wall of some colour."""
    random = np.random.default_rng(seed)
    mottle = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE, 3)).astype(np.float32), (0, 0), 6)
    return np.clip(random.uniform(0.15, 0.85, 3) + 0.6 * mottle, 0, 1).astype(np.float32)


def draw_person(model: FaceModel, state: FaceState, background: Float[np.ndarray, "side side 3"]) -> Person:
    """A theta as a photo of the whole head."""
    vertices, texture = model.decode(state.shape.float(), state.expression.float(), state.albedo.float())
    camera = state.camera(PRIOR.principal_point, SIDE, SIDE)
    scene = (model, vertices[None], texture.clamp(0.01, 1)[None], state.lighting.float()[None], camera)
    drawn = render(*scene, region="head", background=torch.from_numpy(background)[None])
    pixels = (drawn.image[0].clamp(0, 1) * 255).round().byte().numpy()
    return Person(pixels, render(*scene, antialiased=False).mask[0].numpy(), state, vertices)


def project(state: FaceState, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
    """Photo pixels of points in model space, float64 and apart from the code under test."""
    place = points.double() @ state.rotation.T + state.translation
    return PRIOR.principal_point + state.log_focal.exp() * place[:, :2] * torch.tensor([1.0, -1.0]) / -place[:, 2:]


def clicked(model: FaceModel, person: Person, names: tuple[str, ...] = LANDMARKS68_NAMES, error: float = 1.0, seed: int = 0) -> Detection:
    """What a careful user would click on a person's photo; `error` in pixels."""
    embedding = embed_names(model, names)
    points = project(person.truth, embedding.points.on(person.vertices, model.triangles)).numpy()
    points = points + np.random.default_rng(seed).normal(0, error, points.shape)
    # The five are only there to be handed on.
    five = points[:5] if names == FIVE_POINT_NAMES else points[[36, 45, 30, 48, 54]]
    return Detection("user", names, points, five, bounding_box(points))


def term_of(model: FaceModel, detection: Detection) -> tuple[LandmarkTerm, LandmarkNoise]:
    """Clicked landmarks as evidence, and their noise."""
    embedding = embed_names(model, detection.names)
    noise = independent_noise(embedding)
    term = landmark_term(model, embedding.points, torch.from_numpy(detection.points), noise.bias, noise.precision())
    return term, noise


def face_vertices(model: FaceModel) -> Tensor:
    """Index of the vertices of the face region."""
    return model.quads[model.quad_in_face][:, :3].flatten().unique()


def shape_error(model: FaceModel, shape: Float[Tensor, "shape"], truth: Float[Tensor, "shape"]) -> float:
    """Mean distance in mm of two neutral faces in the face region, after the best shift and turn."""
    chosen = face_vertices(model)
    first, second = (model.decode_shape(values.float())[chosen].double() for values in (shape, truth))
    return float((aligned(first, second) - second).norm(dim=-1).mean())


def aligned(points: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """`points` shifted and turned onto `target` (Kabsch)."""
    centre, goal = points.mean(0), target.mean(0)
    left, _, right = torch.linalg.svd((points - centre).T @ (target - goal))
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.det(left @ right).sign())], dtype=points.dtype))
    return (points - centre) @ (left @ flip @ right) + goal


def degrees_between(first: Float[Tensor, "3 3"], second: Float[Tensor, "3 3"]) -> float:
    """Angle of the turn from one rotation to another."""
    return math.degrees(math.acos(min(1.0, max(-1.0, (float((first.T @ second).trace()) - 1) / 2))))


def f1(found: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * float((found & true).sum()) / max(1.0, float(found.sum() + true.sum()))
