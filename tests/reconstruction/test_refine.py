"""The fit that starts from the networks' answer, and the priors it is held by."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from focus_backend.errors import WeightsError
from focus_backend.face_crop import crop_face
from focus_backend.landmarks.user import LANDMARKS68_NAMES
from focus_backend.photo import Photo
from focus_backend.reconstruction.encoder_skill import INFLATION, LEAST_SPREAD, EncoderSkill, encoder_skills
from focus_backend.reconstruction.fitting import Fit
from focus_backend.reconstruction.landmark_fit import add_prior, fit_landmarks, initial_state
from focus_backend.reconstruction.photometric_fit import log_appearance_prior
from focus_backend.reconstruction.reconstructor import Reconstructor
from focus_backend.reconstruction.state import CoefficientPrior, FacePrior
from reconstruction.people import PRIOR, clicked, f1, random_person, shape_error, term_of
from reconstruction.test_network import some_outputs


@pytest.fixture(scope="module")
def person(model):
    """A person whose truth is known."""
    return random_person(model, 0)


@pytest.fixture(scope="module")
def photo(person) -> Photo:
    """Their photo."""
    return Photo(person.pixels, "person.png", person.pixels.shape[1::-1])


@pytest.fixture(scope="module")
def reconstructed(model, person, photo):
    """Runs a method with weights on the person's photo, from clicked landmarks."""

    def run(method, weights=None):
        (face,) = Reconstructor.load(model, method=method, weights=weights).reconstruct(photo, landmarks=clicked(model, person))
        return face

    return run


@pytest.fixture(scope="module")
def fitted(reconstructed):
    """The fit without networks."""
    return reconstructed("fit")


def colour_difference(face, region: np.ndarray) -> float:
    """Mean absolute difference between rendering and photo where both have the face."""
    both = region & (face.face_mask | face.outlier_mask)
    return float(np.abs(face.rendering.astype(float) - face.photo)[both].mean())


def test_refining_improves_on_the_networks(model, person, reconstructed, plain_weights):
    network, refined = (reconstructed(method, plain_weights) for method in ("network", "refine"))
    assert (network.method, refined.method) == ("network", "refine")
    assert network.weights_sha256 == refined.weights_sha256 is not None
    assert colour_difference(refined, person.region) < 0.5 * colour_difference(network, person.region)
    assert shape_error(model, refined.shape, person.truth.shape) < shape_error(model, network.shape, person.truth.shape)
    assert f1(refined.face_mask, person.region) > max(0.95, f1(network.face_mask, person.region))
    assert {"networks", "landmark_fit", "fit"} <= set(refined.timings)


@pytest.mark.slow
def test_refining_improves_on_the_networks_in_a_photo(model, astronaut, plain_weights):
    faces = [Reconstructor.load(model, method=method, weights=plain_weights).reconstruct(astronaut)[0] for method in ("network", "refine")]
    chosen = faces[1].face_mask & (faces[0].face_mask | faces[0].outlier_mask)
    assert colour_difference(faces[1], chosen) < 0.5 * colour_difference(faces[0], chosen)
    assert faces[1].warnings == ()
    # Her fringe is no face, which networks that were never trained cannot know.
    assert faces[1].outlier_mask.sum() > 5 * faces[0].outlier_mask.sum()


def test_networks_that_know_nothing_leave_the_fit_as_it_is(model, reconstructed, fitted, make_weights):
    """The mean face as start and a mask without any face say no more than the face model's prior."""
    refined = reconstructed("refine", make_weights(model, face=-8.0))
    for name in ("shape", "expression", "albedo", "lighting", "neutral_vertices"):
        assert torch.equal(getattr(refined, name), getattr(fitted, name)), name
    assert np.array_equal(refined.face_mask, fitted.face_mask)


@pytest.mark.slow
def test_an_answer_known_to_be_good_is_kept(model, person, reconstructed, make_weights):
    outputs = some_outputs(model)
    answer = outputs[: model.shape_size]
    loose = reconstructed("refine", make_weights(model, outputs))
    near = {"shape_spread": 0.1, "shape_variation": 1.0, "expression_spread": [0.1] * model.expression_size, "expression_variation": 1}
    held = reconstructed("refine", make_weights(model, outputs, training=near))
    assert (held.shape - answer).norm() < 0.3 * (loose.shape - answer).norm()
    assert (held.albedo - outputs[model.shape_size + model.expression_size :][: model.albedo_size] * 3).norm() > 1
    assert colour_difference(held, person.region) < 25


