"""Photo in, faces out: the real detector, the shipped model and real files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch

from focus_backend.errors import ConfigError, FocusError, LandmarkError, NoFaceError
from focus_backend.export.bundle import write_reconstruction
from focus_backend.landmarks.calibration_store import calibration_key, read_calibration, shipped_path
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.photo import Photo, read_photo
from focus_backend.reconstruction.reconstructor import Reconstructor, draw
from focus_backend.reconstruction.result import Reconstruction
from reconstruction.people import SIDE, SMILE, aligned, clicked, f1, face_vertices, random_person, shape_error

FILES = {
    "neutral.obj",
    "neutral.mtl",
    "face.glb",
    "albedo.png",
    "texture.png",
    "outlier_mask.png",
    "face_mask.png",
    "report.jpg",
    "result.json",
}


@pytest.fixture(scope="module")
def reconstructor(model) -> Reconstructor:
    """The whole pipeline; without its calibration on file every test would first make one for a minute."""
    loaded = Reconstructor.load(model, method="fit")
    path = shipped_path(model, loaded.detector)
    if read_calibration(path, calibration_key(model, loaded.detector)) is None:
        pytest.fail("no calibration of the shipped model: run focus_backend.landmarks.calibration_store.ship")
    return loaded


@pytest.fixture(scope="module")
def told() -> list[tuple[str, float]]:
    """The progress that was told of the demo photo."""
    return []


@pytest.fixture(scope="module")
def result(reconstructor, astronaut, told) -> Reconstruction:
    """The demo photo's face."""
    (face,) = reconstructor.reconstruct(astronaut, progress=lambda stage, fraction, preview=None: told.append((stage, fraction)))
    return face


def photo_of(pixels, name="photo.png") -> Photo:
    return Photo(np.ascontiguousarray(pixels), name, (pixels.shape[1], pixels.shape[0]))


