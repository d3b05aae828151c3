"""The M-step: Gauss-Newton on the colours of the inlier pixels, the landmarks and the prior (eq 5, 7 and the regulariser)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import FitError
from focus_backend.face_crop import FaceCrop
from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.landmark_fit import LandmarkTerm, add_prior, solve_step
from focus_backend.reconstruction.pixels import (
    PixelTables,
    Prediction,
    VisiblePixels,
    appearance_jacobian,
    geometry_jacobian,
    image_gradient,
    predict,
    visible_pixels,
)
from focus_backend.reconstruction.state import LIGHTING_SIZE, POSE_SIZE, CameraPrior, CoefficientPrior, FacePrior, FaceState
from focus_backend.rendering import Camera, spherical_harmonics
from focus_backend.rendering.normals import vertex_normals

# Neighbouring pixels err together (shadows, gloss, wrinkles): one independent colour measurement to so many square millimetres.
INDEPENDENT_AREA = 1200.0
# While the mask is still unknown the prior of skin and light must hold against whole regions that are not face.
CAUTIOUS_AREA = 800.0
LEAST_NOISE = 0.04
# Fewer visible pixels than this are no face.
LEAST_PIXELS = 50
# Spread of lighting coefficients relative to the ambient one, by band, for the mean of the channels and for their differences. Light that
# is coloured from one side only is rare; without this prior a green scarf is explained by green light from below.
LIGHTING_SPREAD = (3.0, 0.8, 0.5)
LIGHTING_TINT_SPREAD = (0.5, 0.12, 0.08)


@dataclass(frozen=True)
class Picture:
    """A crop of the photo at one resolution of the fit.

    Attributes:
        pixels: sRGB-encoded, slightly blurred.
        gradient: by column and by row, per pixel.
        is_inside: pixels that lie in the photo.
        scale, offset: crop pixel = scale * photo pixel + offset.
        told: log odds of face against outlier by networks, 0 where they say nothing; None without.
        counted: how much a pixel that is face counts, less where networks see an outlier; None for all alike.
    """

    pixels: Float[Tensor, "size size 3"]
    gradient: Float[Tensor, "size size 3 2"]
    is_inside: Tensor
    scale: float
    offset: tuple[float, float]
    told: Float[np.ndarray, "size size"] | None = None
    counted: Float[Tensor, "size size"] | None = None

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return len(self.pixels)

    def camera(self, state: FaceState, prior: CameraPrior) -> Camera:
        """The state's camera on this picture's pixels."""
        return state.camera(prior.principal_point, 1, 1).resized(self.size, self.size, self.scale, self.offset)


def picture_of(crop: FaceCrop, blur: float, device: torch.device | str = "cpu") -> Picture:
    """The crop as the fit sees it, blurred by `blur` pixels so that the gradient reaches beyond one pixel."""
    pixels = np.asarray(cv2.GaussianBlur(crop.pixels.astype(np.float32) / 255, (0, 0), blur), np.float32)
    scale = 1.0 / crop.scale
    offset = tuple(float(value) for value in -crop.crop_to_photo[:, 2] * scale)
    gradient = image_gradient(pixels)
    inside = torch.from_numpy(crop.is_inside)
    return Picture(torch.from_numpy(pixels).to(device), gradient.to(device), inside.to(device), scale, (offset[0], offset[1]))


@dataclass(frozen=True)
class View:
    """A state seen on a picture: visible pixels, prediction and residual.

    Attributes:
        vertices: model space, mm.
        pixels: what is visible.
        harmonics: of the camera-space normals at the pixels.
        colour: the photo's, sRGB-encoded.
        prediction: the model's.
        pixel_area: square millimetres, at the face's distance, in one pixel.
    """

    vertices: Float[Tensor, "vertices 3"]
    pixels: VisiblePixels
    harmonics: Float[Tensor, "pixels 9"]
    colour: Float[Tensor, "pixels 3"]
    prediction: Prediction
    pixel_area: float

    @property
    def residual(self) -> Float[Tensor, "pixels 3"]:
        """Photo minus prediction."""
        return self.colour - self.prediction.colour

    def relit(self, tables: PixelTables, state: FaceState) -> View:
        """The same geometry with another state's albedo and lighting."""
        return dataclasses.replace(self, prediction=predict(tables, state, self.pixels, self.harmonics))


def view(tables: PixelTables, state: FaceState, picture: Picture, prior: CameraPrior) -> View:
    """What the state predicts on a picture.

    Raises:
        FitError: nothing of the face is visible.
    """
    camera = picture.camera(state, prior)
    vertices = tables.model.decode_shape(state.shape.float(), state.expression.float())
    pixels = visible_pixels(tables, vertices, camera)
    pixels = pixels.chosen(picture.is_inside[pixels.rows, pixels.columns])
    if len(pixels) < LEAST_PIXELS:
        raise FitError("the face lies outside the photo or shows its back", "give landmarks yourself with --landmarks-file")
    normals = pixels.interpolate(vertex_normals(vertices[None], tables.model.triangles)[0])
    normals = torch.nn.functional.normalize(normals @ state.rotation.float().T, dim=-1)
    harmonics = spherical_harmonics(normals)
    colour = picture.pixels[pixels.rows, pixels.columns]
    area = float(state.translation[2] / camera.focal_length) ** 2
    return View(vertices, pixels, harmonics, colour, predict(tables, state, pixels, harmonics), area)


def noise_level(residual: Float[Tensor, "pixels 3"], inlier: Float[Tensor, "pixels"]) -> float:
    """Standard deviation of the inliers' residuals, from their weighted median."""
    size = residual.abs().mean(-1)
    order = size.argsort()
    cumulative = inlier[order].cumsum(0)
    if float(cumulative[-1]) <= 0:
        return 1.0
    middle = int(torch.searchsorted(cumulative, 0.5 * cumulative[-1]))
    # The mean of three absolute normal deviates has a median of about 0.78 of the standard deviation.
    return float(size[order[min(middle, len(order) - 1)]]) / 0.78


