"""The NoW protocol over a dataset: pooling, subsets, failures, tests between runs, files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from train.evaluate.datasets import read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import read_landmarks, read_mesh
from train.evaluate.now import evaluate_now, now_document, now_table, read_distances, result_yaw, write_now
from train.evaluate.statistics import bootstrap_errors, compare_runs, cumulative_curve, summarise, yaw_bin
from train.evaluate.submission import write_submission


def test_figures_are_pooled_and_split(world):
    report = evaluate_now(*world)
    assert (report.refinement, len(report.photos), report.failed) == ("rounds", 4, ())
    pooled = np.concatenate([photo.distances for photo in report.photos])
    assert report.total.mean == pytest.approx(pooled.mean())
    assert report.total.median == pytest.approx(np.median(pooled))
    assert report.total.std == pytest.approx(pooled.std())
    means = {photo.photo: photo.distances.mean() for photo in report.photos}
    # Files keep five decimals.
    assert means["ann_0"] < 1e-4
    assert 0.2 < means["bob_0"] < 2
    assert set(report.by_kind) == {"plain", "glasses"}
    assert {name: summary.photos for name, summary in report.by_yaw.items()} == {"0-15": 2, "45-60": 2}
    assert "glasses" in now_table(report)


@pytest.mark.slow
def test_processes_give_the_same(world):
    alone, shared = evaluate_now(*world), evaluate_now(*world, jobs=2)
    for one, other in zip(alone.photos, shared.photos, strict=True):
        assert one.photo == other.photo
        np.testing.assert_array_equal(one.distances, other.distances)


def test_missing_and_damaged_results_are_named_and_counted(world):
    dataset, results = world
    shutil.rmtree(results / "ann_0")
    (results / "ann_1" / "neutral.obj").write_text("v 0 0\n")
    report = evaluate_now(dataset, results)
    assert [failure.photo for failure in report.failed] == ["ann_0", "ann_1"]
    assert "no result" in report.failed[0].reason
    assert "neutral.obj" in report.failed[1].reason
    document = now_document(report)
    assert (document["judged"], len(document["failed"])) == (2, 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unreadable_scan_is_named(world, jobs):
    dataset, results = world
    (dataset / "scans" / "bob.obj").write_bytes(b"v 1 2\n")
    with pytest.raises(EvaluationError, match=r"bob\.obj is damaged"):
        evaluate_now(dataset, results, jobs=jobs)


def test_a_missing_scan_is_named(world):
    dataset, results = world
    (dataset / "scans" / "bob.obj").unlink()
    with pytest.raises(EvaluationError, match=r"no scan for photo bob_0.*bob\.obj is missing"):
        evaluate_now(dataset, results)


def test_a_set_of_masks_has_no_scans(worlds, world, tmp_path):
    worlds.write_mask(tmp_path / "only" / "ann_0.png", np.zeros((80, 64)))
    with pytest.raises(EvaluationError, match="no scan"):
        evaluate_now(tmp_path / "only", world[1])


def test_nothing_to_judge_is_an_error(world):
    dataset, results = world
    for path in results.glob("*/neutral.obj"):
        path.unlink()
    with pytest.raises(EvaluationError, match=r"no photo could be judged.*neutral\.obj"):
        evaluate_now(dataset, results)


def test_files_hold_every_distance(world, tmp_path):
    report = evaluate_now(*world)
    write_now(report, tmp_path / "run")
    kept = read_distances(tmp_path / "run")
    assert list(kept) == [photo.photo for photo in report.photos]
    for photo in report.photos:
        np.testing.assert_allclose(kept[photo.photo], photo.distances, rtol=1e-6)
    document = json.loads((tmp_path / "run" / "now.json").read_text())
    assert document["total"]["mean"] == pytest.approx(report.total.mean)
    assert document["photos"][0]["points"] == len(report.photos[0].distances)
    for name in ("now_curve.png", "now_groups.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(EvaluationError, match="missing or damaged"):
        read_distances(tmp_path)


def test_summary_by_hand():
    summary = summarise([np.array([1.0, 2, 3]), np.array([10.0])])
    assert (summary.photos, summary.points, summary.median, summary.mean) == (2, 4, 2.5, 4.0)
    assert summary.std == pytest.approx(np.std([1, 2, 3, 10]))


def test_bootstrap_is_the_standard_error_of_the_mean():
    random = np.random.default_rng(3)
    means = random.normal(5, 1, 60)
    photos = [np.abs(mean + 0.01 * random.normal(size=200)) for mean in means]
    _, mean_error = bootstrap_errors(photos, draws=4000)
    assert mean_error == pytest.approx(means.std(ddof=1) / np.sqrt(60), rel=0.1)
    assert np.isnan(bootstrap_errors(photos[:1])).all()


def test_cumulative_curve_by_hand():
    thresholds, percentages = cumulative_curve([np.array([0.5, 1.0]), np.array([3.0, 100.0])])
    share = dict(zip(thresholds, percentages, strict=True))
    assert (share[0.0], share[0.45], share[0.5], share[1.0], share[3.0], share[7.0]) == (0, 0, 25, 50, 75, 75)


def test_yaw_bins_know_no_side():
    assert [yaw_bin(yaw) for yaw in (0.0, -14.9, 15.0, 59.0, -95.0, None, float("nan"))] == [
        "0-15",
        "0-15",
        "15-30",
        "45-60",
        "60-90",
        None,
        None,
    ]
    # Turned by atan2(0.6, 0.8) about the vertical axis.
    assert result_yaw({"camera": {"rotation": [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]}}) == pytest.approx(36.87, abs=0.01)
    assert result_yaw({}) is None


def test_paired_test_agrees_with_scipy():
    random = np.random.default_rng(0)
    first = {f"p{i}": np.abs(random.normal(1, 1, 40)) for i in range(6)}
    second = {name: values + 0.05 * random.normal(size=40) for name, values in first.items()} | {"extra": np.ones(3)}
    tests = compare_runs(first, second)
    names = sorted(first)
    photos = stats.ttest_rel([first[n].mean() for n in names], [second[n].mean() for n in names])
    points = stats.ttest_rel(np.concatenate([first[n] for n in names]), np.concatenate([second[n] for n in names]))
    for found, wanted, pairs in ((tests["photos"], photos, 6), (tests["points"], points, 240)):
        assert found.pairs == pairs
        assert (found.t, found.p) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert compare_runs(first, first)["points"].p == 1.0


def test_runs_that_cannot_be_paired():
    with pytest.raises(EvaluationError, match="in common"):
        compare_runs({"a": np.ones(2)}, {"b": np.ones(2)})
    with pytest.raises(EvaluationError, match="different scans"):
        compare_runs({"a": np.ones(2)}, {"a": np.ones(3)})


def test_submission_has_a_mesh_and_landmarks_a_photo(worlds, tmp_path):
    release = tmp_path / "final_release_version" / "iphone_pictures"
    photos = [release / "S1" / "selfie" / "IMG_1.jpg", release / "S2" / "multiview_neutral" / "IMG_1.jpg"]
    for number, photo in enumerate(photos):
        worlds.write_photo(photo, number)
    face = np.ones((80, 64), bool)
    worlds.write_result(tmp_path / "results" / "IMG_1", photos[0], worlds.face_mesh(), face, ~face)
    made = write_submission(tmp_path, tmp_path / "results", tmp_path / "files")
    assert made.written == ("S1/selfie/IMG_1",)
    assert [failure.photo for failure in made.failed] == ["S2/multiview_neutral/IMG_1"]
    np.testing.assert_allclose(read_landmarks(tmp_path / "files" / "S1" / "selfie" / "IMG_1.txt"), worlds.seven)
    mesh = read_mesh(tmp_path / "files" / "S1" / "selfie" / "IMG_1.obj")
    assert mesh.triangles.tolist() == worlds.face_mesh().triangles.tolist()


def test_submission_of_another_layout_is_refused(world, tmp_path):
    with pytest.raises(EvaluationError, match="NoW"):
        write_submission(*world, tmp_path / "files")


def test_official_layout_converges(worlds, tmp_path):
    photo = tmp_path / "iphone_pictures" / "S1" / "selfie" / "IMG_1.jpg"
    worlds.write_photo(photo, 1)
    worlds.write_scan(tmp_path / "scans" / "S1", "scan", worlds.face_mesh())
    worlds.write_scan(tmp_path / "scans_lmks_onlypp" / "S1", "scan", worlds.face_mesh())
    (tmp_path / "imagepathsvalidation.txt").write_text("./S1/selfie/IMG_1.jpg\n")
    face = np.ones((80, 64), bool)
    worlds.write_result(tmp_path / "results" / "IMG_1", photo, worlds.face_mesh(1.0), face, ~face)
    report = evaluate_now(read_set(tmp_path), tmp_path / "results")
    assert report.refinement == "converged"
    assert report.photos[0].yaw == pytest.approx(36.87, abs=0.01)
