"""Configurations inherit, are typed, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from focus_backend.errors import ConfigError
from train.config import config_names, load_config, to_toml

VARIANTS = ("mofa", "pretrained", "baseline", "neighbour", "perceptual", "focus", "focus-mp", "supervised", "cutmix", "cutout", "skin")


def test_defaults_are_the_papers_values() -> None:
    config = load_config("focus")
    weights = config.losses.segmentation
    assert (weights.neighbour, weights.distance, weights.area, weights.preserve, weights.binary) == (15, 3, 0.5, 2.5, 10)
    weights = config.losses.encoder
    assert (weights.pixel, weights.perceptual, weights.landmark, weights.regulariser) == (0.5, 0.25, 5e-4, 0.1)
    assert (config.init.steps, config.segmentation.steps, config.em.steps) == (300_000, 30_000, 200_000)
    assert (config.em.cycle, config.em.segmentation_steps) == (30_000, 5_000)
    assert (config.init.batch_size, config.segmentation.learning_rate) == (12, 0.03)
    optimiser = config.optimiser
    assert (optimiser.name, optimiser.learning_rate, optimiser.decay, optimiser.decay_every) == ("adadelta", 0.1, 0.99, 5000)
    assert optimiser.segmentation_share == 0.06
    assert (config.losses.threshold, config.losses.neighbour_window, config.image_size) == (0.17, 3, 224)
    assert (config.networks.encoder.backbone, config.networks.segmentation.width) == ("resnet50", 64)
    assert (config.warmstart.steps, config.misfit.steps) == (0, 0)


def test_every_variant_of_the_papers_tables_is_there_and_loads() -> None:
    assert set(VARIANTS) <= set(config_names())
    for name in VARIANTS:
        assert load_config(name).name == name


def test_variants_differ_from_focus_in_what_they_are_named_for_only() -> None:
    focus = load_config("focus").model_dump(mode="json")
    changed = {}
    for name in VARIANTS:
        values = load_config(name).model_dump(mode="json")
        changed[name] = {key for key in values if values[key] != focus[key]} - {"name"}
    assert changed["pretrained"] == {"em"}
    assert changed["mofa"] == {"mask", "segmentation"}
    assert changed["baseline"] == changed["neighbour"] == changed["perceptual"] == {"losses"}
    assert changed["cutmix"] == changed["cutout"] == {"mask", "mask_augmentation"}
    weights = load_config("neighbour").losses.segmentation
    assert (weights.neighbour, weights.difference, weights.distance, weights.preserve) == (15, 0, 0, 0)


def test_released_differs_where_the_authors_code_does() -> None:
    losses = load_config("released").losses
    assert (losses.neighbour_window, losses.preliminary, losses.differences) == (5, "likelihood", "lengths")
    assert (losses.segmentation.preserve, losses.encoder.outlier_area) == (0.25, 0.06)


def test_later_configurations_lie_over_earlier_ones() -> None:
    config = load_config(["light", "baseline"])
    assert config.image_size == 112
    assert config.losses.segmentation.difference == 15
    assert load_config(["baseline", "light"]).losses.segmentation.difference == 15


def test_overrides_win_and_a_bare_word_is_a_text() -> None:
    config = load_config("light", ["em.steps=7", "networks.encoder.backbone=resnet50", "losses.encoder.pixel = 1.5"])
    assert (config.em.steps, config.networks.encoder.backbone, config.losses.encoder.pixel) == (7, "resnet50", 1.5)


def test_a_file_extends_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "light"\nseed = 5\n')
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nname = "mine"\n[em]\nsteps = 9\n')
    config = load_config(tmp_path / "mine.toml")
    assert (config.name, config.seed, config.em.steps, config.em.batch_size) == ("mine", 5, 9, 16)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    config = load_config(["light", "released"], ["data.kind=prepared", f'data.path="{tmp_path}"'])
    (tmp_path / "whole.toml").write_text(to_toml(config))
    assert load_config(tmp_path / "whole.toml") == config


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("em = 3", "em"),
        ("[em]\nstep = 3", "em.step"),
        ("[em]\nsteps = -1", "em.steps"),
        ("[losses.segmentation]\narea = -0.5", "losses.segmentation.area"),
        ("image_size = 100", "multiple of 16"),
        ("image_size = 112\n[networks.segmentation]\nshrink = 2", "multiple of 32"),
        ('[data]\nkind = "prepared"', "data.path"),
        ("[em]\ncycle = 10\nsegmentation_steps = 11", "longer"),
        ('mask = "nothing"', "mask"),
        ("seed = ", "no TOML"),
        ("extends = 3", "extends"),
        ('extends = "no such"', "no such"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_circles_end(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('extends = "two.toml"')
    (tmp_path / "two.toml").write_text('extends = "one.toml"')
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(tmp_path / "one.toml")


@pytest.mark.parametrize("override", ["em", "=3", "em..steps=3", "seed.part=3"])
def test_a_wrong_override_is_told(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config("focus", ["seed=1", override])


def test_the_fingerprint_follows_what_a_stage_computes_and_nothing_else() -> None:
    config = load_config("focus")
    same = load_config("focus", ["logging.log_every=7", "compute.threads=1", "em.steps=5", "misfit.steps=9", "recognition.steps=3"])
    assert config.fingerprint("init") == same.fingerprint("init")
    # A longer run goes on from a shorter one.
    assert config.fingerprint("init") == load_config("focus", ["init.steps=10"]).fingerprint("init")
    for change in ("seed=1", "init.batch_size=3", "losses.encoder.pixel=1", "image_size=112", "data.pool=5"):
        assert config.fingerprint("init") != load_config("focus", [change]).fingerprint("init"), change
    cosine = ["optimiser.schedule=cosine"]
    assert load_config("focus", cosine).fingerprint("init") != load_config("focus", [*cosine, "init.steps=10"]).fingerprint("init")
