"""A user's own landmarks: good files in, one clear line for bad ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.detector import FIVE_POINT_NAMES
from focus_backend.landmarks.user import LANDMARKS68_NAMES, check_inside, embed_names, read_landmarks

FIVE = {"right_eye": [20, 30], "left_eye": [60, 30.5], "nose_tip": [40, 50], "mouth_right": [28, 70], "mouth_left": [52, 70]}


def _write(tmp_path, document) -> str:
    path = tmp_path / "face.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_five_named_points(tmp_path):
    landmarks = read_landmarks(_write(tmp_path, {"points": FIVE}))
    assert landmarks.names == FIVE_POINT_NAMES
    assert np.array_equal(landmarks.five_points, np.array(list(FIVE.values())))
    assert landmarks.box == (20, 30, 60, 70)


def test_a_list_of_five_is_in_the_order_of_the_names(tmp_path):
    assert np.array_equal(read_landmarks(_write(tmp_path, list(FIVE.values()))).points, np.array(list(FIVE.values())))


def test_68_points_give_the_five(tmp_path):
    points = np.random.default_rng(0).uniform(0, 100, (68, 2))
    landmarks = read_landmarks(_write(tmp_path, {"points": points.tolist()}))
    assert landmarks.names == LANDMARKS68_NAMES
    assert np.allclose(landmarks.five_points, [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def test_eyes_by_their_corners(tmp_path):
    points = {k: v for k, v in FIVE.items() if "eye" not in k}
    points |= {"right_eye_outer": [15, 30], "right_eye_inner": [25, 30], "left_eye_inner": [55, 30], "left_eye_outer": [65, 30]}
    assert np.array_equal(read_landmarks(_write(tmp_path, {"points": points})).five_points[:2], [[20, 30], [60, 30]])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ({}, 'has no "points"'),
        ("7", 'has no "points"'),
        ({"points": [[1, 2]] * 4}, "lists 4 points"),
        ({"points": {k: FIVE[k] for k in list(FIVE)[:4]}}, "has 4 points"),
        ({"points": FIVE | {"nose_tip": [float("nan"), 1]}}, "nose_tip is not finite"),
        ({"points": FIVE | {"nose_tip": [float("inf"), 1]}}, "nose_tip is not finite"),
        ({"points": FIVE | {"nose_tip": [10**400, 1]}}, "nose_tip is not finite"),
        ({"points": FIVE | {"nose_tip": [20, 30]}}, "nose_tip and right_eye are at the same place"),
        ({"points": FIVE | {"nose_tip": "here"}}, "nose_tip is not a pair"),
        ({"points": FIVE | {"nose_tip": [1, True]}}, "nose_tip is not a pair"),
        ({"points": FIVE | {"chin": [1, 2]}}, "'chin' that is not known"),
        ({"points": {f"landmark_{i:02d}": [i, 2] for i in range(6)}}, "does not say where the right_eye is"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path, document, says):
    with pytest.raises(LandmarkError, match=r"face\.json") as caught:
        read_landmarks(_write(tmp_path, document))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(LandmarkError, match="cannot be read"):
        read_landmarks(tmp_path / "nothing.json")
    with pytest.raises(LandmarkError, match="cannot be read"):
        read_landmarks(tmp_path)
    (tmp_path / "picture.json").write_bytes(bytes(range(256)))
    with pytest.raises(LandmarkError, match="is not JSON"):
        read_landmarks(tmp_path / "picture.json")


def test_points_outside_the_photo(tmp_path):
    landmarks = read_landmarks(_write(tmp_path, {"points": FIVE}))
    check_inside(landmarks, 60, 70)
    with pytest.raises(LandmarkError, match="left_eye"):
        check_inside(landmarks, 59, 70)


def test_named_points_on_a_model(tiny_model):
    embedding = embed_names(tiny_model, (*FIVE_POINT_NAMES, "right_eye_outer", "landmark_08"))
    places = embedding.points.on(tiny_model.mean_shape, tiny_model.triangles)
    sixty_eight = tiny_model.landmarks68.on(tiny_model.mean_shape, tiny_model.triangles)
    assert torch.equal(places[2], sixty_eight[30])
    assert torch.equal(places[6], sixty_eight[8])
    assert torch.equal(places[5], tiny_model.now_landmarks.on(tiny_model.mean_shape, tiny_model.triangles)[0])
    # The eye's centre lies on the surface, near the middle of its lids.
    assert (places[0] - sixty_eight[36:42].mean(0))[:2].norm() < 20
