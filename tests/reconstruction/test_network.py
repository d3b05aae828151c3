"""Faces through networks: which method is chosen, where the answer lies in the photo, and what is said of wrong weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from focus_backend.cli import app
from focus_backend.errors import ConfigError, FitError, WeightsError
from focus_backend.export.bundle import write_reconstruction
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.networks import weights as weights_module
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.theta import ThetaSizes
from focus_backend.networks.weights import load_weights, save_weights
from focus_backend.photo import Photo
from focus_backend.reconstruction.fitting import Fit
from focus_backend.reconstruction.network import FaceNetworks, check_guess
from focus_backend.reconstruction.reconstructor import Reconstructor
from focus_backend.rendering import rotation_from_axis_angle
from reconstruction.people import f1

# Eye centres, nose tip and corners of the mouth of the demo photo.
ASTRONAUT_POINTS = np.array([[204.6, 102.1], [246.4, 104.4], [224.1, 130.2], [202.1, 139.2], [245.6, 140.8]])


def five_of(points: np.ndarray) -> Detection:
    """Five points as a user gives them."""
    return Detection("user", FIVE_POINT_NAMES, points, points, bounding_box(points))


def five_of_photo(photo: Photo) -> Detection:
    """The five points of the demo photo."""
    assert photo.name == "astronaut.jpg"
    return five_of(ASTRONAUT_POINTS)


def moved(across: float) -> np.ndarray:
    """The demo photo's five points, so many pixels to the right."""
    return ASTRONAUT_POINTS + np.array([across, 0.0])


def some_outputs(model) -> torch.Tensor:
    """Encoder outputs of some face, turned a little, under light from one side."""
    sizes, random = ThetaSizes.of(model), torch.Generator().manual_seed(0)
    coefficients = 0.5 * torch.randn(sum(sizes), generator=random)
    coefficients[sizes.shape : sizes.shape + sizes.expression] *= 0.2
    coefficients[sizes.shape + sizes.expression :] *= 0.2
    lighting = torch.zeros(9, 3)
    lighting[0], lighting[1], lighting[3] = -1.0, 0.5, 1.2
    # In units of 0.3 radians, and in millimetres.
    pose = torch.tensor([0.3, 0.8, -0.4, 3.0, -5.0, 0.0])
    return torch.cat([coefficients, lighting.flatten(), pose])


@pytest.fixture(scope="module")
def posed(model, make_weights) -> Reconstructor:
    """Networks that see some posed face under light from one side in every crop."""
    return Reconstructor.load(model, method="network", weights=make_weights(model, some_outputs(model)))


@pytest.fixture(scope="module")
def mean(model, plain_weights) -> Reconstructor:
    """Networks that see the mean face in every crop."""
    return Reconstructor.load(model, method="network", weights=plain_weights)


@pytest.fixture(scope="module")
def result(mean, astronaut):
    """The demo photo's face, found by the real detector."""
    (face,) = mean.reconstruct(astronaut)
    return face


