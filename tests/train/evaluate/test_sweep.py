"""A sweep with a training that does nothing: which cases there are, and that it goes on where it was left."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from focus_backend.errors import TrainingError
from train.evaluate.datasets import read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.sweep import WEIGHTS, Sweep, run_sweep, share_stages, sweep_cases, sweep_rows

BASE = {"eta1": 15.0, "eta2": 3.0, "eta3": 0.5, "eta4": 2.5, "eta5": 0.0}


class Trainer:
    """Notes what it is asked for; results are the same every time but without those of `broken` cases."""

    def __init__(self, results):
        self.results, self.asked, self.broken = results, [], set()

    def train(self, overrides, out):
        self.asked.append(dict(overrides))
        if out.parent.name in self.broken:
            raise TrainingError("losses are not finite", "train slower")
        (out / "weights").mkdir(parents=True, exist_ok=True)
        return out / "weights"

    def reconstruct(self, weights, photos, out):
        assert weights.name == "weights"
        assert len(photos) == 4
        shutil.copytree(self.results, out, dirs_exist_ok=True)


@pytest.fixture
def plan(world, tmp_path):
    """A sweep over the small world and its trainer."""
    trainer = Trainer(world[1])
    return Sweep(BASE, "abc", read_set(world[0]), tmp_path / "sweep", trainer.train, trainer.reconstruct), trainer


def test_cases_change_one_weight_each():
    cases = sweep_cases(BASE, (0.5, 1.0, 2.0))
    # eta5 is 0 and has no multiples.
    assert [case.name for case in cases] == ["base", *(f"eta{i}-x{factor}" for i in (1, 2, 3, 4) for factor in ("0.5", "2"))]
    assert cases[0].overrides == {}
    assert cases[1].overrides == {"losses.segmentation.neighbour": 7.5}
    assert [case.name for case in sweep_cases(BASE, (0,), ["eta3"])] == ["base", "eta3-x0"]
    for factors, weights in (((-1.0,), ["eta1"]), ((2.0,), ["eta9"])):
        with pytest.raises(EvaluationError):
            sweep_cases(BASE, factors, weights)


def test_weights_are_those_of_the_losses():
    from focus_backend.losses import SegmentationWeights

    assert set(WEIGHTS.values()) <= set(SegmentationWeights.model_fields)


def test_a_sweep_goes_on_where_it_was_left(plan):
    sweep, trainer = plan
    cases = sweep_cases(BASE, (2.0,), ["eta1", "eta3"])
    trainer.broken = {"eta3-x2"}
    rows = run_sweep(sweep, cases)
    assert [row.problem for row in rows] == ["", "", "losses are not finite"]
    trainer.broken, trainer.asked = set(), []
    told = []
    rows = run_sweep(sweep, cases, told.append)
    assert trainer.asked == [{"losses.segmentation.area": 1.0}]
    assert told == ["base: done before", "eta1-x2: done before", "eta3-x2: training"]
    head, cells = sweep_rows(rows)
    assert head == ["weight", "factor", "value", "ACC", "PPV", "TPR", "F1", "IoU", "median", "mean", "std", "failed"]
    assert cells[1][:3] == ["eta1", 2.0, 30.0]
    assert cells[0][6] == pytest.approx(2 * 45 / (2 * 45 + 15))
    written = json.loads((sweep.out / "sweep.json").read_text())
    assert [case["scores"]["F1"] for case in written["cases"]] == [pytest.approx(cells[0][6])] * 3
    assert (sweep.out / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_another_configuration_needs_another_folder(plan):
    sweep, _ = plan
    cases = sweep_cases(BASE, (2.0,), ["eta1"])[:1]
    run_sweep(sweep, cases)
    with pytest.raises(EvaluationError, match="another configuration"):
        run_sweep(dataclasses.replace(sweep, fingerprint="def"), cases)
    (sweep.out / "base" / "case.json").write_text("{")
    with pytest.raises(EvaluationError, match="damaged"):
        run_sweep(sweep, cases)


def test_shared_stages_are_copied_once(tmp_path):
    (tmp_path / "a" / "init" / "weights").mkdir(parents=True)
    (tmp_path / "a" / "init" / "weights" / "w").write_text("1")
    (tmp_path / "a" / "init" / "checkpoints").mkdir()
    (tmp_path / "a" / "faces-0").mkdir()
    (tmp_path / "a" / "faces-0" / "image.npy").write_text("faces")
    (tmp_path / "b").mkdir()
    share_stages(tmp_path / "a", tmp_path / "b", ("warmstart", "init"))
    assert (tmp_path / "b" / "init" / "weights" / "w").read_text() == "1"
    assert not (tmp_path / "b" / "init" / "checkpoints").exists()
    assert (tmp_path / "b" / "faces-0" / "image.npy").read_text() == "faces"
    (tmp_path / "a" / "init" / "weights" / "w").write_text("2")
    share_stages(tmp_path / "a", tmp_path / "b", ("init",))
    assert (tmp_path / "b" / "init" / "weights" / "w").read_text() == "1"
