"""How wrong a detector is, learnt from renders of the face model whose truth is known.

A detector's errors are not independent: its points move together, towards the faces it was trained on. Read as independent, hundreds of
points overrule the prior and fits from landmarks are worse than the mean head; with their true covariance they carry identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import LandmarkDetector
from focus_backend.landmarks.embedding import Embedding, embed
from focus_backend.landmarks.occluders import occlude
from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering import Camera, ambient_lighting, render, rotation_from_axis_angle, spherical_harmonics

# Part of the key of cached calibrations: raise it when anything here changes the result.
CALIBRATION_VERSION = "2"
PICTURES = 600
_PIXELS = 384
_LEAST_PICTURES = 40
# Beyond this root mean square (mm) the detector looked at something else than the face.
_LARGEST_ERROR = 8.0
# Share of the sample covariance that is replaced by its diagonal, against chance correlations of few samples.
_SHRINKAGE = 0.1
_FLOOR = 0.5


@dataclass(frozen=True)
class LandmarkNoise:
    """Errors of a detector's points: (x right, y down) in the image plane, scaled to mm at the face's distance.

    Attributes:
        bias: mean error.
        factor: the correlated part of the covariance is factor^T factor; coordinates ordered x0, y0, x1, y1 ...
        variance: of the part without correlation, mm^2.
    """

    bias: Float[Tensor, "points 2"]
    factor: Float[Tensor, "rank coordinates"]
    variance: Float[Tensor, "coordinates"]

    def turned(self, angle: float) -> LandmarkNoise:
        """The same errors in a picture that is turned, radians, clockwise as seen."""
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = self.bias.new_tensor([[cosine, sine], [-sine, cosine]])
        # The uncorrelated part is taken as round.
        variance = self.variance.view(-1, 2).mean(1, keepdim=True).expand(-1, 2).flatten()
        return LandmarkNoise(self.bias @ turn, (self.factor.unflatten(1, (-1, 2)) @ turn).flatten(1), variance)

    def precision(
        self, extra_variance: Float[Tensor, "points"] | None = None, inflation: float = 1.0
    ) -> Float[Tensor, "coordinates coordinates"]:
        """Inverse covariance, mm^-2, float64; `extra_variance` (mm^2) makes points that may be hidden count less."""
        covariance = (self.factor.double().T @ self.factor.double()) * inflation
        diagonal = self.variance.double() * inflation
        if extra_variance is not None:
            diagonal = diagonal + extra_variance.double().repeat_interleave(2)
        return torch.cholesky_inverse(torch.linalg.cholesky(covariance + torch.diag(diagonal)))


@dataclass(frozen=True)
class DetectorCalibration:
    """Where a detector's points lie on a face model, and how wrong they are."""

    embedding: Embedding
    noise: LandmarkNoise


@dataclass(frozen=True)
class Portrait:
    """A rendered random person and the truth.

    Attributes:
        pixels: RGB, sRGB-encoded.
        vertices: model space, mm.
        camera: of the picture.
    """

    pixels: UInt8[np.ndarray, "size size 3"]
    vertices: Float[Tensor, "vertices 3"]
    camera: Camera


def calibrate(
    model: FaceModel, detector: LandmarkDetector, pictures: int = PICTURES, progress: Callable[[float], None] | None = None
) -> DetectorCalibration:
    """Embedding and noise of a detector on a model, from `pictures` renders of random people (some 0.1 s each).

    Raises:
        LandmarkError: the detector finds too few faces in the renders.
    """
    model = model.to("cpu")
    embedding = embed(model, detector)
    errors = []
    for index, portrait in enumerate(random_portraits(model, pictures)):
        found = detector.detect(portrait.pixels)
        if found:
            errors.append(_errors(model, embedding, portrait, found[0].points))
        if progress:
            progress((index + 1) / pictures)
    kept = [error for error in errors if error.square().mean().sqrt() < _LARGEST_ERROR]
    if len(kept) < _LEAST_PICTURES:
        raise LandmarkError(
            f"{detector.name} finds a face in only {len(kept)} of {pictures} renders of model {model.name!r}",
            "choose another with --landmarks",
        )
    return DetectorCalibration(embedding, noise_of(torch.stack(kept)))


def noise_of(
    errors: Float[Tensor, "pictures points 2"], rank: int = 200, seen: Bool[Tensor, "pictures points"] | None = None
) -> LandmarkNoise:
    """Bias and covariance of observed errors, the covariance as its `rank` strongest directions and a diagonal rest.

    Args:
        errors: as `LandmarkNoise` has them.
        rank: how many directions.
        seen: which of the points count, each in some pictures at least; all by default.
    """
    seen = torch.ones_like(errors[..., 0], dtype=torch.bool) if seen is None else seen
    bias = errors.masked_fill(~seen[..., None], math.nan).nanmedian(0).values
    counted = seen.repeat_interleave(2, 1).double()
    centred = (errors - bias).flatten(1).double() * counted
    covariance = centred.T @ centred / (counted.T @ counted).clamp(min=1)
    values, vectors = torch.linalg.eigh((1 - _SHRINKAGE) * covariance)
    strongest = values.argsort(descending=True)[: min(rank, len(centred) - 1)]
    factor = (vectors[:, strongest] * values[strongest].clamp(min=0).sqrt()).T
    # eigh leaves the sign open; the largest entry is made positive so that the same errors give the same bytes.
    factor = factor * factor.gather(1, factor.abs().argmax(1, keepdim=True)).sign()
    rest = (covariance.diagonal() - factor.square().sum(0)).clamp(min=0) + _FLOOR**2
    return LandmarkNoise(bias.float(), factor.float(), rest.float())


