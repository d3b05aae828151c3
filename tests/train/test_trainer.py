"""Runs go on exactly where they stopped, say what goes wrong, and leave weights that work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from focus_backend.errors import ConfigError, OutputError, TrainingError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import load_weights
from train.config import STAGES, TrainingConfig, load_config
from train.logs import Sums, read_losses
from train.run import Progress, StageFolder
from train.stages import train
from train.trainer import StoppedError


def losses_of(run: Path, stage: str) -> list[dict]:
    return [line for line in read_losses(run / stage / "losses.jsonl") if "losses" in line]


def weights_bytes(run: Path, stage: str) -> bytes:
    folder = run / stage / "weights"
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, whole_run: list[str]) -> tuple[Path, list[str]]:
    """A whole run of every stage, and its overrides."""
    run = tmp_path_factory.mktemp("run") / "run"
    train(load_config("focus", whole_run), run)
    return run, whole_run


def test_every_stage_leaves_weights_losses_and_pictures(finished: tuple[Path, list[str]], saved_model: FaceModel) -> None:
    run, _ = finished
    for stage in STAGES:
        weights = load_weights(run / stage / "weights", saved_model)
        assert weights.description["training"]["stage"] == stage
        assert len(weights.description["training"]["shape_spread"]) == saved_model.shape_size
        assert (weights.misfit is not None) == (stage == "misfit")
        # What was not trained is not there, rather than there at random.
        assert (weights.segmentation is not None) == (stage in ("segmentation", "em", "misfit"))
        assert list((run / stage / "pictures").glob("*.png"))
        assert list((run / stage).glob("events.*"))
        lines = losses_of(run, stage)
        assert all(torch.isfinite(torch.tensor(list(line["losses"].values()))).all() for line in lines)
    assert (run / "misfit" / "pictures" / "misfit.png").is_file()
    assert [line["step"] for line in losses_of(run, "em")] == [1, 2, 3, 4, 5, 6]


def test_em_trains_each_network_in_its_turn(finished: tuple[Path, list[str]]) -> None:
    lines = losses_of(finished[0], "em")
    learns_segmentation = ["neighbour" in line["losses"] for line in lines]
    assert learns_segmentation == [True, False, False, True, False, False]


def test_the_misfit_stage_keeps_the_photos_encoder(finished: tuple[Path, list[str]]) -> None:
    run, _ = finished
    of_em, of_misfit = ((run / stage / "weights" / "encoder.safetensors").read_bytes() for stage in ("em", "misfit"))
    from safetensors.torch import load

    first, second = load(of_em), load(of_misfit)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_doing_it_again_does_nothing(finished: tuple[Path, list[str]]) -> None:
    run, overrides = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    train(load_config("focus", overrides), run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def test_a_resumed_run_equals_an_uninterrupted_one(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Cut in two at an odd step, between two lines of the log; the same losses to the last bit, and the same weights."""
    overrides = [*finished[1], "logging.log_every=2"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages = ("warmstart", "init")
    train(load_config("focus", overrides), whole, stages)
    # Ends after three steps of four, as the step schedule lets it.
    train(load_config("focus", [*overrides, "init.steps=3"]), cut, stages)
    assert [line["step"] for line in losses_of(cut, "init")] == [2, 3]
    train(load_config("focus", overrides), cut, stages)
    assert [line["step"] for line in losses_of(whole, "init")] == [2, 4]
    assert losses_of(whole, "init") == losses_of(cut, "init")
    assert weights_bytes(whole, "init") == weights_bytes(cut, "init")


def test_a_stop_at_the_last_step_of_a_stage_is_heard(tmp_path: Path, finished: tuple[Path, list[str]], small_run: list[str]) -> None:
    def stop(line: Mapping[str, Any]) -> None:
        if (line["stage"], line["step"]) == ("init", 4):
            signal.raise_signal(signal.SIGINT)

    config, run = load_config("focus", small_run), tmp_path / "run"
    with pytest.raises(StoppedError):
        train(config, run, ("init", "segmentation"), stop)
    assert not (run / "init" / "weights").exists()
    assert not (run / "segmentation").exists()
    train(config, run, ("init", "segmentation"))
    assert losses_of(run, "segmentation")


@pytest.mark.parametrize("name", ["adadelta", "adamw"])
def test_state_of_the_optimiser_comes_back_as_it_was(name: str, tmp_path: Path, saved_model: FaceModel) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = SegmentationNetwork(SegmentationConfig(width=4)).to(memory_format=torch.channels_last)
        kinds = {"adadelta": torch.optim.Adadelta, "adamw": torch.optim.AdamW}
        return network, kinds[name](network.parameters(), lr=0.1)

    network, optimiser = make()
    network(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)).sum().backward()
    optimiser.step()
    folder, progress = StageFolder(tmp_path, "init"), Progress(1, "print", "start", {"a": 0.1}, 2.0)
    folder.save(progress, {"segmentation": network}, {"segmentation": optimiser}, saved_model, keep=1)
    other, again = make()
    assert folder.restore({"segmentation": other}, {"segmentation": again}, saved_model, Progress(0, "print", "start")) == progress
    for first, second in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)
        for key, value in optimiser.state[first].items():
            assert torch.equal(value, again.state[second][key])
            # Other strides would be the same numbers, but slower.
            assert value.stride() == again.state[second][key].stride()
    with pytest.raises(ConfigError, match="other weights"):
        folder.restore({}, {}, saved_model, Progress(0, "print", "other"))


