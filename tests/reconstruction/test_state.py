"""Theta, and the steps that change it."""

from __future__ import annotations

import dataclasses

import torch

from focus_backend.rendering import rotation_from_axis_angle
from reconstruction.people import PRIOR, SIDE, coefficients, degrees_between, project, random_person


def test_no_step_changes_nothing(model):
    state = random_person(model, 0).truth
    zero = torch.zeros(model.shape_size + model.expression_size, dtype=torch.float64)
    same = state.moved(zero, zero[:7], torch.zeros_like(state.albedo), zero[:27])
    for field in dataclasses.fields(state):
        assert torch.equal(getattr(same, field.name), getattr(state, field.name)), field.name


def test_a_step_reaches_each_part_and_only_it(model):
    state = random_person(model, 0).truth
    count = model.shape_size + model.expression_size
    step = torch.arange(count, dtype=torch.float64)
    pose = torch.tensor([0.0, 0.2, 0.0, 1.0, 2.0, 3.0, 0.1], dtype=torch.float64)
    moved = state.moved(step, pose, torch.ones_like(state.albedo), torch.arange(27, dtype=torch.float64))
    assert torch.allclose(moved.shape - state.shape, step[: model.shape_size])
    assert torch.allclose(moved.expression - state.expression, step[model.shape_size :])
    assert torch.allclose(moved.albedo - state.albedo, torch.ones_like(state.albedo))
    # Lighting steps are ordered harmonic by harmonic, colours within.
    assert torch.allclose((moved.lighting - state.lighting)[3], torch.tensor([9.0, 10, 11], dtype=torch.float64))
    assert torch.allclose(moved.rotation, rotation_from_axis_angle(pose[:3]) @ state.rotation)
    assert torch.allclose(moved.translation - state.translation, pose[3:6])
    assert float(moved.log_focal - state.log_focal) > 0.0999


def test_turns_stay_turns(model):
    state = random_person(model, 0).truth
    still = torch.zeros(model.shape_size + model.expression_size, dtype=torch.float64)
    pose = torch.tensor([0.3, -0.2, 0.4, 0, 0, 0, 0], dtype=torch.float64)
    for _ in range(50):
        state = state.moved(still, pose)
    assert torch.allclose(state.rotation @ state.rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert degrees_between(state.rotation, state.rotation) < 1e-4


def test_expressions_stay_within_what_faces_can_do(model):
    state = random_person(model, 0).truth
    wild = dataclasses.replace(state, expression=coefficients(model, {"jawOpen": 3.0, "mouthSmileLeft": -2.0, "browInnerUp": 0.4}))
    activation = wild.bounded(model).expression * model.expression_scale
    by_name = dict(zip(model.expression_names, activation.tolist(), strict=True))
    assert 1.0 <= by_name["jawOpen"] <= 1.2
    assert -0.2 <= by_name["mouthSmileLeft"] <= 0.0
    assert abs(by_name["browInnerUp"] - 0.4) < 1e-6
    assert torch.isfinite(activation).all()


def test_bounds_survive_an_expression_that_the_model_never_does(model):
    state = random_person(model, 0, expression={"jawOpen": 0.5}).truth
    scale = model.expression_scale.clone()
    scale[3] = 0
    still = dataclasses.replace(model, expression_scale=scale)
    assert torch.isfinite(state.bounded(still).expression).all()


def test_the_camera_is_the_state_as_a_camera(model):
    person = random_person(model, 1)
    camera = person.truth.camera(PRIOR.principal_point, SIDE, SIDE)
    # float32 at some 400 pixels.
    assert torch.allclose(camera.project(person.vertices).double(), project(person.truth, person.vertices), atol=2e-3)