def extent(result) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the rendered region."""
    rows, columns = np.nonzero(result.face_mask | result.outlier_mask)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def is_sane(result) -> bool:
    """Finite, with a face of some size whose coefficients a person could have."""
    result.to_document()
    # 80 coefficients of one standard deviation have a norm of 9.
    return (
        bool(result.face_mask.any())
        and float(result.shape.norm()) < 9
        and 0.3 < float(result.camera.focal_length) / max(result.photo.shape[:2]) < 6
    )


def same_result(first, second) -> bool:
    tensors = ("shape", "expression", "albedo", "lighting", "neutral_vertices")
    pictures = ("face_mask", "outlier_mask", "rendering", "texture", "albedo_texture")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in pictures
    )


def test_the_demo_photo_has_one_sane_face(result):
    assert is_sane(result)
    assert result.face_index == 0
    assert result.photo_name == "astronaut.jpg"
    assert result.method == "fit"
    assert result.warnings == ()
    assert set(result.timings) >= {"landmarks", "landmark_fit", "fit", "texture"}
    assert all(seconds >= 0 for seconds in result.timings.values())
    smile = result.activations
    assert max(smile["mouthSmileLeft"], smile["mouthSmileRight"]) > 0.2


def test_the_face_lies_on_the_landmarks(result):
    points = result.landmarks["points"]
    _, bottom, left, right = extent(result)
    assert abs(left - points[:, 0].min()) < 12
    assert abs(right - points[:, 0].max()) < 12
    assert abs(bottom - points[:, 1].max()) < 12
    eyes = result.camera.project(result.now_landmarks()[:4]).numpy()
    # The subject's right eye is at the photo's left.
    assert eyes[0, 0] < eyes[1, 0] < eyes[2, 0] < eyes[3, 0]
    assert (np.abs(eyes[:, 1] - eyes[:, 1].mean()) < 8).all()


def test_masks_are_disjoint_and_hair_and_wall_are_no_face(result):
    assert not (result.face_mask & result.outlier_mask).any()
    eyes = result.camera.project(result.now_landmarks()[:4]).numpy()
    middle, spread = eyes.mean(0), float(np.ptp(eyes[:, 0]))
    # Her fringe hangs to some 0.4 of the eyes' distance above them; hair and wall lie above and beside.
    assert not result.face_mask[: int(middle[1] - 0.65 * spread)].any()
    above = result.outlier_mask[: int(middle[1] - 0.4 * spread)]
    assert above.sum() > 0.05 * result.face_mask.sum()
    assert not result.face_mask[:, : int(middle[0] - 1.1 * spread)].any()
    assert not result.face_mask[:, int(middle[0] + 1.1 * spread) :].any()
    # Cheeks, nose and chin are face.
    for across, down in ((-0.45, 0.35), (0.45, 0.35), (0.0, 0.3), (0.0, 1.0)):
        assert result.face_mask[int(middle[1] + down * spread), int(middle[0] + across * spread)], (across, down)


def test_the_rendering_looks_like_the_photo(result):
    difference = np.abs(result.rendering.astype(float) - result.photo)[result.face_mask].mean()
    assert difference < 25
    region = result.face_mask | result.outlier_mask
    assert (result.rendering[region].sum(-1) > 0).mean() > 0.95


def test_files_are_written_and_follow_the_schema(result, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    write_reconstruction(result, tmp_path / "astronaut")
    assert {path.name for path in (tmp_path / "astronaut").iterdir()} >= FILES
    document = json.loads((tmp_path / "astronaut" / "result.json").read_text(encoding="utf-8"))
    schema = json.loads(files("focus_backend.export").joinpath("result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["landmarks"]["detector"] == "mediapipe"
    masks = [cv2.imread(str(tmp_path / "astronaut" / f"{name}_mask.png"), cv2.IMREAD_GRAYSCALE) > 0 for name in ("face", "outlier")]
    assert np.array_equal(masks[0], result.face_mask)
    assert np.array_equal(masks[1], result.outlier_mask)


def test_the_document_names_the_photos_file(result, astronaut):
    assert astronaut.sha256
    assert result.photo_sha256 == astronaut.sha256


@pytest.mark.usefixtures("brief_fit")
def test_a_photo_that_was_scaled_down_says_so(reconstructor, astronaut, tmp_path):
    from focus_backend.photo import PhotoLimits

    path = tmp_path / "large.png"
    cv2.imwrite(str(path), astronaut.pixels[..., ::-1])
    photo = read_photo(path, PhotoLimits(working_side=400))
    assert photo.warnings
    (face,) = reconstructor.reconstruct(photo)
    assert face.photo.shape == (400, 400, 3)
    assert face.to_document()["photo"]["original_width"] == 512
    assert set(photo.warnings) <= set(face.warnings)


@pytest.mark.usefixtures("brief_fit")
def test_users_landmarks_replace_detection(reconstructor, astronaut, result):
    class Untouched:
        name, version, point_names = "untouched", "1", ()

        def detect(self, pixels, beat=None):
            raise AssertionError("the detector was asked")

    with_points = Reconstructor(reconstructor.model, Untouched())
    (five,) = with_points.reconstruct(astronaut, landmarks=five_of(result))
    assert five.detector == five.landmarks["detector"] == "user"
    assert five.landmarks["names"] == FIVE_POINT_NAMES
    assert is_sane(five)
    assert f1(five.face_mask | five.outlier_mask, result.face_mask | result.outlier_mask) > 0.8


def five_of(result) -> Detection:
    """Five points where the fitted face has them, as a user would click them."""
    seven = result.camera.project(result.now_landmarks()).numpy().astype(np.float64)
    nose = result.model.landmarks68.on(result.neutral_vertices, result.model.triangles)[30:31]
    eyes = np.stack([seven[:2].mean(0), seven[2:4].mean(0)])
    points = np.concatenate([eyes, result.camera.project(nose).numpy(), seven[5:]]).astype(np.float64)
    return Detection("user", FIVE_POINT_NAMES, points, points, bounding_box(points))


@pytest.mark.parametrize("kind", ["black", "wall"])
def test_a_photo_without_a_face_is_said(reconstructor, kind):
    random = np.random.default_rng(0)
    pixels = {
        "black": np.zeros((200, 300, 3), np.uint8),
        "wall": cv2.GaussianBlur(random.integers(0, 256, (200, 300, 3), np.uint8), (0, 0), 8),
    }[kind]
    with pytest.raises(NoFaceError, match=r"wall\.png") as caught:
        reconstructor.reconstruct(photo_of(pixels, "wall.png"))
    assert "--landmarks-file" in caught.value.remedy


def test_landmarks_outside_the_photo_are_refused(reconstructor, astronaut, result):
    points = five_of(result)
    outside = dataclasses.replace(points, points=points.points + np.array([400.0, 0.0]))
    with pytest.raises(LandmarkError, match="outside the photo"):
        reconstructor.reconstruct(astronaut, landmarks=outside)


@pytest.mark.usefixtures("brief_fit")
@pytest.mark.parametrize("kind", ["one place", "a corner", "a line"])
def test_senseless_landmarks_are_refused_or_answered(reconstructor, astronaut, result, kind):
    points = five_of(result).points
    moved = {
        "one place": np.full((5, 2), 200.0),
        "a corner": (points - points.min(0)) * 0.02,
        "a line": np.stack([np.linspace(10, 500, 5), np.full(5, 256.0)], 1),
    }[kind]
    detection = Detection("user", FIVE_POINT_NAMES, moved, moved, bounding_box(moved))
    # Any other exception fails the test.
    with contextlib.suppress(FocusError):
        (face,) = reconstructor.reconstruct(astronaut, landmarks=detection)
        face.to_document()


@pytest.mark.slow
@pytest.mark.usefixtures("brief_fit")
def test_several_faces_come_largest_first_and_as_many_as_wanted(reconstructor, astronaut):
    small = cv2.resize(astronaut.pixels, (320, 320), interpolation=cv2.INTER_AREA)
    pixels = np.full((512, 832, 3), 128, np.uint8)
    pixels[:320, :320], pixels[:, 320:] = small, astronaut.pixels
    first, second = reconstructor.reconstruct(photo_of(pixels))
    assert (first.face_index, second.face_index) == (0, 1)
    assert extent(first)[2] > 320 > extent(second)[3]
    assert first.face_mask.shape == second.face_mask.shape == (512, 832)
    assert not ((first.face_mask | first.outlier_mask) & (second.face_mask | second.outlier_mask)).any()
    model = reconstructor.model
    # The same person twice, off centre: nearer to each other than faces are to the mean.
    assert shape_error(model, first.shape, second.shape) < shape_error(model, first.shape, torch.zeros_like(first.shape))
    (only,) = reconstructor.reconstruct(photo_of(pixels), max_faces=1)
    assert same_result(only, first)


@pytest.mark.usefixtures("brief_fit")
def test_two_people_side_by_side(reconstructor, model):
    people = [random_person(model, seed) for seed in (0, 4)]
    found = reconstructor.reconstruct(photo_of(np.hstack([person.pixels for person in people])))
    assert len(found) == 2
    found.sort(key=lambda face: extent(face)[2])
    for index, (face, person) in enumerate(zip(found, people, strict=True)):
        assert f1(face.face_mask[:, index * SIDE : (index + 1) * SIDE], person.region) > 0.9


def test_a_group_picture(reconstructor):
    insightface = pytest.importorskip("insightface", reason="its installed group picture is the photo")
    from pathlib import Path

    photo = read_photo(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg")
    found = reconstructor.reconstruct(photo)
    assert len(found) == 6
    assert all(is_sane(face) for face in found)
    sizes = [float(np.ptp(face.landmarks["points"][:, 0])) for face in found]
    assert sizes[0] > 0.9 * max(sizes)


def test_the_neutral_face_does_not_smile(reconstructor, model):
    """The smile goes into the expression: the neutral mouth is nearer to the person's own than to the smile."""
    points, triangles = model.landmarks68, model.triangles
    misses = []
    for seed in (1, 3):
        person = random_person(model, seed, expression=SMILE, yaw=0.0)
        (face,) = reconstructor.reconstruct(photo_of(person.pixels))
        truth = model.decode_shape(person.truth.shape.float())
        chosen = face_vertices(model)
        neutral = move_like(face.neutral_vertices, truth, chosen)
        mouths = [points.on(vertices.float(), triangles)[48:] for vertices in (neutral, truth, person.vertices)]
        # The whole mouth sits higher or lower with identity; its form is what a smile changes.
        width = [float((mouth[0] - mouth[6]).norm()) for mouth in mouths]
        gap = [float((mouth[14] - mouth[18]).norm()) for mouth in mouths]
        misses.append([abs(gap[0] - gap[1]), abs(gap[0] - gap[2]), abs(width[0] - width[1]), abs(width[0] - width[2])])
        assert gap[0] < 0.5 * (gap[1] + gap[2])
    means = np.mean(misses, 0)
    assert means[0] < means[1]
    assert means[2] < means[3]


