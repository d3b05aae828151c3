"""Pose, focal length and shape from landmarks alone."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch

from focus_backend.errors import FitError
from focus_backend.landmarks.detector import FIVE_POINT_NAMES
from focus_backend.morphable.face_model import SurfacePoints
from focus_backend.reconstruction.landmark_fit import LandmarkTerm, fit_landmarks, fit_likeliest, initial_state, landmark_term
from focus_backend.rendering import rotation_from_axis_angle
from reconstruction.people import PRIOR, SIDE, SMILE, clicked, degrees_between, project, random_person, shape_error, term_of

POINTS = 300


def exact_term(model, person, deviation=0.02):
    """True positions of points all over the face, believed to `deviation` mm."""
    random = torch.Generator().manual_seed(0)
    inside = model.triangle_in_face.nonzero()[:, 0]
    triangles = inside[torch.randint(len(inside), (POINTS,), generator=random)]
    points = SurfacePoints(tuple(f"point{i}" for i in range(POINTS)), triangles, torch.full((POINTS, 3), 1 / 3))
    observed = project(person.truth, points.on(person.vertices, model.triangles))
    precision = torch.eye(2 * POINTS, dtype=torch.float64) / deviation**2
    return landmark_term(model, points, observed, torch.zeros(POINTS, 2), precision)


def activations(model, state):
    return dict(zip(model.expression_names, (state.expression * model.expression_scale).tolist(), strict=True))


def is_finite(state):
    return all(bool(torch.isfinite(getattr(state, field.name)).all()) for field in dataclasses.fields(state))


@pytest.mark.parametrize(("seed", "expression"), [(0, {}), (4, SMILE)], ids=["neutral", "smile"])
def test_exact_landmarks_give_back_everything(model, seed, expression):
    person = random_person(model, seed, expression=expression)
    found, truth = fit_landmarks(model, exact_term(model, person), PRIOR), person.truth
    # The prior still pulls a little: a coefficient of 2 against measurements of 0.02 mm.
    assert shape_error(model, found.shape, truth.shape) < 0.05
    assert degrees_between(found.rotation, truth.rotation) < 0.02
    assert abs(float(found.log_focal - truth.log_focal)) < 2e-3
    assert (found.translation - truth.translation).abs().max() < 1.0
    assert (found.shape - truth.shape).abs().max() < 0.1
    for name, activation in activations(model, found).items():
        assert abs(activation - expression.get(name, 0.0)) < 0.02, name


def test_a_smile_is_not_identity(model):
    neutral, smiling = (random_person(model, 1, expression=expression) for expression in ({}, SMILE))
    found = [fit_landmarks(model, term_of(model, clicked(model, person))[0], PRIOR) for person in (neutral, smiling)]
    apart = float((smiling.vertices - neutral.vertices).norm(dim=-1)[model.quads[model.quad_in_face][:, 0]].mean())
    assert apart > 1.0
    assert shape_error(model, found[0].shape, found[1].shape) < 0.6 * apart
    smile = activations(model, found[1])
    assert min(smile["mouthSmileLeft"], smile["mouthSmileRight"]) > 0.25
    assert max(activations(model, found[0]).values()) < 0.3


def test_clicked_landmarks_tell_more_than_the_mean_face(model):
    errors = []
    for seed in range(6):
        person = random_person(model, seed)
        found = fit_landmarks(model, term_of(model, clicked(model, person))[0], PRIOR)
        errors.append([shape_error(model, shape, person.truth.shape) for shape in (found.shape, torch.zeros_like(found.shape))])
    fitted, mean = np.mean(errors, 0)
    # 2.3 against 3.7 mm when this was written.
    assert fitted < 0.8 * mean


@pytest.mark.parametrize("seed", range(4))
def test_five_points_place_a_sane_face(model, seed):
    person = random_person(model, seed)
    term, _ = term_of(model, clicked(model, person, FIVE_POINT_NAMES))
    found = fit_landmarks(model, term, PRIOR)
    assert degrees_between(found.rotation, person.truth.rotation) < 10
    # Ten numbers say next to nothing of 132 coefficients: the face must stay near the mean.
    assert found.shape.norm() < 2
    assert found.expression.norm() < 2
    assert term.normal_equations(found, PRIOR)[2].norm(dim=-1).max() < 3
    assert abs(float(found.log_focal) - PRIOR.log_focal) < 3 * PRIOR.log_focal_spread


@pytest.mark.parametrize(("axis", "degrees"), [(2, 45), (2, -90), (2, 135), (2, 180), (1, 60), (1, -85), (0, 40), (0, -40)])
def test_turned_heads_are_found(model, axis, degrees):
    person = random_person(model, 1, yaw=0.0)
    turn = torch.zeros(3, dtype=torch.float64)
    turn[axis] = math.radians(degrees)
    truth = dataclasses.replace(person.truth, rotation=rotation_from_axis_angle(turn) @ person.truth.rotation)
    person = dataclasses.replace(person, truth=truth)
    found = fit_landmarks(model, term_of(model, clicked(model, person))[0], PRIOR)
    assert degrees_between(found.rotation, truth.rotation) < 5
    assert shape_error(model, found.shape, truth.shape) < shape_error(model, torch.zeros_like(found.shape), truth.shape)


CLOSE = dataclasses.replace(PRIOR, log_distance=math.log(250.0), log_distance_spread=0.3, share=0.15)


@pytest.mark.parametrize(("distance", "expected"), [(220.0, CLOSE), (900.0, PRIOR)], ids=["selfie", "portrait"])
def test_landmarks_tell_a_selfie_from_a_portrait(model, distance, expected):
    person = random_person(model, 3)
    away = person.truth.translation * torch.tensor([1.0, 1.0, 0.0]) - torch.tensor([0.0, 0.0, distance])
    truth = dataclasses.replace(person.truth, translation=away, log_focal=torch.tensor(math.log(0.5 * SIDE * distance / 190)).double())
    person = dataclasses.replace(person, truth=truth)
    term = term_of(model, clicked(model, person))[0]
    found, prior = fit_likeliest(model, term, [PRIOR, CLOSE])
    assert prior is expected
    assert abs(math.log(-float(found.translation[2]) / distance)) < math.log(1.3)
    # The order in which they are given does not matter, and one alone has no choice.
    assert fit_likeliest(model, term, [CLOSE, PRIOR])[1] is expected
    other = CLOSE if expected is PRIOR else PRIOR
    assert fit_likeliest(model, term, [other])[1] is other


@pytest.mark.parametrize("count", [68, 17], ids=["all", "jaw"])
@pytest.mark.parametrize("factor", [1e-6, 1e-2, 5.0, 30.0, 1e3, 1e6])
def test_points_as_far_apart_as_on_no_photo_are_refused_or_fitted(model, factor, count):
    person = random_person(model, 3)
    term = term_of(model, clicked(model, person))[0]
    middle = term.observed.mean(0)
    term = LandmarkTerm(
        (middle + factor * (term.observed - middle))[:count],
        term.bias[:count],
        term.precision[: 2 * count, : 2 * count],
        term.mean[:count],
        term.basis[:, :count],
        term.inflation,
    )
    try:
        found, _ = fit_likeliest(model, term, [PRIOR, CLOSE])
    except FitError:
        return
    assert is_finite(found)
    assert float(found.translation[2]) < 0


def test_a_density_falls_with_the_errors_of_focal_length_and_distance(model):
    middle = random_person(model, 0).truth
    middle = dataclasses.replace(
        middle, translation=torch.tensor([0.0, 0.0, -800.0]).double(), log_focal=torch.tensor(PRIOR.log_focal).double()
    )
    best = PRIOR.log_density(middle)
    for change in ({"log_focal": middle.log_focal + PRIOR.log_focal_spread}, {"translation": middle.translation * math.exp(0.45)}):
        assert math.isclose(best - PRIOR.log_density(dataclasses.replace(middle, **change)), 0.5, rel_tol=1e-6)
    assert math.isclose(best - dataclasses.replace(PRIOR, share=0.5).log_density(middle), math.log(2), rel_tol=1e-6)
    assert PRIOR.log_density(dataclasses.replace(middle, translation=-middle.translation)) == -math.inf


def test_the_first_guess_has_the_landmarks_size_and_place(model):
    person = random_person(model, 2)
    term, _ = term_of(model, clicked(model, person))
    start = initial_state(model, term, PRIOR)
    points = project(start, term.mean)
    # The eyes, not the landmarks' middle, are put at the landmarks' middle.
    assert (points.mean(0) - term.observed.mean(0)).norm() < 0.15 * SIDE
    assert 0.7 < float((points.amax(0) - points.amin(0)).norm() / (term.observed.amax(0) - term.observed.amin(0)).norm()) < 1.4


def _absurd(points):
    random = np.random.default_rng(0)
    middle = points.mean(0)
    return {
        "one place": np.full_like(points, 100.0),
        "nearly one place": 100 + random.normal(0, 1e-9, points.shape),
        "a line": np.stack([np.linspace(0, SIDE, len(points)), np.full(len(points), 200.0)], 1),
        "scattered": random.uniform(0, SIDE, points.shape),
        "mirrored": np.stack([SIDE - points[:, 0], points[:, 1]], 1),
        "transposed": points[:, ::-1].copy(),
        "tiny": middle + 1e-3 * (points - middle),
        "huge": 1e6 * points,
        "far outside": points + 1e5,
    }


@pytest.mark.parametrize("kind", _absurd(np.zeros((2, 2))))
@pytest.mark.parametrize("names", [68, 5])
def test_absurd_landmarks_end_in_an_answer_or_are_refused(model, kind, names):
    person = random_person(model, 0)
    detection = clicked(model, person) if names == 68 else clicked(model, person, FIVE_POINT_NAMES)
    term, _ = term_of(model, dataclasses.replace(detection, points=_absurd(detection.points)[kind]))
    # Any other exception fails the test.
    with contextlib.suppress(FitError):
        found = fit_landmarks(model, term, PRIOR)
        assert is_finite(found)
        assert found.translation[2] < 0


def test_landmarks_that_are_not_finite_are_refused(model):
    detection = clicked(model, random_person(model, 0))
    detection.points[3, 0] = math.nan
    with pytest.raises(FitError):
        fit_landmarks(model, term_of(model, detection)[0], PRIOR)


def test_hidden_landmarks_hurt_less_when_it_is_known(model):
    gains = []
    for seed in range(3):
        person = random_person(model, seed)
        detection = clicked(model, person)
        # A scarf: the jaw and the mouth are guessed, 20 pixels too low.
        hidden = torch.zeros(68)
        hidden[4:13] = hidden[48:] = 1
        detection.points[hidden.numpy() > 0, 1] += 20
        term, noise = term_of(model, detection)
        known = dataclasses.replace(term, precision=noise.precision(1e4 * hidden))
        trusting, careful = (
            shape_error(model, fit_landmarks(model, evidence, PRIOR).shape, person.truth.shape) for evidence in (term, known)
        )
        gains.append(careful / trusting)
    assert max(gains) < 1
    assert np.mean(gains) < 0.85


def test_correlated_errors_are_told_from_shape(model):
    person = random_person(model, 3)
    detection = clicked(model, person, error=0.3)
    drift = 8.0
    detection.points[27:36, 1] += drift
    term, noise = term_of(model, detection)
    together = torch.zeros(1, 136)
    together[0, 2 * 27 + 1 : 2 * 36 : 2] = drift
    known = dataclasses.replace(noise, factor=together).precision()
    naive, knowing = (
        shape_error(model, fit_landmarks(model, evidence, PRIOR).shape, person.truth.shape)
        for evidence in (term, dataclasses.replace(term, precision=known))
    )
    assert knowing < naive


def test_the_expected_error_is_taken_off(model):
    person = random_person(model, 5)
    term = exact_term(model, person, deviation=0.1)
    bias = torch.tensor([1.5, -2.0], dtype=torch.float64).expand(POINTS, 2)
    millimetres = -(project_depth(term, person)) / person.truth.log_focal.exp()
    shifted = dataclasses.replace(term, observed=term.observed + bias / millimetres, bias=bias)
    plain, corrected = (fit_landmarks(model, evidence, PRIOR) for evidence in (term, shifted))
    assert (plain.translation - corrected.translation).abs().max() < 1.0
    ignored = fit_landmarks(model, dataclasses.replace(shifted, bias=torch.zeros_like(bias)), PRIOR)
    assert abs(float(ignored.translation[1] - plain.translation[1])) > 1.5


def project_depth(term, person):
    """Mean camera-space z of the points, mm."""
    geometry = torch.cat([person.truth.shape, person.truth.expression])
    places = term.mean + torch.einsum("g,gpc->pc", geometry, term.basis)
    return ((places @ person.truth.rotation.T)[:, 2] + person.truth.translation[2]).mean()


def test_the_same_landmarks_give_the_same_face(model):
    term, _ = term_of(model, clicked(model, random_person(model, 1)))
    first, again = (fit_landmarks(model, term, PRIOR) for _ in range(2))
    assert all(torch.equal(getattr(first, field.name), getattr(again, field.name)) for field in dataclasses.fields(first))