@pytest.fixture
def no_weights(monkeypatch, tmp_path) -> Path:
    """A package that came without weights."""
    monkeypatch.setattr(weights_module, "WEIGHTS_FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


def test_without_weights_auto_is_the_fit(model, no_weights):
    loaded = Reconstructor.load(model)
    assert loaded.strategy.method == "fit"
    assert loaded.strategy.networks is None


def test_with_weights_auto_is_refine(model, tiny_model, no_weights, plain_weights):
    assert Reconstructor.load(model, weights=plain_weights).strategy.method == "refine"
    shutil.copytree(plain_weights, no_weights / "default")
    assert Reconstructor.load(model).strategy.method == "refine"
    assert Reconstructor.load(model, method="fit").strategy.method == "fit"
    # The weights that come along are for another face model than this one.
    assert Reconstructor.load(tiny_model).strategy.method == "fit"


@pytest.mark.parametrize("method", ["network", "refine"])
def test_a_method_that_needs_weights_says_so(model, no_weights, method):
    with pytest.raises(WeightsError, match="none came with") as caught:
        Reconstructor.load(model, method=method)
    assert "--weights" in caught.value.remedy


def test_contradictions_are_refused(model, plain_weights):
    with pytest.raises(ConfigError, match="uses no weights"):
        Reconstructor.load(model, method="fit", weights=plain_weights)
    with pytest.raises(ConfigError, match="no method 'magic'"):
        Reconstructor.load(model, method="magic")
    with pytest.raises(ConfigError, match="abacus"):
        Reconstructor.load(model, method="network", weights=plain_weights, device="abacus")


def test_weights_for_another_face_model_are_refused(tiny_model, plain_weights):
    for method in ("auto", "network", "refine"):
        with pytest.raises(WeightsError, match="face model"):
            Reconstructor.load(tiny_model, method=method, weights=plain_weights)


@pytest.mark.parametrize("fault", ["missing", "damaged", "none"])
def test_the_command_line_says_what_is_wrong_in_one_line(no_weights, plain_weights, tmp_path, fault):
    folder = tmp_path / "given"
    if fault == "damaged":
        shutil.copytree(plain_weights, folder)
        data = (folder / "encoder.safetensors").read_bytes()
        (folder / "encoder.safetensors").write_bytes(data[: len(data) // 2])
    given = [] if fault == "none" else ["--weights", str(folder)]
    photo = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
    done = CliRunner().invoke(app, ["reconstruct", str(photo), "-o", str(tmp_path / "out"), "--method", "network", *given])
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert {"missing": "there are no weights", "damaged": "damaged", "none": "none came with"}[fault] in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_mean_face_lies_on_the_face_of_the_photo(result):
    assert result.method == "network"
    region = result.face_mask | result.outlier_mask
    left, top, right, bottom = bounding_box(result.landmarks["points"])
    box = np.zeros_like(region)
    box[int(top) : int(bottom), int(left) : int(right)] = True
    assert region[box].mean() > 0.7
    assert (region & box).sum() > 0.7 * region.sum()
    assert torch.equal(result.shape, torch.zeros_like(result.shape))
    eyes = result.camera.project(result.now_landmarks()[:4]).numpy()
    middles = np.stack([eyes[:2].mean(0), eyes[2:].mean(0)])
    assert np.linalg.norm(middles - ASTRONAUT_POINTS[:2], axis=1).max() < 5


def test_the_result_names_its_weights(result, plain_weights, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    write_reconstruction(result, tmp_path / "astronaut")
    document = json.loads((tmp_path / "astronaut" / "result.json").read_text(encoding="utf-8"))
    schema = json.loads(files("focus_backend.export").joinpath("result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["method"] == "network"
    assert document["misfit"] is False
    assert document["weights"]["sha256"] == json.loads((plain_weights / "weights.json").read_text())["sha256"]
    assert {"landmarks", "networks", "texture"} <= set(document["timings"])


def test_a_face_unlike_the_photo_is_warned_of(result):
    assert any("differ much" in warning for warning in result.warnings)


def test_the_same_photo_gives_the_same_bytes(mean, astronaut, result):
    (again,) = mean.reconstruct(astronaut)
    for name in ("shape", "expression", "albedo", "lighting", "neutral_vertices"):
        assert torch.equal(getattr(again, name), getattr(result, name)), name
    for name in ("face_mask", "outlier_mask", "rendering", "texture", "albedo_texture"):
        assert np.array_equal(getattr(again, name), getattr(result, name)), name


def test_the_mask_is_the_segmentation_s_inside_the_rendered_region(model, make_weights, astronaut):
    landmarks = five_of_photo(astronaut)
    face, outlier = (
        Reconstructor.load(model, method="network", weights=make_weights(model, face=odds)).reconstruct(astronaut, landmarks=landmarks)[0]
        for odds in (0.1, -0.1)
    )
    # Half a pixel of the crop may be missing at the region's edge.
    assert face.outlier_mask.sum() <= 0.01 * face.face_mask.sum()
    assert not outlier.face_mask.any()
    assert np.array_equal(outlier.outlier_mask, face.face_mask | face.outlier_mask)
    assert any("visible" in warning for warning in outlier.warnings)


def rolled(photo: Photo, degrees: float) -> tuple[Photo, np.ndarray]:
    """The photo turned about its middle, and the affine map of its pixels (centres at +0.5)."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([photo.width, photo.height]) / 2
    offset = middle - turn @ middle
    # cv2 puts pixel centres at whole numbers.
    matrix = np.column_stack([turn, offset + turn @ np.full(2, 0.5) - 0.5])
    pixels = cv2.warpAffine(photo.pixels, matrix, (photo.width, photo.height), flags=cv2.INTER_LINEAR)
    return dataclasses.replace(photo, pixels=pixels), np.column_stack([turn, offset])


@pytest.mark.parametrize("degrees", [30.0, -100.0])
def test_a_rolled_photo_gives_the_rolled_face(posed, astronaut, degrees):
    turned, place = rolled(astronaut, degrees)
    points = ASTRONAUT_POINTS @ place[:, :2].T + place[:, 2]
    (straight,) = posed.reconstruct(astronaut, landmarks=five_of_photo(astronaut))
    (face,) = posed.reconstruct(turned, landmarks=five_of(points))
    expected = straight.camera.project(straight.now_landmarks()).numpy() @ place[:, :2].T + place[:, 2]
    assert np.abs(face.camera.project(face.now_landmarks()).numpy() - expected).max() < 0.05
    upright, _ = rolled(dataclasses.replace(astronaut, pixels=face.rendering), -degrees)
    both = straight.face_mask & (upright.pixels.sum(-1) > 0)
    assert both.sum() > 0.95 * straight.face_mask.sum()
    # The light was turned with the camera: without that one side of the face would be dark instead of the other.
    assert np.abs(upright.pixels[both].astype(float) - straight.rendering[both]).mean() < 4


def test_the_answer_in_the_photo_is_the_answer_in_the_crop(model, posed, astronaut):
    (fit,) = posed.strategy.networks.look(astronaut.pixels, [ASTRONAUT_POINTS])
    weights, outputs = posed.strategy.networks.weights, some_outputs(model)
    rotation = rotation_from_axis_angle(outputs[-6:-3] * 0.3)
    translation = weights.encoder.start_translation + outputs[-3:] * torch.tensor([1.0, 1.0, 0.005])
    point = model.now_landmarks.on(model.mean_shape, model.triangles)
    place = point @ rotation.T + translation
    focal = 9.06 * 112
    in_crop = (112 + focal * place[:, :2] * torch.tensor([1.0, -1.0]) / -place[:, 2:]).double().numpy()
    camera = fit.state.camera(fit.principal_point, astronaut.width, astronaut.height)
    assert np.abs(fit.crop.to_photo(in_crop) - camera.project(point).numpy()).max() < 0.02


def test_a_head_lies_nearer_to_the_mean_head_than_the_answer(posed, astronaut):
    (result,) = posed.reconstruct(astronaut)
    (answer,) = posed.strategy.networks.look(astronaut.pixels, [ASTRONAUT_POINTS])
    answer = answer.state
    assert answer.shape.abs().max() > 0.1
    np.testing.assert_allclose(result.shape, 0.9 * answer.shape.numpy(), atol=1e-5)
    np.testing.assert_allclose(result.expression, answer.expression.numpy(), atol=1e-5)


def test_crops_of_further_sides_join_the_answer(model, tmp_path, astronaut):
    def networks(name: str, sides: tuple[float, ...]) -> FaceNetworks:
        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(backbone="mobilenet", further_sides=sides), model, 112)
        # An untrained backbone's features are tiny.
        torch.nn.init.normal_(encoder.backbone.head.weight, std=2e6)
        save_weights(tmp_path / name, encoder, None, model=model, image_size=112)
        return FaceNetworks(load_weights(tmp_path / name, model), model)

    def points(fit: Fit) -> np.ndarray:
        camera = fit.state.camera(fit.principal_point, astronaut.width, astronaut.height)
        return camera.project(model.now_landmarks.on(model.mean_shape, model.triangles)).numpy()

    one, several = networks("one", ()), networks("several", (1.05,))
    (alone,) = one.look(astronaut.pixels, [ASTRONAUT_POINTS])
    centre = alone.crop.to_photo(np.array([56.0, 56.0]))
    (wide,) = one.look(astronaut.pixels, [centre + 1.05 * (ASTRONAUT_POINTS - centre)])
    (mean,) = several.look(astronaut.pixels, [ASTRONAUT_POINTS])
    torch.testing.assert_close(mean.state.shape, (alone.state.shape + wide.state.shape) / 2, atol=1e-4, rtol=0)
    assert (alone.state.shape - wide.state.shape).abs().max() > 0.003
    # Where the face lies in the photo: seen 1.05 times as small, it is not farther away.
    assert np.abs(points(mean) - (points(alone) + points(wide)) / 2).max() < 0.3
    assert mean.crop.scale == alone.crop.scale


def test_several_faces_share_a_batch(posed, astronaut):
    small = cv2.resize(astronaut.pixels, (320, 320), interpolation=cv2.INTER_AREA)
    pixels = np.full((512, 832, 3), 128, np.uint8)
    pixels[:320, :320], pixels[:, 320:] = small, astronaut.pixels
    places = [moved(320), ASTRONAUT_POINTS * 320 / 512]
    networks = posed.strategy.networks
    together = networks.look(pixels, places)
    alone = [networks.look(pixels, [place])[0] for place in places]
    for first, second in zip(together, alone, strict=True):
        assert torch.allclose(first.state.shape, second.state.shape, atol=1e-5)
        assert torch.allclose(first.state.translation, second.state.translation, atol=1e-3)
        assert np.abs(first.inlier - second.inlier).max() < 1e-4
        assert np.array_equal(first.crop.pixels, second.crop.pixels)
    found = posed.reconstruct(Photo(pixels, "two.png", (832, 512)))
    assert [face.face_index for face in found] == [0, 1]
    columns = [np.flatnonzero((face.face_mask | face.outlier_mask).any(0)) for face in found]
    assert columns[0].min() > 320 > columns[1].max()


def test_more_faces_than_a_batch_holds_keep_their_order(mean, astronaut, monkeypatch):
    monkeypatch.setattr("focus_backend.reconstruction.network.BATCH", 2)
    places = [moved(across) for across in range(0, 100, 20)]
    found = mean.strategy.networks.look(astronaut.pixels, places)
    columns = [float(fit.principal_point[0]) for fit in found]
    assert np.allclose(np.diff(columns), 20.0, atol=1e-6)


def test_a_face_half_outside_the_photo_has_no_mask_there(mean, astronaut):
    points = moved(-ASTRONAUT_POINTS[2, 0])
    (fit,) = mean.strategy.networks.look(astronaut.pixels, [points])
    assert not fit.region[~fit.crop.is_inside].any()
    assert 0.2 < fit.region.sum() / mean.strategy.networks.look(astronaut.pixels, [ASTRONAUT_POINTS])[0].region.sum() < 0.8


def test_an_answer_that_is_no_face_is_refused(mean, astronaut):
    (fit,) = mean.strategy.networks.look(astronaut.pixels, [ASTRONAUT_POINTS])
    check_guess(fit)
    state = fit.state
    broken = {
        "not finite": dataclasses.replace(fit, state=dataclasses.replace(state, shape=state.shape * torch.nan)),
        "behind": dataclasses.replace(fit, state=dataclasses.replace(state, translation=-state.translation)),
        "nowhere": dataclasses.replace(fit, region=np.zeros_like(fit.region)),
    }
    for guess in broken.values():
        with pytest.raises(FitError):
            check_guess(guess)


def test_users_landmarks_lead_the_networks_too(mean, astronaut, result):
    (face,) = mean.reconstruct(astronaut, landmarks=five_of_photo(astronaut))
    assert face.detector == "user"
    assert f1(face.face_mask, result.face_mask) > 0.9


def test_networks_need_no_calibration(tiny_model, make_weights, astronaut, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a minute spent for nothing")

    monkeypatch.setattr("focus_backend.reconstruction.strategy.calibration_for", refuse)
    loaded = Reconstructor.load(tiny_model, method="network", weights=make_weights(tiny_model))
    assert isinstance(loaded.strategy.networks, FaceNetworks)
    (face,) = loaded.reconstruct(astronaut)
    assert face.model is tiny_model
