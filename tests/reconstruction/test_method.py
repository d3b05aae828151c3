"""Which method and which weights a wish leads to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from focus_backend.errors import WeightsError
from focus_backend.networks import weights as weights_module
from focus_backend.reconstruction.method import chosen_method, weights_for
from focus_backend.reconstruction.reconstructor import Reconstructor
from focus_backend.serving.config import PipelineConfig
from focus_backend.serving.photo_pipeline import PhotoPipeline


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_weights: Path) -> Path:
    """Default weights, as a package has them."""
    monkeypatch.setattr(weights_module, "WEIGHTS_FOLDER", tmp_path)
    return Path(shutil.copytree(plain_weights, tmp_path / "default"))


@pytest.mark.parametrize("recommended", ["network", "refine", "fit"])
def test_auto_is_what_the_weights_recommend(model, make_weights, recommended):
    weights = weights_for("auto", make_weights(model, training={"recommended_method": recommended}), model, "cpu")
    assert chosen_method("auto", weights) == recommended
    # Whoever names a method gets it.
    assert [chosen_method(method, weights) for method in ("network", "refine")] == ["network", "refine"]


def test_without_a_recommendation_auto_is_refine_and_without_weights_the_fit(model, plain_weights):
    assert chosen_method("auto", weights_for("auto", plain_weights, model, "cpu")) == "refine"
    assert chosen_method("auto", None) == "fit"
    assert chosen_method("fit", None) == "fit"


@pytest.mark.parametrize("recommended", ["auto", "magic", 3])
def test_a_recommendation_that_is_none_is_named(model, make_weights, recommended):
    weights = weights_for("auto", make_weights(model, training={"recommended_method": recommended}), model, "cpu")
    with pytest.raises(WeightsError, match=f"small recommend the method {recommended!r}"):
        chosen_method("auto", weights)
    assert chosen_method("network", weights) == "network"


def test_default_weights_are_used_when_none_are_named(model, tiny_model, shipped):
    for method in ("auto", "network", "refine"):
        weights = weights_for(method, None, model, "cpu")
        assert weights is not None
        assert weights.name == "small"
    assert weights_for("fit", None, model, "cpu") is None
    # They are for another face model.
    assert weights_for("auto", None, tiny_model, "cpu") is None
    with pytest.raises(WeightsError, match="use the face model 'anny'"):
        weights_for("network", None, tiny_model, "cpu")


@pytest.mark.parametrize("name", ["encoder.safetensors", "weights.json"])
def test_damaged_default_weights_tell_how_to_go_on(model, shipped, name):
    data = bytearray((shipped / name).read_bytes())
    data[len(data) // 2] ^= 1
    (shipped / name).write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        weights_for("auto", None, model, "cpu")
    assert name in caught.value.problem
    assert "\n" not in str(caught.value)
    assert caught.value.remedy == "install this package again, or use --method fit"
    with pytest.raises(WeightsError) as caught:
        weights_for("auto", shipped, model, "cpu")
    assert "install" not in caught.value.remedy


@pytest.mark.parametrize("recommended", ["network", "refine", "fit"])
def test_a_reconstructor_follows_the_recommendation(model, make_weights, recommended):
    folder = make_weights(model, misfit=0.01 * model.mean_shape, training={"recommended_method": recommended})
    loaded = Reconstructor.load(model, weights=folder)
    assert loaded.strategy.method == recommended
    assert (loaded.strategy.networks is None) == (recommended == "fit")
    # The prior was made with the networks alone.
    assert (loaded._misfit is not None) == (recommended == "network")


def test_a_server_offers_the_recommendation_first(model, make_weights):
    folder = make_weights(model, training={"recommended_method": "network"})
    pipelines = [PhotoPipeline.load(PipelineConfig(method=method, weights=str(folder))) for method in ("auto", "refine")]
    assert [pipeline.info.methods[0] for pipeline in pipelines] == ["network", "refine"]
