"""result.json: the document, its schema and what it must not hold."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from importlib.resources import files

import numpy as np
import pytest
import torch

from focus_backend.errors import FitError
from focus_backend.export.bundle import reconstruction_files, write_document

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(files("focus_backend.export").joinpath("result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def document(tiny_reconstruction):
    return json.loads(reconstruction_files(tiny_reconstruction)["result.json"])


def test_document_follows_the_schema(validator, document):
    assert list(validator.iter_errors(document)) == []


@pytest.mark.parametrize("key", ["version", "theta", "camera", "lighting", "now_landmarks", "model", "weights", "timings", "versions"])
def test_schema_misses_nothing(validator, document, key):
    broken = copy.deepcopy(document)
    del broken[key]
    assert not validator.is_valid(broken)


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", 2), ("lighting", [[1, 2, 3]] * 8), ("now_landmarks", [[0, 0, 0]] * 6), ("weights", {}), ("face_index", -1)],
)
def test_schema_refuses_wrong_values(validator, document, key, value):
    assert not validator.is_valid(document | {key: value})


def test_schema_lets_newer_writers_add_keys(validator, document):
    assert validator.is_valid(document | {"detail": {"anything": 1}})


def test_coefficients_survive_exactly(document, tiny_reconstruction):
    theta, result = document["theta"], tiny_reconstruction
    assert torch.equal(torch.tensor(theta["shape"]), result.shape)
    assert torch.equal(torch.tensor(theta["albedo"]), result.albedo)
    assert tuple(theta["expression"]) == result.model.expression_names
    assert torch.equal(torch.tensor(list(theta["expression"].values())), result.expression)
    activations = torch.tensor(list(theta["expression_activation"].values()))
    assert torch.allclose(activations, result.expression * result.model.expression_scale)
    assert torch.equal(torch.tensor(document["lighting"]), result.lighting)


def test_now_landmarks_lie_on_the_neutral_mesh(document, tiny_reconstruction):
    result = tiny_reconstruction
    seven = np.array(document["now_landmarks"])
    expected = result.model.now_landmarks.on(result.neutral_vertices, result.model.triangles).numpy()
    assert np.allclose(seven, expected, atol=1e-4)
    assert seven[0, 0] < seven[1, 0] < seven[2, 0] < seven[3, 0], "subject's right first, x to the subject's left"


def test_camera_projects_as_the_document_says(document, tiny_reconstruction):
    camera, numbers = tiny_reconstruction.camera, document["camera"]
    point = torch.tensor([[12.0, -30.0, 4.0]])
    x, y, z = np.array(numbers["rotation"]) @ point[0].numpy() + numbers["translation_mm"]
    pixel = (
        numbers["principal_point_px"][0] + numbers["focal_length_px"] * x / -z,
        numbers["principal_point_px"][1] - numbers["focal_length_px"] * y / -z,
    )
    assert np.allclose(pixel, camera.project(point)[0], atol=1e-4)
    expected = 2 * math.degrees(math.atan(camera.width / 2 / float(camera.focal_length)))
    assert numbers["field_of_view_degrees"]["horizontal"] == pytest.approx(expected, rel=1e-5)


def test_axis_angle_is_the_rotation(tiny_reconstruction):
    angle = 0.4
    turned = torch.tensor([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    camera = dataclasses.replace(tiny_reconstruction.camera, rotation=turned)
    document = dataclasses.replace(tiny_reconstruction, camera=camera).to_document()
    assert np.allclose(document["camera"]["axis_angle"], [0, angle, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["shape", "lighting", "neutral_vertices"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tiny_reconstruction, name, value):
    broken = torch.full_like(getattr(tiny_reconstruction, name), value)
    with pytest.raises(FitError, match=r"portrait\.jpg"):
        reconstruction_files(dataclasses.replace(tiny_reconstruction, **{name: broken}))


def test_no_pixels_and_no_paths(document, tiny_reconstruction):
    assert document["photo"]["name"] == "portrait.jpg"
    assert len(json.dumps(document)) < 30_000


def test_pretty_document_is_the_document():
    document = {"a": {"b": [1, 2.5], "c": {}}, "ä": "ö\n", "n": None, "x": [{"y": 1}]}
    assert json.loads(write_document(document)) == document


def test_masks_are_disjoint_and_counted(document, tiny_reconstruction):
    assert not (tiny_reconstruction.face_mask & tiny_reconstruction.outlier_mask).any()
    assert document["mask_pixels"]["face"] == tiny_reconstruction.face_mask.sum()
