"""The fit's derivatives against central differences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from focus_backend.reconstruction.landmark_fit import add_prior
from focus_backend.reconstruction.photometric_fit import Picture, view
from focus_backend.reconstruction.pixels import (
    appearance_jacobian,
    geometry_jacobian,
    harmonics_slope,
    image_gradient,
    predict,
    srgb_slope,
    visible_pixels,
)
from focus_backend.rendering import encode_srgb, render, spherical_harmonics
from focus_backend.rendering.normals import vertex_normals
from reconstruction.people import PRIOR, SIDE, SMILE, clicked, face_vertices, project, random_person, term_of

DOUBLE = torch.float64
# Colours per pixel of a picture that rises evenly to the right and down, so that its derivative is known everywhere.
RISE = torch.tensor([[1.0, 0.4], [-0.6, 0.8], [0.5, -1.0]]) / SIDE
POSE_STEPS = {
    "turn x": (0, 3e-3),
    "turn y": (1, 3e-3),
    "turn z": (2, 3e-3),
    "x": (3, 0.5),
    "y": (4, 0.5),
    "z": (5, 3.0),
    "focal": (6, 0.01),
}


def ramp_at(places):
    """The evenly rising picture at places in pixels."""
    return 0.5 + (places - SIDE / 2) @ RISE.T.to(places)


@pytest.fixture(scope="module")
def scene(model, tables):
    """A person looking aside, seen on the evenly rising picture."""
    person = random_person(model, 3, expression=SMILE)
    grid = torch.from_numpy(np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), -1)).float()
    pixels = ramp_at(grid)
    everywhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    picture = Picture(pixels, image_gradient(pixels.numpy()), everywhere, 1.0, (0.0, 0.0))
    return person, picture, view(tables, person.truth, picture, PRIOR)


def residual(tables, state, seen):
    """Photo minus prediction of the surface points of `seen`, wherever the state takes them."""
    vertices = tables.model.decode_shape(state.shape.float(), state.expression.float())
    normals = seen.pixels.interpolate(vertex_normals(vertices[None], tables.model.triangles)[0])
    harmonics = spherical_harmonics(normalize(normals @ state.rotation.float().T, dim=-1))
    places = project(state, seen.pixels.interpolate(vertices)).float()
    return ramp_at(places) - predict(tables, state, seen.pixels, harmonics).colour


def compare(numeric, analytic, least_correlation, tolerance):
    """Fails where two derivatives differ in direction or length."""
    assert analytic.norm() > 0
    correlation = float((numeric * analytic).sum() / (numeric.norm() * analytic.norm()))
    assert correlation > least_correlation
    assert abs(float(analytic.norm() / numeric.norm()) - 1) < tolerance


def geometry_slope(tables, scene):
    person, picture, seen = scene
    gradient = picture.gradient[seen.pixels.rows, seen.pixels.columns]
    camera = picture.camera(person.truth, PRIOR)
    return geometry_jacobian(tables, person.truth, seen.vertices, seen.pixels, seen.prediction, gradient, camera)


def numeric_geometry(tables, scene, index, step):
    person, _, seen = scene
    size = tables.geometry_size
    change = torch.zeros(size + 7, dtype=DOUBLE)
    change[index] = step
    above, below = (residual(tables, person.truth.moved(sign * change[:size], sign * change[size:]), seen) for sign in (1, -1))
    return (above - below) / (2 * step)


@pytest.mark.parametrize("index", [0, 7, 40, 79, 80 + 20, 80 + 43])
def test_colours_by_shape_and_expression(tables, scene, index):
    analytic = geometry_slope(tables, scene)[..., index]
    # The length of an interpolated normal is taken for constant, which creases (lids, lips) do not quite keep to.
    compare(numeric_geometry(tables, scene, index, 0.05), analytic, 0.99, 0.05)


@pytest.mark.parametrize("part", POSE_STEPS)
def test_colours_by_pose(tables, scene, part):
    index, step = POSE_STEPS[part]
    analytic = geometry_slope(tables, scene)[..., tables.geometry_size + index]
    # A turn moves normals as a whole, so nothing is left out; float32 and the step's square remain.
    compare(numeric_geometry(tables, scene, tables.geometry_size + index, step), analytic, 0.9999, 0.01)


@pytest.mark.parametrize("part", ["albedo", "lighting"])
def test_colours_by_appearance(tables, scene, part):
    person, _, seen = scene
    analytic = appearance_jacobian(tables, seen.pixels, seen.harmonics, seen.prediction)
    count, first = (len(person.truth.albedo), 0) if part == "albedo" else (27, len(person.truth.albedo))
    still = torch.zeros(tables.geometry_size, dtype=DOUBLE), torch.zeros(7, dtype=DOUBLE)
    for index in range(0, count, 5):
        changes = []
        for sign in (1, -1):
            step = torch.zeros(count, dtype=DOUBLE)
            step[index] = sign * 0.01
            state = person.truth.moved(*still, **{part: step})
            changes.append(predict(tables, state, seen.pixels, seen.harmonics).colour)
        # The prediction is smooth in both but where an albedo reaches its floor; only float32 is left: 1e-7 over a step of 0.02.
        is_close = torch.isclose((changes[0] - changes[1]) / 0.02, analytic[..., first + index], atol=1e-4, rtol=2e-3)
        assert is_close.float().mean() > 0.999


def test_normals_by_shape_and_expression(model, tables):
    person = random_person(model, 2, expression=SMILE)
    state = person.truth
    unit, slope = tables.normals_with_slope(person.vertices)
    face = face_vertices(model)
    assert torch.allclose(unit[face], vertex_normals(person.vertices[None], model.triangles)[0][face], atol=1e-5)
    for index in (0, 11, 60, 80 + 20, 80 + 43):
        step = torch.zeros(tables.geometry_size, dtype=DOUBLE)
        step[index] = 0.02
        ends = []
        for sign in (1, -1):
            moved = state.moved(sign * step, torch.zeros(7, dtype=DOUBLE))
            ends.append(tables.normals_with_slope(model.decode_shape(moved.shape.float(), moved.expression.float()))[0])
        numeric = ((ends[0] - ends[1]) / 0.04)[face]
        # Unit normals in float32 over a step of 0.04; their curvature over it.
        compare(numeric, slope[face][..., index], 0.9999, 0.005)
        across = (slope[face][..., index] * unit[face]).sum(-1)
        assert across.abs().max() < 1e-3


def test_harmonics_by_normal():
    normals = normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE), dim=-1)
    analytic = harmonics_slope(normals)
    for axis in range(3):
        step = torch.zeros(3, dtype=DOUBLE)
        step[axis] = 1e-3
        numeric = (spherical_harmonics(normals + step) - spherical_harmonics(normals - step)) / 2e-3
        # Quadratics: a central difference is exact but for rounding.
        assert torch.allclose(numeric, analytic[..., axis], atol=1e-10)


def test_slope_of_the_srgb_curve():
    linear = torch.tensor([0.0021, 0.0028, 0.0034, 0.02, 0.2, 0.7, 1.0, 1.8], dtype=DOUBLE)
    numeric = (encode_srgb(linear + 1e-6) - encode_srgb(linear - 1e-6)) / 2e-6
    assert torch.allclose(srgb_slope(linear), numeric, rtol=1e-5)


def test_the_srgb_slope_is_nothing_where_the_prediction_is_clamped():
    assert torch.equal(srgb_slope(torch.tensor([-1.0, 0.0, 0.0019])), torch.zeros(3))


def landmark_residual(model, term, detection, state, millimetres):
    """The landmarks' errors in mm, projected apart from the code under test."""
    geometry = torch.cat([state.shape, state.expression])
    places = term.mean + torch.einsum("g,gpc->pc", geometry, term.basis)
    return (torch.from_numpy(detection.points) - project(state, places)) * millimetres - term.bias