def test_checkpoints_beyond_those_to_keep_and_leftovers_are_dropped(tmp_path: Path, saved_model: FaceModel) -> None:
    folder = StageFolder(tmp_path, "init")
    left = tmp_path / "init" / "checkpoints" / ".writing.killed"
    left.mkdir(parents=True)
    for step in (1, 2, 3):
        folder.save(Progress(step, "print"), {}, {}, saved_model, keep=2)
    assert sorted(path.name for path in left.parent.iterdir()) == ["00000002", "00000003"]
    begun = folder.begun()
    assert begun is not None
    assert begun.step == 3


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path: Path, small_run: list[str]) -> None:
    """SIGTERM in the middle of a stage, in a real process; then the same command again."""
    overrides = [*small_run, "init.steps=24", "logging.log_every=3", "logging.picture_every=24", "logging.checkpoint_every=1000"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(load_config("focus", overrides), whole, ("init",))
    command = [sys.executable, "-m", "focus_backend", "train", "init", "-c", "focus", "-o", str(killed)]
    for override in overrides:
        command += ["--set", override]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = killed / "init" / "losses.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.is_file() or len(read_losses(log)) < 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "stopped at step" in said
    states = list((killed / "init" / "checkpoints").glob("*/state.json"))
    assert len(states) == 1
    assert 6 <= json.loads(states[0].read_text())["step"] < 24
    train(load_config("focus", overrides), killed, ("init",))
    assert losses_of(killed, "init") == losses_of(whole, "init")
    assert weights_bytes(killed, "init") == weights_bytes(whole, "init")


def test_another_configuration_does_not_go_on_with_a_run(finished: tuple[Path, list[str]]) -> None:
    run, overrides = finished
    with pytest.raises(ConfigError, match="another configuration"):
        train(load_config("focus", [*overrides, "losses.encoder.pixel=0.4"]), run, ("init",))


def test_a_stage_names_what_has_to_come_before(tmp_path: Path, small_config: TrainingConfig) -> None:
    with pytest.raises(TrainingError, match="train segmentation"):
        train(small_config, tmp_path / "run", ("em",))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, small_config: TrainingConfig) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other things"):
        train(small_config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, small_run: list[str]) -> None:
    config = load_config("focus", [*small_run, "optimiser.name=adamw", "optimiser.learning_rate=1e30"])
    with pytest.raises(TrainingError, match="not finite"):
        train(config, tmp_path / "run", ("init",))
    assert not (tmp_path / "run" / "init" / "weights").exists()


def test_a_collapsing_mask_is_warned_of(tmp_path: Path, small_run: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without any loss but the area, everything becomes face."""
    only_area = [f"losses.segmentation.{name}=0" for name in ("neighbour", "distance", "preserve", "binary")]
    steps = ["segmentation.steps=1", "em.steps=40", "em.cycle=40", "em.segmentation_steps=40", "logging.picture_every=40"]
    fast = ["optimiser.name=adamw", "optimiser.learning_rate=0.05", "optimiser.segmentation_share=1", "losses.segmentation.area=50"]
    train(load_config("focus", [*small_run, *only_area, *steps, *fast, "logging.log_every=10"]), tmp_path / "run")
    said = capsys.readouterr().err
    assert "warning: at step" in said
    assert "% of the faces face" in said
    assert said.count("warning: at step") == 1


def test_perceptual_losses_want_a_network(tmp_path: Path, small_run: list[str]) -> None:
    with pytest.raises(ConfigError, match="perceptual"):
        train(load_config("focus", [*small_run, "networks.recognition=none"]), tmp_path / "run", ("init",))


@pytest.mark.parametrize("variant", ["mofa", "skin", "supervised", "cutmix", "released", "baseline"])
def test_variants_run(variant: str, tmp_path: Path, small_run: list[str], saved_model: FaceModel) -> None:
    config = load_config(variant, [*small_run, "init.steps=1", "em.steps=2", "logging.picture_every=9"])
    is_unmasked = variant in ("mofa", "skin")
    if is_unmasked:
        config = load_config(variant, [*small_run, "init.steps=1", "em.steps=2", "segmentation.steps=0"])
    weights = load_weights(train(config, tmp_path / "run"), saved_model)
    assert weights.description["training"]["config"] == variant
    assert (weights.segmentation is None) == is_unmasked


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path, small_run: list[str]) -> None:
    """torchrun with two processes on the CPU: both see other faces, one of them writes."""
    overrides = [*small_run, "init.steps=3", "compute.devices=2", "logging.picture_every=9"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "focus_backend",
        "train",
        "init",
    ]
    command += ["-o", str(tmp_path / "run"), "-c", "focus"]
    for override in overrides:
        command += ["--set", override]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line["step"] for line in losses_of(tmp_path / "run", "init")] == [1, 2, 3]
    assert (tmp_path / "run" / "faces-1" / "image.npy").is_file()
    assert (tmp_path / "run" / "init" / "weights" / "weights.json").is_file()


def test_sums_wait_for_nothing_and_come_back() -> None:
    sums = Sums({"a": 3.0, "a/count": 2.0})
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    taken = sums.take()
    assert taken == {"a": 4.0, "a/count": 3.0, "b": 4.0, "b/count": 1.0}
    assert Sums.means(taken) == {"a": pytest.approx(4 / 3), "b": 4.0}
    assert sums.take() == taken
