"""The default detector on real photos: one face, many, small, turned, cut off, none."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from focus_backend.landmarks import FIVE_POINT_NAMES, LandmarkDetector, create_detector
from focus_backend.landmarks.mediapipe_points import POINT_NAMES, mirrored_indices

# Read off the photo by hand: right eye, left eye, nose tip, right and left mouth corner of the astronaut.
ASTRONAUT_FIVE = np.array([[204, 101], [247, 103], [225, 127.5], [202, 139.5], [245, 141]])


def test_astronaut_points_lie_on_the_features(detector, astronaut):
    (face,) = detector.detect(astronaut)
    assert face.names == POINT_NAMES
    assert face.points.shape == (478, 2)
    assert len(face.five_points) == len(FIVE_POINT_NAMES)
    assert np.abs(face.five_points - ASTRONAUT_FIVE).max() < 4
    assert face.score > 0.9
    assert 0 < np.median(face.spread) < 0.01 * face.size


def test_repeats_bit_by_bit(detector, astronaut):
    first, second = (detector.detect(astronaut)[0] for _ in range(2))
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.depth, second.depth)


def test_mirrored_photo_gives_mirrored_points(detector, astronaut):
    (face,) = detector.detect(astronaut)
    (mirrored,) = detector.detect(np.ascontiguousarray(astronaut[:, ::-1]))
    expected = face.points[mirrored_indices()] * [-1, 1] + [astronaut.shape[1], 0]
    # Half a pixel covers what other first crops change; a left-right mix-up is 40 pixels.
    assert np.median(np.linalg.norm(mirrored.points - expected, axis=1)) < 0.5


def test_mirror_table_pairs_every_point():
    indices = mirrored_indices()
    assert np.array_equal(indices[indices], np.arange(478))
    assert (indices == np.arange(478)).sum() == 28


@pytest.mark.parametrize("scale", [0.25, 0.5, 3.0])
def test_size_of_the_photo_only_scales_the_points(detector, astronaut, scale):
    (face,) = detector.detect(astronaut)
    resized = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    (other,) = detector.detect(resized)
    errors = np.linalg.norm(other.points / scale - face.points, axis=1)
    assert np.median(errors) < 0.02 * face.size


@pytest.mark.parametrize("degrees", [45, 90, 180, 270])
def test_turned_faces(detector, astronaut, degrees):
    (face,) = detector.detect(astronaut)
    height, width = astronaut.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 0.7)
    turned = cv2.warpAffine(astronaut, matrix, (width, height), borderValue=(90, 120, 90))
    (other,) = detector.detect(turned)
    expected = (face.points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
    assert np.median(np.linalg.norm(other.points - expected, axis=1)) < 0.03 * face.size


def test_face_cut_off_by_the_photo(detector, astronaut):
    (face,) = detector.detect(astronaut)
    (cropped,) = detector.detect(np.ascontiguousarray(astronaut[80:190, 180:270]))
    errors = cropped.points - (face.points - np.array([180, 80]))
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.03 * face.size


def test_small_face_in_a_large_photo(detector, astronaut):
    small = cv2.resize(astronaut, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    photo = cv2.copyMakeBorder(small, 900, 500, 200, 1400, cv2.BORDER_CONSTANT, value=(90, 120, 90))
    (face,) = detector.detect(photo)
    assert np.abs(face.five_points - (ASTRONAUT_FIVE * 0.4 + [200, 900])).max() < 4


def test_two_faces_come_largest_first(detector, astronaut):
    small = cv2.resize(astronaut, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    photo = np.full((512, 900, 3), 120, np.uint8)
    photo[: len(small), : len(small)] = small
    photo[:, 388:] = astronaut
    large, little = detector.detect(photo)
    assert large.box[0] > 388 > little.box[2]
    assert large.size > 1.4 * little.size


@pytest.mark.parametrize("shape", [(200, 300), (8, 8), (1, 500), (500, 1)])
def test_nothing_is_found_where_no_face_is(detector, shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3)).astype(np.uint8)
    assert detector.detect(noise) == []


def test_threads_share_one_detector(detector, astronaut):
    alone = detector.detect(astronaut)[0].points
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector.detect, [astronaut] * 3))
    assert all(np.array_equal(faces[0].points, alone) for faces in together)


def test_group_photo(detector):
    found = importlib.util.find_spec("insightface")
    if found is None or found.origin is None:
        pytest.skip("insightface, whose package holds the group photo, is not installed")
    photo = Path(found.origin).parent / "data" / "images" / "t1.jpg"
    faces = detector.detect(np.asarray(Image.open(photo).convert("RGB")))
    assert len(faces) == 6
    assert [face.size for face in faces] == sorted((face.size for face in faces), reverse=True)


def test_nothing_is_written_to_the_error_stream(astronaut, capfd):
    create_detector("mediapipe").detect(astronaut)
    assert capfd.readouterr().err == ""


def test_is_a_landmark_detector(detector):
    assert isinstance(detector, LandmarkDetector)