def test_the_true_theta_with_a_small_spread_beats_the_fit(model, person, reconstructed, fitted, make_weights):
    outputs = torch.zeros_like(some_outputs(model))
    outputs[: model.shape_size] = person.truth.shape.float()
    refined = reconstructed("refine", make_weights(model, outputs, training={"shape_spread": 0.3, "shape_variation": 1.0}))
    truth = person.truth.shape
    assert shape_error(model, refined.shape, truth) < 0.6 * shape_error(model, fitted.shape, truth)


def test_the_standard_prior_is_the_face_model_s(model, person):
    term, _ = term_of(model, clicked(model, person))
    size = model.shape_size + model.expression_size
    first, second = fit_landmarks(model, term, PRIOR), fit_landmarks(model, term, PRIOR, CoefficientPrior.standard(size))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_a_prior_s_slope_is_that_of_its_density(tiny_model, tiny_state):
    size = tiny_model.shape_size + tiny_model.expression_size
    random = torch.Generator().manual_seed(0)
    prior = CoefficientPrior(torch.randn(size, generator=random).double(), torch.rand(size, generator=random).double() + 0.5)
    matrix, right = torch.zeros(size + 7, size + 7, dtype=torch.float64), torch.zeros(size + 7, dtype=torch.float64)
    add_prior(matrix, right, tiny_state, PRIOR, prior)
    values = torch.cat([tiny_state.shape, tiny_state.expression]).requires_grad_()
    density = -0.5 * ((values - prior.mean) / prior.spread).square().sum()
    (slope,) = torch.autograd.grad(density, values)
    assert torch.allclose(right[:size], slope)
    assert torch.allclose(matrix.diagonal()[:size], prior.spread**-2)
    assert prior.log_density(values.detach()) == pytest.approx(float(density.detach()))


def test_an_answer_counts_by_what_it_adds_to_the_faces_of_training():
    """A linear encoder of noisy measurements: its skill leads to the posterior under the face model's own prior, worked out directly."""
    random = torch.Generator().manual_seed(0)
    variation, noise = torch.tensor([1.0, 0.4], dtype=torch.float64), torch.tensor([0.5, 0.3], dtype=torch.float64)
    truth = variation * torch.randn(200_000, 2, generator=random, dtype=torch.float64)
    measured = truth + noise * torch.randn(200_000, 2, generator=random, dtype=torch.float64)
    answers = measured * variation**2 / (variation**2 + noise**2)
    skill = EncoderSkill((truth - answers).square().mean(0).sqrt(), truth.square().mean(0).sqrt())
    prior = skill.prior(answers[0])
    precision = 1 / (INFLATION * noise**2)
    assert torch.allclose(prior.precision, 1 + precision, rtol=0.02)
    assert torch.allclose(prior.mean, measured[0] * precision / (1 + precision), rtol=0.02)


def test_an_encoder_that_explains_nothing_is_not_heard():
    spread = torch.tensor([0.36, 1.2, 0.1], dtype=torch.float64)
    prior = EncoderSkill(spread, torch.tensor([0.36, 1.0, 0.0], dtype=torch.float64)).prior(torch.ones(3, dtype=torch.float64))
    assert prior.mean.tolist() == [0, 0, 0]
    assert prior.spread.tolist() == [1, 1, 1]


def test_skills_are_read_from_the_training_notes(tiny_model, make_weights):
    loaded = Reconstructor.load(tiny_model, method="refine", weights=make_weights(tiny_model)).strategy.networks.weights
    assert encoder_skills(loaded, tiny_model) == {}

    def skills(**notes):
        return encoder_skills(dataclasses.replace(loaded, description={"training": notes}), tiny_model)

    each = [0.2 * (index + 1) for index in range(tiny_model.albedo_size)]
    found = skills(shape_spread=0.0, shape_variation=1, albedo_spread=each, albedo_variation=each, expression_spread=0.3)
    assert set(found) == {"shape", "albedo"}
    assert found["shape"].spread.tolist() == [LEAST_SPREAD] * tiny_model.shape_size
    assert found["albedo"].variation.tolist() == each
    for wrong in (-1.0, "much", [0.5], float("nan"), [1.0] * tiny_model.shape_size + [2.0], True):
        with pytest.raises(WeightsError, match="shape_spread"):
            skills(shape_spread=wrong, shape_variation=1.0)


