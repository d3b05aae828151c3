"""Errors by group: skin tones by hand, networks that know the truth, and the command from weights to table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from focus_backend.cli import app
from focus_backend.errors import FocusError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.theta import Theta
from focus_backend.networks.weights import Weights, save_weights
from train.data.synthetic import SyntheticFaces
from train.evaluate import fairness
from train.evaluate.fairness import People, PeopleOfAllTones, PersonScore, aligned_distance
from train.evaluate.head_sex import sex_direction
from train.evaluate.skin_tone import SkinSampler, tone_of, typology_angle

SIZE = 48


def test_typology_angles_by_hand() -> None:
    """sRGB (238, 207, 180) is L* 84.6, b* 17.3 by CIE's formulas; middle grey without yellow points straight up or down."""
    encoded = np.array([[238, 207, 180], [119, 119, 119], [60, 38, 26]]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    light, grey, dark = typology_angle(linear)
    assert light == pytest.approx(63.5, abs=0.5)
    assert abs(grey) == pytest.approx(90, abs=1)
    assert dark < -60


@pytest.mark.parametrize(
    ("angle", "tone"), [(70, "very light"), (55, "light"), (41.5, "light"), (30, "intermediate"), (28, "tan"), (0, "brown"), (-30, "dark")]
)
def test_groups_are_chardons(angle: float, tone: str) -> None:
    assert tone_of(angle) == tone


def test_skin_is_the_median_of_the_face(tiny_model: FaceModel) -> None:
    sampler = SkinSampler(tiny_model)
    assert sampler(torch.zeros(2, tiny_model.albedo_size)) == pytest.approx(np.tile([0.45, 0.27, 0.19], (2, 1)), abs=1e-6)
    lighter = dataclasses.replace(tiny_model, albedo_basis=torch.full_like(tiny_model.albedo_basis, 0.01))
    people = torch.tensor([[1.0, 0, 0, 0], [2.0, 1.0, 0, 0]])
    assert SkinSampler(lighter)(people) == pytest.approx(np.array([[0.46, 0.28, 0.2], [0.48, 0.3, 0.22]]), abs=1e-6)


def test_people_have_all_tones_and_are_else_as_drawn(tiny_model: FaceModel) -> None:
    drawn, axis = SyntheticFaces(tiny_model, CropFrame.of(tiny_model, SIZE), seed=3), SkinSampler(tiny_model).lightness_axis()
    source = PeopleOfAllTones(drawn, axis, seed=1)
    people, others = source.people(0, 500), drawn.theta(0, 500)
    along = people.albedo @ axis
    assert [float((along < edge).float().mean()) for edge in (-1.5, 0, 1.5)] == pytest.approx([0.25, 0.5, 0.75], abs=0.07)
    across = [albedo - (albedo @ axis)[:, None] * axis for albedo in (people.albedo, others.albedo)]
    assert torch.allclose(*across, atol=1e-5)
    assert torch.equal(people.shape, others.shape)
    batch = source.batch(2, 2)
    assert batch.theta is not None
    assert torch.equal(batch.theta.albedo, source.people(2, 2).albedo)
    light, dark = (SkinSampler(tiny_model)(sign * axis[None]).mean() for sign in (1, -1))
    assert light >= dark


def test_distances_do_not_see_where_a_head_is_nor_its_size() -> None:
    true = np.random.default_rng(0).normal(size=(50, 3)) * 30
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert aligned_distance(1.3 * true @ turn + [5, 6, 7], true) == pytest.approx(0, abs=1e-9)
    assert aligned_distance(true + np.random.default_rng(1).normal(size=true.shape), true) > 0.5


class Knowing(Encoder):
    """An encoder that says what it was told, with a shift of all coefficients of one kind."""

    answer: Theta

    def theta(self, outputs: torch.Tensor) -> Theta:
        return self.answer


@pytest.fixture(scope="module")
def judge_of(tiny_model: FaceModel):
    """Scores of people under an encoder that knows them but for a change of theta."""

    def scores(not_found: int | None = None, misfit: float = 0.0, **changes: float) -> list[PersonScore]:
        encoder = Knowing(EncoderConfig(backbone="mobilenet"), tiny_model, SIZE)
        segmentation = SegmentationNetwork(SegmentationConfig(width=4))
        torch.nn.init.zeros_(segmentation.last.weight)
        torch.nn.init.constant_(segmentation.last.bias, 4.0)
        prior = misfit * tiny_model.shape_basis.sum(0)
        weights = Weights("knowing", "", SIZE, encoder.eval(), segmentation.eval(), prior)
        source = SyntheticFaces(tiny_model, CropFrame.of(tiny_model, SIZE), seed=3)
        batch, true = source.batch(0, 4), source.theta(0, 4)
        if not_found is not None:
            batch = batch.chosen(torch.tensor([3 if person == not_found else person for person in range(4)]))
        encoder.answer = dataclasses.replace(true, **{name: getattr(true, name) + shift for name, shift in changes.items()})
        return fairness._Judge(weights, tiny_model).scores(People(true.shape, true.albedo), batch)

    return scores


def test_networks_that_know_the_truth_have_no_error(judge_of) -> None:
    for person in judge_of():
        assert person.measures["shape"] == pytest.approx(0, abs=1e-3)
        assert person.measures["tone_bias"] == pytest.approx(0, abs=1e-3)
        assert person.measures["mean_head"] > 1
        assert 0 < person.measures["mask_f1"] <= 1


def test_the_misfit_prior_is_taken_off(judge_of) -> None:
    assert all(person.measures["shape"] == pytest.approx(0, abs=1e-3) for person in judge_of(shape=0.7, misfit=0.7))


def test_each_measure_sees_its_own_error(judge_of) -> None:
    right, longer, darker = judge_of(), judge_of(shape=1.0), judge_of(albedo=-1.0)
    assert all(wrong.measures["shape"] > 0.5 for wrong in longer)
    assert any(abs(wrong.measures["tone_bias"]) > 0.02 for wrong in darker)
    assert [wrong.measures["shape"] for wrong in darker] == [person.measures["shape"] for person in right]
    assert np.mean([wrong.measures["colour"] - person.measures["colour"] for wrong, person in zip(darker, right, strict=True)]) > 0


def test_people_that_were_not_found_count_as_such(judge_of) -> None:
    scores = judge_of(not_found=1)
    figures = fairness._figures(scores)
    assert (figures["people"], figures["found"]) == (4, 0.75)
    found = [score.measures["mean_head"] for score in scores if score.measures]
    assert figures["mean_head"]["mean"] == pytest.approx(np.mean(found))


def test_groups_hold_everybody_once() -> None:
    scores = [PersonScore(tone, sex, {}) for tone, sex in [(60.0, 1.0), (-40.0, -0.5), (-50.0, -2.0)]]
    groups = fairness._groups(scores)
    assert {name: len(people) for name, people in groups["skin tone"].items()} == {"very light": 1, "dark": 2}
    assert {name: len(people) for name, people in groups["sex"].items()} == {fairness.SEXES[0]: 1, fairness.SEXES[1]: 2}
    assert "sex" not in fairness._groups([PersonScore(0.0, None, {})])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights that see the mean face, with and without a segmentation network."""
    model, folder = load_model("anny"), tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone="mobilenet"), model, SIZE)
    save_weights(folder / "whole", encoder, SegmentationNetwork(SegmentationConfig(width=4)), model=model, image_size=SIZE)
    save_weights(folder / "part", encoder, None, model=model, image_size=SIZE)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.slow
def test_from_weights_to_a_table_by_group(weights: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("anny", reason="the face model's source is not installed")
    result = CliRunner().invoke(app, ["evaluate", "fairness", str(weights["whole"]), "--people", "32", "-o", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "fairness.json").read_text())
    assert (document["people"], document["all"]["found"]) == (32, 1.0)
    for groups in document["groups"].values():
        assert sum(figures["people"] for figures in groups.values()) == 32
    # The encoder has learnt nothing, so its heads are the model's mean.
    assert document["all"]["shape"] == pytest.approx(document["all"]["mean_head"])
    table = fairness.fairness_table(document, as_markdown=True)
    assert fairness.SEXES[0] in table
    assert "shape mm" in table


@pytest.mark.slow
def test_men_and_women_of_the_source_lie_apart() -> None:
    pytest.importorskip("anny", reason="the face model's source is not installed")
    model = load_model("anny")
    direction = sex_direction(model)
    assert direction is not None
    assert float(direction.direction.norm()) == pytest.approx(1)
    assert 1 < direction.distance < 6
    assert 0.5 < direction.explained <= 1
    # Men's heads are larger.
    face = model.triangles[model.triangle_in_face].unique()
    man, woman = (model.decode_shape(sign * direction.direction)[face] for sign in (1, -1))
    assert float((man - man.mean(0)).norm()) > float((woman - woman.mean(0)).norm())


def test_a_model_of_another_source_has_no_direction(tiny_model: FaceModel) -> None:
    assert sex_direction(tiny_model) is None


def test_weights_that_cannot_be_judged_are_named(weights: dict[str, Path]) -> None:
    with pytest.raises(FocusError, match="no segmentation network"):
        fairness.evaluate_fairness(weights["part"], 1, 0)
