"""The shipped face model: what it promises, and that its geometry is that of a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from focus_backend.morphable import load_model
from focus_backend.morphable.face_model import FaceModel


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


def parts_of(quads: torch.Tensor) -> np.ndarray:
    """Connected part of each vertex."""
    edges = torch.cat([quads[:, [k, (k + 1) % 4]] for k in range(4)]).numpy()
    size = int(quads.max()) + 1
    return connected_components(coo_matrix((np.ones(len(edges)), edges.T), shape=(size, size)), directed=False)[1]


def test_sizes_are_those_promised(model):
    assert (model.shape_size, model.expression_size, model.albedo_size) == (80, 52, 80)
    assert model.quads.shape[1] == 4
    assert len(model.landmarks68.names) == 68
    assert len(model.now_landmarks.names) == 7


def test_decode_is_batched_and_agrees_with_single_faces(model):
    random = torch.Generator().manual_seed(0)
    shape, expression, albedo = (torch.randn(3, n, generator=random) for n in (80, 52, 80))
    vertices, texture = model.decode(shape, expression, albedo)
    assert vertices.shape == (3, len(model.mean_shape), 3)
    assert texture.shape == (3, model.texture_size, model.texture_size, 3)
    alone = model.decode(shape[1], expression[1], albedo[1])
    torch.testing.assert_close(vertices[1], alone[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(texture[1], alone[1], atol=1e-5, rtol=1e-5)


def test_decode_is_the_linear_model_written_out(model):
    """One coefficient at a time in double precision, against the batched product in single precision."""
    random = torch.Generator().manual_seed(1)
    shape, expression = torch.randn(80, generator=random), torch.randn(52, generator=random)
    expected = model.mean_shape.double()
    for value, offset in [*zip(shape, model.shape_basis, strict=True), *zip(expression, model.expression_basis, strict=True)]:
        expected = expected + value.double() * offset.double()
    torch.testing.assert_close(model.decode_shape(shape, expression).double(), expected, atol=1e-3, rtol=0)


def test_decode_has_gradients(model):
    shape, expression = torch.zeros(80, requires_grad=True), torch.zeros(52, requires_grad=True)
    albedo = torch.zeros(80, requires_grad=True)
    vertices, texture = model.decode(shape, expression, albedo)
    (vertices.square().sum() + texture.square().sum()).backward()
    torch.testing.assert_close(shape.grad, 2 * (model.shape_basis * model.mean_shape).sum((1, 2)), rtol=1e-3, atol=30.0)
    assert all(value.grad.abs().max() > 0 for value in (shape, expression, albedo))


def test_mean_head_is_upright_and_faces_z(model):
    points = dict(zip(model.now_landmarks.names, model.now_landmarks.on(model.mean_shape, model.triangles), strict=True))
    assert points["left_eye_outer"][0] > points["left_eye_inner"][0] > 10 > -10 > points["right_eye_inner"][0]
    assert points["mouth_left"][0] > 15 > -15 > points["mouth_right"][0]
    assert points["nose_bottom"][1] < points["left_eye_inner"][1] - 30
    assert points["mouth_left"][1] < points["nose_bottom"][1] - 10
    assert points["nose_bottom"][2] > points["left_eye_outer"][2] + 10
    assert 80 < points["left_eye_outer"][0] - points["right_eye_outer"][0] < 100
    centre = (points["left_eye_inner"] + points["right_eye_inner"] + points["left_eye_outer"] + points["right_eye_outer"]) / 4
    assert centre[:2].abs().max() < 4


def test_landmarks_are_symmetric(model):
    places = model.now_landmarks.on(model.mean_shape, model.triangles)
    torch.testing.assert_close(places[[0, 1, 4, 5]] * torch.tensor([-1.0, 1, 1]), places[[3, 2, 4, 6]], atol=0.3, rtol=0)


def test_coefficients_are_in_standard_deviations(model):
    """Variances of unit coefficients add up to the spread of faces that scans have, and fall from component to component."""
    face = model.quads[model.quad_in_face].unique()
    variance = model.shape_basis[:, face].square().sum(-1).mean(1)
    assert 3.0 < variance.sum().sqrt() < 5.0
    assert variance[:10].sum() > 0.6 * variance.sum()


def test_components_are_symmetric_or_antisymmetric(model):
    mean = model.mean_shape
    mirror = torch.cdist(mean * torch.tensor([-1.0, 1, 1]), mean).argmin(1)
    reflected = model.shape_basis[:, mirror] * torch.tensor([-1.0, 1, 1])
    same = (model.shape_basis - reflected).abs().amax((1, 2))
    opposite = (model.shape_basis + reflected).abs().amax((1, 2))
    # Half precision keeps 3 digits of offsets of some millimetres.
    assert torch.minimum(same, opposite).max() < 0.02
    assert 10 < (opposite < same).sum() < 40


@pytest.mark.parametrize("name", ["browDownLeft", "eyeBlinkLeft", "mouthSmileLeft", "eyeLookUpLeft", "cheekSquintLeft"])
def test_left_is_the_subjects_left(model, name):
    moved = model.expression_basis[model.expression_names.index(name)].norm(dim=1)
    x = model.mean_shape[:, 0]
    assert (moved * x).sum() / moved.sum() > 10
    other = model.expression_basis[model.expression_names.index(name.replace("Left", "Right"))].norm(dim=1)
    assert (other * x).sum() / other.sum() < -10


def test_expression_basis_is_the_scaled_full_action(model):
    """A jaw drops by centimetres at full activation, and the basis is the share that its scale says."""
    jaw = model.expression_names.index("jawOpen")
    chin = model.landmarks68.on(model.expression_basis[jaw] / model.expression_scale[jaw], model.triangles)[8]
    assert -50 < chin[1] < -15


def test_blink_closes_the_eye_of_the_mean_head(model):
    index = model.expression_names.index("eyeBlinkLeft")
    activation = torch.zeros(52)
    activation[index] = 1 / model.expression_scale[index]
    open_eye = model.landmarks68.on(model.mean_shape, model.triangles)
    shut_eye = model.landmarks68.on(model.decode_shape(torch.zeros(80), activation), model.triangles)
    assert open_eye[43, 1] - open_eye[47, 1] > 6
    assert abs(shut_eye[43, 1] - shut_eye[47, 1]) < 2
    torch.testing.assert_close(shut_eye[37], open_eye[37], atol=0.5, rtol=0)


def test_gaze_turns_the_eyeball(model):
    """eyeLook* moves the front of the eyeball more than its back, the way the name says."""
    index = model.expression_names.index("eyeLookOutLeft")
    offset = model.expression_basis[index] / model.expression_scale[index]
    labels = parts_of(model.quads)
    eyes = [torch.from_numpy(labels == label) for label in range(labels.max() + 1)]
    left_eye = next(eye for eye in eyes if 25 < model.mean_shape[eye, 0].mean() < 38 and model.mean_shape[eye, 2].mean().abs() < 2)
    pupil = left_eye & (model.mean_shape[:, 2] > model.mean_shape[left_eye, 2].max() - 1)
    assert offset[pupil, 0].min() > 4
    assert offset[model.mean_shape[:, 0] < 0].abs().max() < 0.1


def test_face_region_is_symmetric_and_leaves_out_ears_and_neck(model):
    centres = model.mean_shape[model.quads].mean(1)
    face, rest = centres[model.quad_in_face], centres[~model.quad_in_face]
    mirrored = torch.cdist(face * torch.tensor([-1.0, 1, 1]), face).amin(1)
    assert mirrored.max() < 0.5
    chin = model.landmarks68.on(model.mean_shape, model.triangles)[8, 1]
    assert face[:, 1].min() > chin - 12
    assert face[:, 2].min() > -95
    assert face[:, 0].abs().max() < rest[:, 0].abs().max() - 5


def test_face_region_is_one_piece_of_skin_with_two_eyeballs(model):
    quads = model.quads[model.quad_in_face]
    assert len(np.unique(parts_of(quads)[quads.numpy()])) == 3


def test_albedo_is_skin_of_both_light_and_dark_people(model):
    random = torch.Generator().manual_seed(0)
    people = model.decode_albedo(torch.randn(64, 80, generator=random)).flatten(1, 2)[:, model.texels]
    brightness = people.mean((1, 2))
    assert brightness.max() > 2 * brightness.min()
    assert (model.albedo_mean > 0).all()
    assert (model.albedo_mean < 1).all()
    mean = model.albedo_mean.mean(0)
    assert mean[0] > mean[1] > mean[2]


def test_to_keeps_what_the_model_says(model):
    moved = model.to("cpu")
    assert moved.device.type == "cpu"
    assert torch.equal(moved.now_landmarks.on(moved.mean_shape, moved.triangles), model.now_landmarks.on(model.mean_shape, model.triangles))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_decode_on_cuda_agrees(model):
    random = torch.Generator().manual_seed(0)
    coefficients = [torch.randn(2, n, generator=random) for n in (80, 52, 80)]
    vertices, texture = model.to("cuda").decode(*(value.cuda() for value in coefficients))
    expected = model.decode(*coefficients)
    torch.testing.assert_close(vertices.cpu(), expected[0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(texture.cpu(), expected[1], atol=1e-4, rtol=1e-3)