def test_landmark_equations(model):
    person = random_person(model, 4, expression=SMILE)
    detection = clicked(model, person, error=3.0)
    term, _ = term_of(model, detection)
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(136, 136, generator=random, dtype=DOUBLE) / 12
    bias = torch.randn(68, 2, generator=random, dtype=DOUBLE)
    term = dataclasses.replace(term, bias=bias, precision=mixing @ mixing.T)
    size = model.shape_size + model.expression_size
    state = person.truth
    matrix, right, errors = term.normal_equations(state, PRIOR)
    depth = ((term.mean + torch.einsum("g,gpc->pc", torch.cat([state.shape, state.expression]), term.basis)) @ state.rotation.T)[:, 2]
    millimetres = -(depth.mean() + state.translation[2]) / state.log_focal.exp()
    assert torch.allclose(errors, landmark_residual(model, term, detection, state, millimetres), atol=1e-4)
    columns = []
    for index in range(size + 7):
        step = torch.zeros(size + 7, dtype=DOUBLE)
        step[index] = 1e-4
        ends = [
            landmark_residual(model, term, detection, state.moved(sign * step[:size], sign * step[size:]), millimetres) for sign in (1, -1)
        ]
        columns.append(((ends[1] - ends[0]) / 2e-4).flatten())
    jacobian = torch.stack(columns, -1)
    # float64 throughout; the step's square is what remains.
    assert torch.allclose(matrix, jacobian.T @ term.precision @ jacobian, rtol=1e-4, atol=1e-5 * float(matrix.abs().max()))
    expected = jacobian.T @ term.precision @ errors.flatten()
    assert torch.allclose(right, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_prior_is_the_slope_of_a_normal_density(model):
    state = random_person(model, 5, expression=SMILE).truth
    size = model.shape_size + model.expression_size
    matrix, right = torch.zeros(size + 7, size + 7, dtype=DOUBLE), torch.zeros(size + 7, dtype=DOUBLE)
    add_prior(matrix, right, state, PRIOR)

    def energy(moved):
        focal = (moved.log_focal - PRIOR.log_focal) / PRIOR.log_focal_spread
        distance = ((-moved.translation[2]).log() - PRIOR.log_distance) / PRIOR.log_distance_spread
        return 0.5 * (moved.shape.square().sum() + moved.expression.square().sum() + focal**2 + distance**2)

    for index in (0, size - 1, size + 2, size + 5, size + 6):
        step = torch.zeros(size + 7, dtype=DOUBLE)
        step[index] = 1e-3
        above, below = (energy(state.moved(sign * step[:size], sign * step[size:])) for sign in (1, -1))
        assert math.isclose(float(right[index]), float((below - above) / 2e-3), rel_tol=1e-6, abs_tol=1e-9)
        if index == size + 5:
            # Alone it would lead to the expected distance.
            wanted = -math.exp(PRIOR.log_distance) - float(state.translation[2])
            assert math.isclose(float(right[index] / matrix[index, index]), wanted, rel_tol=1e-6)
            continue
        curvature = float((above + below - 2 * energy(state)) / 1e-6)
        assert math.isclose(float(matrix[index, index]), curvature, rel_tol=1e-3, abs_tol=1e-4)


def test_the_fit_sees_what_the_renderer_draws(model, tables):
    person = random_person(model, 6, expression=SMILE)
    camera = person.truth.camera(PRIOR.principal_point, SIDE, SIDE)
    pixels = visible_pixels(tables, person.vertices, camera)
    normals = pixels.interpolate(vertex_normals(person.vertices[None], model.triangles)[0])
    harmonics = spherical_harmonics(normalize(normals @ person.truth.rotation.float().T, dim=-1))
    colour = predict(tables, person.truth, pixels, harmonics).colour
    texture = model.decode_albedo(person.truth.albedo.float())
    drawn = render(model, person.vertices[None], texture[None], person.truth.lighting.float()[None], camera, antialiased=False)
    covered = pixels.scatter(torch.ones(len(pixels)), SIDE, SIDE) > 0
    # A few texels at the face's edge are not stored.
    assert (covered ^ drawn.mask[0]).sum() < 0.01 * drawn.mask.sum()
    # The fit takes the nearest texel, the renderer interpolates: moles and lips have edges.
    assert (colour - drawn.image[0][pixels.rows, pixels.columns]).abs().mean() < 0.01