def _errors(model: FaceModel, embedding: Embedding, portrait: Portrait, points: Float[np.ndarray, "points 2"]) -> Float[Tensor, "kept 2"]:
    """Detected minus true position, mm at the face's distance."""
    surface = portrait.camera.to_camera_space(embedding.points.on(portrait.vertices, model.triangles))
    true = portrait.camera.to_screen(surface)
    detected = torch.from_numpy(points).to(true)[embedding.indices]
    return (detected - true[:, :2]) * true[:, 2].mean() / portrait.camera.focal_length


def random_portraits(model: FaceModel, count: int, seed: int = 0) -> Iterator[Portrait]:
    """Renders of random people: the model's own prior, wide ranges of pose, distance, focal length and light, some with something in front
    of the face; the same every time."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(count):
        shape = torch.randn(model.shape_size, generator=random)
        expression = _random_expression(model, random)
        # Not every mole: real skin is plainer than independent draws of all components.
        albedo = 0.7 * torch.randn(model.albedo_size, generator=random).clamp(-2.5, 2.5)
        vertices, texture = model.decode(shape, expression, albedo)
        camera = _random_camera(model, random)
        background = torch.rand(3, generator=random).expand(1, _PIXELS, _PIXELS, 3)
        drawn = render(
            model,
            vertices[None],
            texture.clamp(0.01, 1)[None],
            _random_lighting(random)[None],
            camera,
            region="head",
            background=background,
        )
        pixels = (drawn.image[0].clamp(0, 1) * 255).byte().numpy()
        face = camera.project(torch.cat([torch.zeros(1, 3), model.landmarks68.on(vertices, model.triangles)]))
        yield Portrait(occlude(pixels, face.numpy(), random), vertices, camera)


def _random_expression(model: FaceModel, random: torch.Generator) -> Float[Tensor, "expression"]:
    """A few expressions at a time, up to their full extent, both sides of the face mostly alike."""
    activation = torch.zeros(model.expression_size)
    names = {name: index for index, name in enumerate(model.expression_names)}
    # One in five is neutral, as people are in photos.
    count = int(torch.randint(0, 7, (1,), generator=random)) if torch.rand((), generator=random) > 0.2 else 0
    calm = 0.3 + 0.7 * float(torch.rand((), generator=random))
    for index in torch.randperm(model.expression_size, generator=random)[:count].tolist():
        strength, other = (torch.rand(2, generator=random) * torch.tensor([0.8, 0.5]) + torch.tensor([0.0, 0.7])).tolist()
        activation[index] = strength
        name = model.expression_names[index]
        twin = name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")
        # Jaw and gaze move to one side; everything else is mostly done with both.
        if twin in names and twin != name and not name.startswith(("jaw", "eyeLook", "mouthLeft", "mouthRight")):
            activation[names[twin]] = strength * other
    return (calm * activation).clamp(0, 1) / model.expression_scale


def _random_camera(model: FaceModel, random: torch.Generator) -> Camera:
    normal = torch.randn(8, generator=random)
    yaw = 0.31 * normal[0] if normal[7] > 0 else (2 * torch.rand((), generator=random) - 1) * 1.13
    turn = [
        torch.tensor([0.0, 0.0, 0.1 * float(normal[1])]),
        torch.tensor([0.16 * float(normal[2]), 0.0, 0.0]),
        torch.tensor([0.0, float(yaw), 0.0]),
    ]
    rotation = rotation_from_axis_angle(turn[0]) @ rotation_from_axis_angle(turn[1]) @ rotation_from_axis_angle(turn[2])
    focal = _PIXELS * math.exp(float((math.log(1.7) + 0.45 * normal[3]).clamp(math.log(0.55), math.log(3.5))))
    height = (0.35 + 0.3 * float(torch.rand((), generator=random))) * _PIXELS
    distance = focal * 190.0 / height
    middle = model.mean_shape[model.quads[model.quad_in_face][:, :3].flatten()].mean(0)
    shift = 0.05 * _PIXELS * distance / focal * normal[4:6]
    translation = torch.cat([shift, torch.tensor([-distance])]) - rotation @ middle
    return Camera(rotation, translation, torch.tensor(focal), torch.full((2,), _PIXELS / 2), _PIXELS, _PIXELS)


def _random_lighting(random: torch.Generator) -> Float[Tensor, "9 3"]:
    """An ambient level and one to three soft lights from the front half space, faintly coloured."""
    lighting = ambient_lighting(0.25 + 0.5 * float(torch.rand((), generator=random)))
    for _ in range(int(torch.randint(1, 4, (1,), generator=random))):
        direction = torch.randn(3, generator=random) + torch.tensor([0.0, 0.4, 0.8])
        colour = (0.1 + 0.7 * torch.rand((), generator=random)) * (1 + 0.1 * torch.randn(3, generator=random))
        lighting = lighting + soft_light(direction / direction.norm(), colour)
    return lighting


def soft_light(direction: Float[Tensor, "3"], colour: Float[Tensor, "3"]) -> Float[Tensor, "9 3"]:
    """The first three bands of a distant light's cosine lobe, peak about `colour` (Ramamoorthi and Hanrahan 2001)."""
    bands = torch.tensor([math.pi] + [2 * math.pi / 3] * 3 + [math.pi / 4] * 5)
    return (bands * spherical_harmonics(direction))[:, None] * colour
