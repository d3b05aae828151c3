"""What the commands print and return."""

from __future__ import annotations

import json
import shutil

import pytest

from focus_backend.commands import evaluate
from focus_backend.errors import ConfigError


def test_now_with_a_test_against_another_run(world, tmp_path, capsys):
    dataset, results = world
    other = tmp_path / "other"
    shutil.copytree(results, other)
    for name in ("ann_0", "ann_1"):
        shutil.copy(results / "bob_0" / "neutral.obj", other / name / "neutral.obj")
    assert evaluate.now(dataset, other, tmp_path / "run") == 0
    capsys.readouterr()
    documents = []
    # Results, or what was evaluated of them before.
    for against in (other, tmp_path / "run"):
        assert evaluate.now(dataset, results, as_json=True, against=against) == 0
        documents.append(json.loads(capsys.readouterr().out))
    first, second = (document["tests"]["photos"] for document in documents)
    assert first["pairs"] == 4
    assert first["difference"] < 0
    assert first["p"] == pytest.approx(second["p"], rel=1e-3)
    assert evaluate.now(dataset, results, against=other) == 0
    assert "paired t-test over points" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="refinement"):
        evaluate.now(dataset, results, refinement="best")


def test_failures_are_named_and_tell_in_the_exit_code(world, capsys):
    dataset, results = world
    shutil.rmtree(results / "bob_1")
    for command in (evaluate.now, evaluate.segmentation):
        assert command(dataset, results) == 2
        captured = capsys.readouterr()
        assert "failed: bob_1: no result of this photo" in captured.err
        assert command(dataset, results, as_json=True) == 2
        document = json.loads(capsys.readouterr().out)
        assert document["judged"] == 3
        assert document["failed"] == [{"photo": "bob_1", "reason": "no result of this photo"}]


def test_compare_prints_one_object(world, tmp_path, capsys):
    for name in ("a", "b"):
        evaluate.segmentation(*world, tmp_path / name)
    capsys.readouterr()
    assert evaluate.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "page", as_json=True) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["a", "b"]
    assert (tmp_path / "page" / "compare.html").is_file()
