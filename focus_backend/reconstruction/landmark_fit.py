"""Where the face is and what it is roughly like, from landmarks alone: the most probable theta under the detector's known noise (eq 7)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import FitError
from focus_backend.morphable.face_model import FaceModel, SurfacePoints
from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.state import DEPTH, POSE_SIZE, CameraPrior, CoefficientPrior, FaceState
from focus_backend.rendering import ambient_lighting
from focus_backend.rendering.camera import cross_matrix

_ITERATIONS = 14
# The first steps find the pose; the face's own coefficients are held back until it is roughly right.
_POSE_ITERATIONS = 4
_HOLD = 100.0
# Millimetres; a face that far away is a point.
FARTHEST = 1e6
REMEDY = "check the landmarks, or give your own with --landmarks-file"


@dataclass(frozen=True)
class LandmarkTerm:
    """Landmarks as evidence: observed positions, where they lie on the model, and the inverse covariance of their errors.

    Attributes:
        observed: photo pixels.
        bias: expected error, mm at the face's distance, (x right, y down).
        precision: inverse covariance of the errors in mm.
        mean: positions on the mean face, model space, mm.
        basis: offsets of one standard deviation of each shape and expression coefficient, mm.
        inflation: how much larger than the detector's own the covariance was made.
    """

    observed: Float[Tensor, "points 2"]
    bias: Float[Tensor, "points 2"]
    precision: Float[Tensor, "coordinates coordinates"]
    mean: Float[Tensor, "points 3"]
    basis: Float[Tensor, "geometry points 3"]
    inflation: float

    def normal_equations(
        self, state: FaceState, prior: CameraPrior
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n"], Float[Tensor, "points 2"]]:
        """Gauss-Newton matrix and right-hand side over (shape, expression, pose), and the residuals in mm."""
        geometry = torch.cat([state.shape, state.expression])
        turned = (self.mean + torch.tensordot(geometry, self.basis, dims=1)) @ state.rotation.T
        position = turned + state.translation
        focal = state.log_focal.exp()
        pixels, slope = project_with_slope(position, focal, prior.principal_point)
        jacobian = torch.cat(
            [
                torch.einsum("pij,gpj->pig", slope, self.basis @ state.rotation.T),
                pose_jacobian(slope, turned, pixels - prior.principal_point),
            ],
            dim=-1,
        )
        millimetres = -position[:, 2].mean() / focal
        residual = (self.observed - pixels) * millimetres - self.bias
        jacobian = (jacobian * millimetres).flatten(0, 1)
        weighted = self.precision @ jacobian
        return jacobian.T @ weighted, weighted.T @ residual.flatten(), residual


def landmark_term(
    model: FaceModel,
    points: SurfacePoints,
    observed: Float[Tensor, "points 2"],
    bias: Float[Tensor, "points 2"],
    precision: Float[Tensor, "coordinates coordinates"],
    inflation: float = 1.0,
) -> LandmarkTerm:
    """Evidence from `observed` (photo pixels) positions of `points` of the model."""
    basis = torch.cat([model.shape_basis, model.expression_basis])
    triangles = model.triangles
    return LandmarkTerm(
        observed.double(),
        bias.double(),
        precision.double(),
        points.on(model.mean_shape, triangles).double(),
        points.on(basis, triangles).double(),
        inflation,
    )


def project_with_slope(
    position: Float[Tensor, "points 3"], focal: Float[Tensor, ""], principal_point: Float[Tensor, "2"]
) -> tuple[Float[Tensor, "points 2"], Float[Tensor, "points 2 3"]]:
    """Pixels of camera-space points and their derivative by position."""
    x, y, z = position.unbind(-1)
    inverse = -1 / z
    zero = torch.zeros_like(x)
    slope = focal * torch.stack(
        [
            torch.stack([inverse, zero, x * inverse**2], -1),
            torch.stack([zero, -inverse, -y * inverse**2], -1),
        ],
        -2,
    )
    pixels = principal_point + focal * torch.stack([x * inverse, -y * inverse], -1)
    return pixels, slope


def pose_jacobian(
    slope: Float[Tensor, "points 2 3"], turned: Float[Tensor, "points 3"], from_centre: Float[Tensor, "points 2"]
) -> Float[Tensor, "points 2 7"]:
    """Derivative of pixels by a turn in camera space, the translation and the log focal length."""
    turn = -slope @ cross_matrix(turned)
    return torch.cat([turn, slope, from_centre[..., None]], dim=-1)


def initial_state(model: FaceModel, term: LandmarkTerm, prior: CameraPrior, geometry: Float[Tensor, "geometry"] | None = None) -> FaceState:
    """The face turned towards the camera, at the roll, distance and place that map its points best onto the landmarks.

    Args:
        model: its face model.
        term: the landmarks.
        prior: of the camera.
        geometry: shape then expression of the face, standard deviations; the mean face by default.
    """
    like = term.mean
    focal = math.exp(prior.log_focal)
    geometry = like.new_zeros(len(term.basis)) if geometry is None else geometry.to(like)
    points = term.mean + torch.tensordot(geometry, term.basis, dims=1)
    flat = points[:, :2] - points[:, :2].mean(0)
    seen = (term.observed - prior.principal_point) * like.new_tensor([1.0, -1.0])
    middle = seen.mean(0)
    # The turn of two flat point sets against each other is the phase of one complex number; of a profile too, for its height tells.
    model_points, seen_points = (torch.complex(points[:, 0], points[:, 1]) for points in (flat, seen - middle))
    roll = (model_points.conj() * seen_points).sum().angle()
    cosine, sine = roll.cos(), roll.sin()
    rotation = torch.eye(3).to(like)
    rotation[0, 0], rotation[0, 1], rotation[1, 0], rotation[1, 1] = cosine, -sine, sine, cosine
    distance = focal * flat.norm() / (seen - middle).norm().clamp(min=1e-6)
    place = torch.cat([middle * distance / focal, -distance[None]])
    return FaceState(
        shape=geometry[: model.shape_size],
        expression=geometry[model.shape_size :],
        albedo=like.new_zeros(model.albedo_size),
        lighting=ambient_lighting(1.0, dtype=torch.float64).to(model.device),
        rotation=rotation,
        translation=place - rotation @ points.mean(0),
        log_focal=like.new_tensor(prior.log_focal),
    )


def fit_landmarks(
    model: FaceModel,
    term: LandmarkTerm,
    prior: CameraPrior,
    coefficients: CoefficientPrior | None = None,
    start: Float[Tensor, "geometry"] | None = None,
    beat: Beat = quiet,
) -> FaceState:
    """Theta (without albedo and lighting) that is most probable given the landmarks.

    Args:
        model: the face model.
        term: the landmarks.
        prior: of the camera.
        coefficients: prior of shape and expression; the face model's own by default.
        start: shape then expression that are held while the pose is found; the prior's mean by default.
        beat: called at every step.

    Raises:
        FitError: the landmarks admit no face in front of the camera.
    """
    geometry = model.shape_size + model.expression_size
    coefficients = coefficients or CoefficientPrior.standard(geometry)
    held = coefficients if start is None else dataclasses.replace(coefficients, mean=start)
    state = initial_state(model, term, prior, held.mean)
    for iteration in range(_ITERATIONS):
        beat()
        matrix, right, _ = term.normal_equations(state, prior)
        if iteration < _POSE_ITERATIONS:
            add_prior(matrix, right, state, prior, held, _HOLD)
        else:
            add_prior(matrix, right, state, prior, coefficients)
        # A little damping keeps the turn bounded while the face is still far off.
        turn = torch.arange(geometry, geometry + 3)
        matrix[turn, turn] += 0.1
        step = _kept_in_front(solve_step(matrix, right), state, geometry + DEPTH)
        state = state.moved(step[:geometry], step[geometry:]).bounded(model)
        if not -FARTHEST < float(state.translation[2]) < -1:
            raise FitError("no face in front of the camera explains the landmarks", REMEDY)
    return state


def _kept_in_front(step: Float[Tensor, "n"], state: FaceState, depth: int) -> Float[Tensor, "n"]:
    """As much of a step as does not take more than half of the distance away; linear in the depth, it would end behind the camera."""
    nearer, allowed = float(step[depth]), -0.5 * float(state.translation[2])
    return step * (allowed / nearer) if nearer > allowed > 0 else step


def fit_likeliest(
    model: FaceModel,
    term: LandmarkTerm,
    priors: Sequence[CameraPrior],
    coefficients: CoefficientPrior | None = None,
    start: Float[Tensor, "geometry"] | None = None,
    beat: Beat = quiet,
) -> tuple[FaceState, CameraPrior]:
    """The most probable of the landmark fits under several camera priors, and that prior; arguments as those of `fit_landmarks`.

    Raises:
        FitError: the landmarks admit no face in front of any of the cameras.
    """
    found, fault = [], None
    for prior in priors:
        try:
            state = fit_landmarks(model, term, prior, coefficients, start, beat)
        except FitError as error:
            fault = error
            continue
        found.append((_log_probability(term, state, prior, coefficients), state, prior))
    if not found:
        raise fault or ValueError("no camera prior was given")
    return max(found, key=lambda one: one[0])[1:]


def _log_probability(term: LandmarkTerm, state: FaceState, prior: CameraPrior, coefficients: CoefficientPrior | None) -> float:
    """Of landmarks, geometry and camera, up to a constant that does not depend on the camera prior."""
    geometry = torch.cat([state.shape, state.expression])
    known = coefficients or CoefficientPrior.standard(len(geometry))
    residual = term.normal_equations(state, prior)[2].flatten()
    return known.log_density(geometry) + prior.log_density(state) - 0.5 * float(residual @ term.precision @ residual)


def solve_step(matrix: Float[Tensor, "n n"], right: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The step that normal equations ask for.

    Raises:
        FitError: they have no finite solution.
    """
    step, fault = torch.linalg.solve_ex(matrix, right)
    if int(fault) != 0 or not bool(torch.isfinite(step).all()):
        raise FitError("the fit lost the face", REMEDY)
    return step