@pytest.fixture
def tiny_state(tiny_model, model, person):
    """A state of the tiny model that is not its mean."""
    term, _ = term_of(model, clicked(model, person))
    state, random = initial_state(model, term, PRIOR), torch.Generator().manual_seed(1)
    sizes = {"shape": tiny_model.shape_size, "expression": tiny_model.expression_size, "albedo": tiny_model.albedo_size}
    return dataclasses.replace(state, **{name: torch.randn(size, generator=random).double() for name, size in sizes.items()})


def test_the_albedo_s_prior_counts_in_trials(tiny_state):
    near = CoefficientPrior(tiny_state.albedo, torch.full_like(tiny_state.albedo, 0.2))
    far = CoefficientPrior(tiny_state.albedo + 1, torch.full_like(tiny_state.albedo, 0.2))
    assert log_appearance_prior(tiny_state, near) > log_appearance_prior(tiny_state) > log_appearance_prior(tiny_state, far)


def test_the_standard_face_prior_fits_the_model(tiny_model):
    prior = FacePrior.standard(tiny_model)
    assert len(prior.geometry.mean) == tiny_model.shape_size + tiny_model.expression_size
    assert len(prior.albedo.spread) == tiny_model.albedo_size
    assert prior.geometry.log_density(prior.geometry.mean) == 0


def test_a_start_is_held_while_the_pose_is_found(model, person):
    """With one pixel's worth of five points shape is hardly known: the start shows in the pose, not in the end."""
    term, _ = term_of(model, clicked(model, person, LANDMARKS68_NAMES))
    start = torch.cat([person.truth.shape, person.truth.expression])
    placed, mean = initial_state(model, term, PRIOR, start), initial_state(model, term, PRIOR)
    assert torch.equal(placed.shape, person.truth.shape)
    assert not torch.equal(placed.translation, mean.translation)
    from_start, from_mean = fit_landmarks(model, term, PRIOR, start=start), fit_landmarks(model, term, PRIOR)
    assert (from_start.shape - from_mean.shape).abs().max() < 0.05


def made_fit(state, angle: float) -> Fit:
    """A fit whose mask is face on the left half of a turned crop of a photo of 200 x 200 pixels."""
    crop = crop_face(np.zeros((200, 200, 3), np.uint8), (100.0, 90.0), 120.0, 64, angle)
    region = np.zeros((64, 64), bool)
    region[8:56, 8:56] = True
    inlier = np.where(region, np.arange(64)[None] < 32, 0).astype(np.float32)
    return Fit(state, inlier, region, crop, 0.05, torch.tensor([100.0, 90.0], dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_a_mask_keeps_its_place_on_another_grid(tiny_state, angle):
    fit = made_fit(tiny_state, angle)
    grid = crop_face(np.zeros((200, 200, 3), np.uint8), (95.0, 95.0), 180.0, 150, 0.3)
    moved = fit.inlier_on(grid.crop_to_photo, 150, 150)
    columns, rows = np.meshgrid(np.arange(150) + 0.5, np.arange(150) + 0.5)
    places = fit.crop.to_crop(grid.to_photo(np.stack([columns, rows], -1).astype(np.float64)))
    x, y = places[..., 0], places[..., 1]
    inside = (abs(x - 32) < 23) & (abs(y - 32) < 23)
    assert (moved[(abs(x - 32) > 26) | (abs(y - 32) > 26)] == -1).all()
    assert (moved[inside & (x < 31)] > 0.99).all()
    assert (moved[inside & (x > 33)] < 0.01).all()
    assert (moved[inside & (x > 33)] >= 0).all()


def test_a_mask_of_no_known_skill_is_not_heard(reconstructed, make_weights, model):
    shapes = [reconstructed("refine", make_weights(model, face=-8.0, training=notes)).shape for notes in ({}, {"mask_explained": -0.5})]
    assert torch.equal(*shapes)
    with pytest.raises(WeightsError, match="mask_explained"):
        reconstructed("refine", make_weights(model, training={"mask_explained": "much"}))