def solve_appearance(
    tables: PixelTables,
    state: FaceState,
    seen: View,
    inlier: Float[Tensor, "pixels"],
    noise: float,
    known: CoefficientPrior | None = None,
) -> FaceState:
    """One step on albedo and lighting only; `known` is the prior of albedo, by default the face model's own."""
    jacobian = appearance_jacobian(tables, seen.pixels, seen.harmonics, seen.prediction)
    matrix, right = _normal_equations(jacobian, seen, inlier, noise, CAUTIOUS_AREA)
    albedo = len(state.albedo)
    _add_appearance_prior(matrix, right, state, known)
    step = solve_step(matrix, right)
    zero = step.new_zeros(tables.geometry_size), step.new_zeros(POSE_SIZE)
    return state.moved(*zero, step[:albedo], step[albedo:])


def solve_all(
    tables: PixelTables,
    state: FaceState,
    seen: View,
    inlier: Float[Tensor, "pixels"],
    noise: float,
    picture: Picture,
    prior: CameraPrior,
    landmarks: LandmarkTerm,
    known: FacePrior | None = None,
    beat: Beat = quiet,
) -> FaceState:
    """One step on everything: shape, expression, pose, focal length, albedo and lighting.

    `known` is the prior of the coefficients, by default the face model's own; `beat` is called at every part of the step.
    """
    known = known or FacePrior.standard(tables.model)
    camera = picture.camera(state, prior)
    gradient = picture.gradient[seen.pixels.rows, seen.pixels.columns]
    geometry = geometry_jacobian(tables, state, seen.vertices, seen.pixels, seen.prediction, gradient, camera, beat)
    beat()
    # The residual falls as the prediction rises, so the two halves have opposite signs.
    jacobian = torch.cat([-geometry, appearance_jacobian(tables, seen.pixels, seen.harmonics, seen.prediction)], -1)
    beat()
    matrix, right = _normal_equations(jacobian, seen, inlier, noise, INDEPENDENT_AREA)
    beat()
    count = tables.geometry_size + POSE_SIZE
    landmark_matrix, landmark_right, _ = landmarks.normal_equations(state, prior)
    matrix[:count, :count] += landmark_matrix
    right[:count] += landmark_right
    add_prior(matrix[:count, :count], right[:count], state, prior, known.geometry)
    _add_appearance_prior(matrix[count:, count:], right[count:], state, known.albedo)
    step = solve_step(matrix, right)
    size = tables.geometry_size
    albedo = count + len(state.albedo)
    return state.moved(step[:size], step[size:count], step[count:albedo], step[albedo:]).bounded(tables.model)


def _normal_equations(
    jacobian: Float[Tensor, "pixels 3 n"], seen: View, inlier: Float[Tensor, "pixels"], noise: float, independent_area: float
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n"]]:
    """Gauss-Newton matrix and right-hand side, float64, of the weighted colour residuals (Student's t against what the mask missed)."""
    noise = max(noise, LEAST_NOISE)
    distance = seen.residual.square().sum(-1) / noise**2
    robust = 1 / (1 + distance / 9)
    weight = inlier * robust * min(1.0, seen.pixel_area / independent_area) / noise**2
    root = weight.sqrt()[:, None]
    rows = (jacobian * root[..., None]).flatten(0, 1)
    values = (seen.residual * root).flatten()
    return (rows.T @ rows).double(), (rows.T @ values).double()


def _add_appearance_prior(
    matrix: Float[Tensor, "n n"], right: Float[Tensor, "n"], state: FaceState, known: CoefficientPrior | None
) -> None:
    """Adds the priors of albedo and of lighting to normal equations, in place."""
    albedo = len(state.albedo)
    known = known or CoefficientPrior.standard(albedo)
    index = torch.arange(albedo)
    matrix[index, index] += known.precision
    right[:albedo] -= known.precision * (state.albedo - known.mean)
    precision, deviation = _lighting_deviation(state)
    matrix[albedo : albedo + LIGHTING_SIZE, albedo : albedo + LIGHTING_SIZE] += precision.to(matrix.device)
    right[albedo:] -= (precision @ deviation).to(right.device)


def _lighting_deviation(state: FaceState) -> tuple[Float[Tensor, "27 27"], Float[Tensor, "27"]]:
    """Inverse covariance of the lighting and its distance from plain grey ambient light."""
    ambient = state.lighting[0].mean().cpu()
    deviation = state.lighting.cpu().clone()
    deviation[0] -= ambient
    return lighting_precision(float(ambient)), deviation.flatten()


def log_appearance_prior(state: FaceState, known: CoefficientPrior | None = None) -> float:
    """Log prior, up to a constant, of albedo and lighting; `known` is that of albedo, by default the face model's own."""
    precision, deviation = _lighting_deviation(state)
    known = known or CoefficientPrior.standard(len(state.albedo))
    return known.log_density(state.albedo) - 0.5 * float(deviation @ precision @ deviation)


def lighting_precision(ambient: float) -> Float[Tensor, "27 27"]:
    """Inverse covariance of the lighting coefficients for an ambient coefficient of `ambient`."""
    ambient = max(abs(ambient), 0.05)
    mean = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    tint = torch.eye(3, dtype=torch.float64) - mean
    blocks = []
    for band, count in enumerate((1, 3, 5)):
        block = mean / (LIGHTING_SPREAD[band] * ambient) ** 2 + tint / (LIGHTING_TINT_SPREAD[band] * ambient) ** 2
        blocks += [block] * count
    return torch.block_diag(*blocks)