def move_like(points, target, chosen):
    """All points under the shift and turn that lays the chosen ones on the target."""
    source, goal = points[chosen].double(), target[chosen].double()
    moved = aligned(source, goal)
    turn = torch.linalg.lstsq(source - source.mean(0), moved - moved.mean(0)).solution
    return (points.double() - source.mean(0)) @ turn + moved.mean(0)


def test_neutral_vertices_are_identity_only(result):
    assert torch.equal(result.neutral_vertices, result.model.decode_shape(result.shape))
    assert result.expression.abs().max() > 0.1


def test_a_mostly_hidden_face_is_warned_of(reconstructor, astronaut, result):
    pixels = astronaut.pixels.copy()
    region = result.face_mask | result.outlier_mask
    _, _, left, right = extent(result)
    hidden = region.copy()
    hidden[:, : left + int(0.2 * (right - left))] = False
    pixels[cv2.dilate(hidden.astype(np.uint8), np.ones((5, 5))) > 0] = (30, 140, 60)
    (face,) = reconstructor.reconstruct(photo_of(pixels), landmarks=five_of(result))
    assert face.outlier_mask.sum() > face.face_mask.sum()
    assert any("visible" in warning or "differ" in warning for warning in face.warnings)


@pytest.mark.slow
@pytest.mark.usefixtures("brief_fit")
def test_threads_do_not_disturb_each_other(model, reconstructor, astronaut):
    photos = (astronaut, photo_of(random_person(model, 0).pixels))
    alone = [reconstructor.reconstruct(photo)[0] for photo in photos]
    # A fresh one, so that both threads also meet at what is loaded on first use.
    fresh = Reconstructor.load(model, method="fit")
    with ThreadPoolExecutor(2) as pool:
        together = pool.map(lambda photo: fresh.reconstruct(photo)[0], photos)
    assert all(same_result(first, second) for first, second in zip(together, alone, strict=True))


