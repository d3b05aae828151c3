"""Runs side by side: shared photos, tests, and a page that stands alone."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from train.evaluate.compare import compare, comparison_document, comparison_text, read_runs, write_comparison
from train.evaluate.errors import EvaluationError
from train.evaluate.now import evaluate_now, write_now
from train.evaluate.per_photo import write_scores
from train.evaluate.segmentation import evaluate_segmentation


@pytest.fixture
def runs(worlds, world, tmp_path):
    """Two evaluated runs over one dataset; the second is worse, and has no result of one photo."""
    dataset, results = world
    worse = tmp_path / "worse_results"
    shutil.copytree(results, worse)
    for folder in worse.iterdir():
        shutil.copy(results / "bob_0" / "neutral.obj", folder / "neutral.obj")
    shutil.rmtree(worse / "bob_1")
    folders = []
    for name, of in (("good", results), ("<worse>", worse)):
        write_now(evaluate_now(dataset, of), tmp_path / name)
        write_scores(evaluate_segmentation(dataset, of), tmp_path / name)
        folders.append(tmp_path / name)
    return folders


def test_only_shared_photos_count(runs):
    comparison = compare(read_runs(runs))
    assert comparison.columns == ("median", "mean", "std", "ACC", "PPV", "TPR", "F1", "IoU")
    assert comparison.shared == {"now": 3, "segmentation": 3}
    assert comparison.failed == (0, 1)
    good, worse = (dict(zip(comparison.columns, figures, strict=True)) for figures in comparison.figures)
    assert good["mean"] < worse["mean"]
    assert good["F1"] == pytest.approx(worse["F1"])
    shared = np.concatenate([comparison.runs[0].distances[name] for name in ("ann_0", "ann_1", "bob_0")])
    assert good["mean"] == pytest.approx(shared.mean())
    test = comparison.tests["<worse>"]["photos"]
    assert test.pairs == 3
    assert test.difference < 0
    assert comparison.ranking[0] == "bob_0"


def test_page_stands_alone(runs, tmp_path):
    comparison = compare(read_runs(runs))
    write_comparison(comparison, tmp_path / "out", pictures=1)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<worse>" not in page
    assert "&lt;worse&gt;" in page
    assert not re.search(r"https?:|src=\"(?!data:)|href=", page)
    # Curves, and two runs of the worst and of the best photo.
    assert page.count("data:image/png") == 1
    assert page.count("data:image/jpeg") == 4
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["runs"][1]["failed"] == 1
    assert "| good |" in (tmp_path / "out" / "compare.md").read_text()


def test_page_without_pictures_says_so(runs, world, tmp_path):
    for path in world[1].glob("*/report.jpg"):
        path.unlink()
    write_comparison(compare(read_runs(runs)), tmp_path / "out")
    assert "no picture" in (tmp_path / "out" / "compare.html").read_text()


def test_a_run_of_masks_alone_beside_one_with_shapes(runs):
    (runs[1] / "now.json").unlink()
    comparison = compare(read_runs(runs))
    assert comparison.tests == {}
    assert np.isnan(comparison.figures[1][0])
    assert "-" in comparison_text(comparison)
    assert comparison_document(comparison)["photos"] == {"now": 4, "segmentation": 3}


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    for place in ("a", "b"):
        shutil.copytree(runs[0], tmp_path / place / "run")
    assert [run.name for run in read_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])] == ["a/run", "b/run"]
    with pytest.raises(EvaluationError, match="twice"):
        read_runs([runs[0], runs[0]])


def test_folders_that_are_no_runs(runs, tmp_path):
    with pytest.raises(EvaluationError, match="no report"):
        read_runs([tmp_path])
    (runs[0] / "now.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"now\.json is damaged"):
        read_runs(runs)
    with pytest.raises(EvaluationError, match="no runs"):
        compare([])
