"""Mask scores and colour errors by hand, and over datasets."""

from __future__ import annotations

import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch

from focus_backend.export.bundle import write_reconstruction
from focus_backend.morphable.store import save_model
from train.evaluate.errors import EvaluationError
from train.evaluate.per_photo import score_document, score_table, write_scores
from train.evaluate.segmentation import evaluate_segmentation, mask_scores


def test_mask_scores_by_hand():
    truth = np.array([[255, 255, 255, 0, 0, 128, 128, 255]], np.uint8)
    face = np.array([[1, 1, 0, 1, 0, 1, 0, 0]], bool)
    outlier = np.array([[0, 0, 1, 0, 1, 0, 1, 0]], bool)
    scores = mask_scores(truth, face, outlier)
    # Judged in the region: hits 2, missed 1, false 1, right rejection 1; one true pixel lies outside the region.
    assert scores == pytest.approx({"ACC": 3 / 5, "PPV": 2 / 3, "TPR": 2 / 3, "F1": 2 / 3, "IoU": 2 / 5})


def test_masks_with_nothing_to_count():
    truth, nothing, everything = np.full((2, 2), 255, np.uint8), np.zeros((2, 2), bool), np.ones((2, 2), bool)
    none_found = mask_scores(truth, nothing, everything)
    assert (none_found["ACC"], none_found["PPV"], none_found["TPR"], none_found["F1"]) == (0, 0, 0, 0)
    no_face = mask_scores(truth * 0, nothing, everything)
    assert no_face["ACC"] == 1
    assert all(math.isnan(no_face[name]) for name in ("PPV", "TPR", "F1", "IoU"))
    assert math.isnan(mask_scores(truth, nothing, nothing)["ACC"])


def test_scores_are_averaged_over_photos(world, tmp_path):
    dataset, results = world
    perfect = np.zeros((80, 64), bool)
    perfect[:60, 8:56] = True
    cv2.imwrite(str(results / "bob_1" / "face_mask.png"), perfect.astype(np.uint8) * 255)
    rest = np.zeros((80, 64), bool)
    rest[60:70, 8:56] = True
    cv2.imwrite(str(results / "bob_1" / "outlier_mask.png"), rest.astype(np.uint8) * 255)
    report = evaluate_segmentation(dataset, results)
    # Rows 0-44 are found, 45-59 missed, 60-69 rightly rejected.
    half = {"ACC": 55 / 70, "PPV": 1.0, "TPR": 45 / 60, "F1": 2 * 45 / (2 * 45 + 15), "IoU": 45 / 60}
    for photo in report.photos:
        assert photo.scores == pytest.approx(dict.fromkeys(half, 1.0) if photo.photo == "bob_1" else half)
    assert report.averages("glasses")["F1"][0] == pytest.approx((half["F1"] + 1) / 2)
    assert report.averages()["F1"][0] == pytest.approx((3 * half["F1"] + 1) / 4)
    write_scores(report, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "segmentation.json").read_text())
    assert kept["by_kind"]["plain"]["TPR"]["mean"] == pytest.approx(0.75)
    assert "glasses" in score_table(report)


def test_missing_and_damaged_masks_are_failures(world):
    dataset, results = world
    shutil.rmtree(results / "ann_0")
    (results / "ann_1" / "face_mask.png").write_bytes(b"no picture")
    cv2.imwrite(str(results / "bob_0" / "outlier_mask.png"), np.zeros((3, 3), np.uint8))
    report = evaluate_segmentation(dataset, results)
    assert [failure.photo for failure in report.failed] == ["ann_0", "ann_1", "bob_0"]
    assert len(score_document(report)["failed"]) == 3


def test_a_missing_truth_is_an_error(world):
    dataset, results = world
    (dataset / "masks" / "ann_0.png").unlink()
    with pytest.raises(EvaluationError, match=r"ann_0\.png is missing"):
        evaluate_segmentation(dataset, results)


def test_a_dataset_without_masks_is_an_error(world):
    dataset, results = world
    (dataset / "photos.csv").write_text("ann,plain,ann_0.png\n")
    with pytest.raises(EvaluationError, match="no ground-truth masks"):
        evaluate_segmentation(dataset, results)


def test_paint_is_neither_right_nor_wrong(world):
    dataset, results = world
    (dataset / "photos.csv").write_text("ann,paint,ann_0.png,ann_0.png\nann,plain,ann_1.png,ann_1.png\n")
    report = evaluate_segmentation(dataset, results)
    assert report.averages()["F1"][0] == pytest.approx(report.averages("plain")["F1"][0])


def test_colour_error_by_hand():
    from train.evaluate.photometric import colour_error

    photo, rendering = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    rendering[0, 0] = (3, 4, 0)
    photo[1, 1] = 200
    where = np.array([[True, True], [False, False]])
    assert colour_error(photo, rendering, where) == pytest.approx(math.sqrt((9 + 16) / 6))
    assert math.isnan(colour_error(photo, rendering, ~where & where))


@pytest.fixture
def drawn(tiny_model, tiny_reconstruction, tmp_path):
    """A dataset of one photo, which is 20 grey levels darker than its reconstruction, and the result; and the model's file.

    All around the rendered region is true face, too, so that only the region must be looked at.
    """
    import dataclasses

    from focus_backend.photo_paths import photo_hash
    from focus_backend.reconstruction.reconstructor import draw

    result = tiny_reconstruction
    light = torch.zeros(9, 3)
    light[0] = 1.5
    vertices, albedo = result.model.decode(result.shape, result.expression, result.albedo)
    image, region = draw(result.model, vertices, albedo, light, result.camera)
    photo = np.where(region[..., None], np.maximum(image.astype(int) - 20, 0), 0).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), photo[:, :, ::-1])
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), (~region | (image.min(-1) >= 20)).astype(np.uint8) * 255)
    whole = dataclasses.replace(
        result,
        lighting=light,
        photo=photo,
        rendering=image,
        face_mask=region,
        outlier_mask=~region & False,
        photo_sha256=photo_hash(tmp_path / "photos" / "a.png") or "",
    )
    sha256 = save_model(tiny_model, tmp_path / "tiny.safetensors")
    whole = dataclasses.replace(whole, model=dataclasses.replace(tiny_model, metadata={"sha256": sha256}))
    write_reconstruction(whole, tmp_path / "results" / "a")
    return tmp_path


def test_colours_are_compared_with_the_drawn_result(drawn):
    from train.evaluate.photometric import evaluate_photometric

    report = evaluate_photometric(drawn, drawn / "results", model=drawn / "tiny.safetensors")
    # The stored model's bases are half precision.
    assert report.photos[0].scores["RMSE"] == pytest.approx(20, abs=1.0)


def test_results_that_do_not_fit_their_model_are_failures(drawn):
    from train.evaluate.photometric import evaluate_photometric

    path = drawn / "results" / "a" / "result.json"
    document = json.loads(path.read_text())
    document["camera"]["translation_mm"][0] += 60
    path.write_text(json.dumps(document))
    with pytest.raises(EvaluationError, match="does not fit its masks"):
        evaluate_photometric(drawn, drawn / "results", model=drawn / "tiny.safetensors")
    document["model"]["sha256"] = "1" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(EvaluationError, match="another version of the face model"):
        evaluate_photometric(drawn, drawn / "results", model=drawn / "tiny.safetensors")
    document["model"]["sha256"] = ""
    del document["theta"]["shape"]
    path.write_text(json.dumps(document))
    with pytest.raises(EvaluationError, match="coefficients"):
        evaluate_photometric(drawn, drawn / "results", model=drawn / "tiny.safetensors")