def cut(pixels, result, side):
    """The photo with part of the face beyond its border."""
    top, bottom, left, right = extent(result)
    width, height = right - left, bottom - top
    return {
        "left": pixels[:, left + width // 6 :],
        "chin": pixels[: bottom - height // 5],
    }[side]


@pytest.mark.parametrize("side", ["left", "chin"])
def test_a_face_cut_off_by_the_border(reconstructor, astronaut, result, side):
    pixels = cut(astronaut.pixels, result, side)
    (face,) = reconstructor.reconstruct(photo_of(pixels))
    assert is_sane(face)
    assert face.face_mask.shape == pixels.shape[:2]
    assert face.face_mask.sum() > 0.4 * result.face_mask.sum()
    assert shape_error(face.model, face.shape, result.shape) < 3.0


def test_a_greyscale_photo(reconstructor, astronaut, result):
    grey = cv2.cvtColor(astronaut.pixels, cv2.COLOR_RGB2GRAY)
    (face,) = reconstructor.reconstruct(photo_of(np.repeat(grey[..., None], 3, 2)))
    assert is_sane(face)
    assert f1(face.face_mask, result.face_mask) > 0.9
    assert shape_error(face.model, face.shape, result.shape) < 1.0


def test_a_photo_of_64_pixels(reconstructor, astronaut, result):
    top, bottom, left, right = extent(result)
    row, column, half = (top + bottom) // 2, (left + right) // 2, 80
    pixels = astronaut.pixels[row - half : row + half, column - half : column + half]
    (face,) = reconstructor.reconstruct(photo_of(cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)))
    assert is_sane(face)
    assert face.face_mask.shape == (64, 64)
    assert face.face_mask.sum() > 500


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_photo_that_lies_on_its_side_or_head(reconstructor, astronaut, result, quarters):
    (face,) = reconstructor.reconstruct(photo_of(np.rot90(astronaut.pixels, quarters)))
    assert f1(face.face_mask, np.rot90(result.face_mask, quarters)) > 0.85


def test_progress_rises_to_one(result, told):
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert all(stage for stage, _ in told)
    # Often enough to be given up soon.
    assert len(told) > 150


def test_an_unknown_device_is_refused(model):
    with pytest.raises(ConfigError, match="mps"):
        Reconstructor.load(model, device="mps")


def test_the_box_around_the_face_is_drawn_in_its_place(model):
    person = random_person(model, 0)
    camera = person.truth.camera(torch.full((2,), SIDE / 2, dtype=torch.float64), SIDE, SIDE)
    texture, lighting = model.decode_albedo(person.truth.albedo.float()).clamp(0.01, 1), person.truth.lighting.float()
    picture, region = draw(model, person.vertices, texture, lighting, camera)
    # A pixel at an edge may fall to either side.
    assert f1(region, person.region) > 0.998
    assert np.abs(picture[region & person.region].astype(int) - person.pixels[region & person.region]).mean() < 1.5
    assert not picture[~region].any()


def test_clicks_on_a_render_recover_its_region(reconstructor, model):
    person = random_person(model, 2)
    (face,) = reconstructor.reconstruct(photo_of(person.pixels), landmarks=clicked(model, person))
    assert f1(face.face_mask, person.region) > 0.93
