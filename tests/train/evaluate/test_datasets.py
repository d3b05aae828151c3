"""Every layout of ground truth, and what is wrong with folders that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from focus_backend.errors import FocusError
from train.evaluate.datasets import read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.results import ResultIndex, read_truth


def test_our_layout(world):
    found = read_set(world[0])
    assert found.layout == "table"
    assert [photo.name for photo in found.photos] == ["ann_0", "ann_1", "bob_0", "bob_1"]
    first = found.photos[0]
    assert (first.subject, first.kind, first.yaw) == ("ann", "plain", 5.0)
    assert first.photo.is_file()
    assert first.scan.name == "ann.obj"
    assert first.landmarks.name == "ann.lmk"
    assert first.mask.files[0].is_file()


def test_our_layout_with_a_head_line_in_another_order(world):
    (world[0] / "photos.csv").write_text("photo,kind,subject\nann_0.png,plain,ann\n# a note\n\n")
    (photo,) = read_set(world[0]).photos
    assert (photo.subject, photo.yaw, photo.mask) == ("ann", None, None)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("ann,plain,ann_0.png,m.png,left", "no angle"),
        ("ann,plain,,m.png,3", "no file name"),
        ("", "no photo"),
        ("a,k,x.png\nb,k,x.jpg", "two photos"),
    ],
)
def test_damaged_tables_are_explained(world, table, said):
    (world[0] / "photos.csv").write_text(table)
    with pytest.raises(EvaluationError, match=said):
        read_set(world[0])


def now_set(worlds, root, subjects=("FaMoS_1_TA", "FaMoS_2_TA")):
    """The layout of the challenge, with one photo a subject and challenge, and results in one folder as `reconstruct` names them."""
    release = root / "final_release_version"
    entries = []
    for number, subject in enumerate(subjects):
        for place, challenge in enumerate(("multiview_neutral", "selfie")):
            photo = release / "iphone_pictures" / subject / challenge / "IMG_0001.jpg"
            worlds.write_photo(photo, 10 * number + place)
            face = np.ones((80, 64), bool)
            worlds.write_result(root / "results" / f"{number}{place}", photo, worlds.face_mesh(number), face, ~face)
            entries.append(f"{subject}/{challenge}/IMG_0001.jpg")
        worlds.write_scan(root / "scans" / subject, "natural", worlds.face_mesh())
        (root / "scans" / subject / "natural.lmk").unlink()
        points = "".join(f'<point x="{x}" y="{y}" z="{z}" active="1" name="{i}"/>\n' for i, (x, y, z) in enumerate(worlds.seven))
        (root / "scans_lmks_onlypp" / subject).mkdir(parents=True)
        (root / "scans_lmks_onlypp" / subject / "natural_picked_points.pp").write_text(f"<PickedPoints>\n{points}</PickedPoints>\n")
    (root / "imagepathsvalidation.txt").write_text("\n".join(entries[:3]) + "\n")
    return root


def test_now_layout_with_lists_and_scans_beside_the_photos(worlds, tmp_path):
    found = read_set(now_set(worlds, tmp_path))
    assert found.layout == "now"
    assert [photo.name for photo in found.photos] == [
        "FaMoS_1_TA/multiview_neutral/IMG_0001",
        "FaMoS_1_TA/selfie/IMG_0001",
        "FaMoS_2_TA/multiview_neutral/IMG_0001",
    ]
    assert found.photos[1].kind == "selfie"
    assert all(photo.scan.is_file() and photo.landmarks.suffix == ".pp" for photo in found.photos)
    assert found.photos == tuple(read_set(tmp_path / "final_release_version").photos)
    # Without a list of its own the test set is all there is.
    assert len(read_set(tmp_path, "test").photos) == 4


def test_now_results_of_one_stem_are_told_apart_by_their_photo(worlds, tmp_path):
    photos = read_set(now_set(worlds, tmp_path)).photos
    index = ResultIndex(tmp_path / "results")
    assert [index.find(photo).name for photo in photos] == ["00", "01", "10"]


def test_damaged_now_list(worlds, tmp_path):
    now_set(worlds, tmp_path)
    (tmp_path / "imagepathsvalidation.txt").write_text("IMG_0001.jpg\n")
    with pytest.raises(EvaluationError, match="subject/challenge/photo"):
        read_set(tmp_path)


def test_photos_and_masks_with_the_names_of_ar(worlds, tmp_path):
    for name in ("m-001-01", "m-001-08", "w-003-24"):
        worlds.write_photo(tmp_path / "photos" / f"{name}.png", 1)
        worlds.write_mask(tmp_path / "masks" / f"{name}.png", np.zeros((80, 64)))
    found = read_set(tmp_path)
    assert found.layout == "photos+masks"
    assert {photo.name: photo.kind for photo in found.photos} == {"m-001-01": "unoccluded", "m-001-08": "glasses", "w-003-24": "scarf"}


def test_masks_alone_with_kinds_as_folders(worlds, tmp_path):
    worlds.write_mask(tmp_path / "hats" / "a.png", np.zeros((80, 64)))
    worlds.write_mask(tmp_path / "b.png", np.zeros((80, 64)))
    assert {photo.name: photo.kind for photo in read_set(tmp_path).photos} == {"hats/a": "hats", "b": "all"}


def test_celebamask_layout(worlds, tmp_path):
    masks = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    for number in (8, 9, 19):
        worlds.write_photo(tmp_path / "CelebA-HQ-img" / f"{number}.jpg", number)
        skin = np.zeros((40, 32))
        skin[:20] = 255
        worlds.write_mask(masks / f"{number:05d}_skin.png", skin)
    worlds.write_mask(masks / "00019_eye_g.png", np.pad(np.full((5, 32), 255), ((0, 35), (0, 0))))
    found = read_set(tmp_path)
    assert {photo.name: photo.kind for photo in found.photos} == {"9": "unoccluded", "19": "occluded"}
    truth = read_truth(found.photos[0].mask, (80, 64))
    if found.photos[0].name == "9":
        truth = read_truth(found.photos[1].mask, (80, 64))
    # Half the photo is skin, an eighth of it under glasses.
    assert (truth == 255).sum() == 80 * 64 // 2 - 10 * 64


def test_folders_without_ground_truth_are_explained(tmp_path):
    with pytest.raises(EvaluationError, match="no photo with ground truth"):
        read_set(tmp_path)
    with pytest.raises(EvaluationError, match="there is no folder"):
        read_set(tmp_path / "gone")
    with pytest.raises(EvaluationError, match="no subset"):
        read_set(tmp_path, "training")


def test_results_folder_without_results(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(FocusError, match="no"):
            ResultIndex(folder)


def test_the_largest_face_is_taken_and_results_of_other_photos_are_not(worlds, world):
    dataset, results = world
    photo = dataset / "photos" / "ann_0.png"
    face = np.ones((80, 64), bool)
    worlds.write_result(results / "aaa", photo, worlds.face_mesh(), face, ~face, face_index=1)
    first = read_set(dataset).photos[0]
    assert ResultIndex(results).find(first).name == "ann_0"
    document = json.loads((results / "ann_0" / "result.json").read_text())
    document["photo"]["sha256"] = "0" * 64
    (results / "ann_0" / "result.json").write_text(json.dumps(document))
    (results / "aaa" / "result.json").unlink()
    assert ResultIndex(results).find(first) is None


def test_truth_has_three_values_and_takes_the_size_of_the_result(worlds, tmp_path):
    from train.data.photos import MaskFiles

    values = np.repeat(np.array([[0, 60, 128, 190, 200, 255]], np.uint8), 3, 0)
    worlds.write_mask(tmp_path / "m.png", values)
    mask = MaskFiles((tmp_path / "m.png",))
    assert read_truth(mask, (3, 6))[0].tolist() == [0, 0, 128, 128, 255, 255]
    assert read_truth(mask, (6, 12)).shape == (6, 12)
    with pytest.raises(EvaluationError, match="proportions"):
        read_truth(mask, (60, 30))


def test_two_results_of_one_photo_are_ambiguous_but_in_one_run(worlds, world):
    dataset, results = world
    first = read_set(dataset).photos[0]
    face = np.ones((80, 64), bool)
    worlds.write_result(results / "a_copy", first.photo, worlds.face_mesh(), face, ~face)
    assert ResultIndex(results).find(first).name == "ann_0"
    worlds.write_result(results / "other_run" / "ann_0", first.photo, worlds.face_mesh(), face, ~face)
    with pytest.raises(EvaluationError, match="results of one photo"):
        ResultIndex(results).find(first)