def add_prior(
    matrix: Float[Tensor, "n n"],
    right: Float[Tensor, "n"],
    state: FaceState,
    prior: CameraPrior,
    coefficients: CoefficientPrior | None = None,
    hold: float = 1.0,
) -> None:
    """Adds the priors of shape, expression, focal length and distance to normal equations, in place.

    Args:
        matrix: Gauss-Newton matrix over (shape, expression, pose).
        right: right-hand side.
        state: where they hold.
        prior: of the camera.
        coefficients: of shape and expression; the face model's own by default.
        hold: how often the priors count.
    """
    values = torch.cat([state.shape, state.expression])
    count = len(values)
    known = coefficients or CoefficientPrior.standard(count)
    index = torch.arange(count)
    matrix[index, index] += hold * known.precision
    right[:count] -= hold * known.precision * (values - known.mean)
    weight = hold / prior.log_focal_spread**2
    matrix[count + POSE_SIZE - 1, count + POSE_SIZE - 1] += weight
    right[count + POSE_SIZE - 1] -= weight * (float(state.log_focal) - prior.log_focal)
    # A first guess may lie behind the camera.
    distance, expected = max(-float(state.translation[2]), 1.0), math.exp(prior.log_distance)
    error = math.log(distance / expected)
    weight = hold / prior.log_distance_spread**2 / distance
    # The slope between the two distances instead of that at the first, which would step behind the camera from afar.
    slope = error / (distance - expected) if distance != expected else 1 / distance
    matrix[count + DEPTH, count + DEPTH] += weight * slope
    right[count + DEPTH] += weight * error
