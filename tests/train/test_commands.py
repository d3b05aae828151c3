"""`focus-backend train` as its users meet it: bad input is one line and exit code 2 and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from focus_backend.cli import app
from focus_backend.errors import OutputError
from focus_backend.morphable.store import save_model
from train import run as run_module
from train.run import locked
from train.sources import Sources

Command = Callable[..., Any]


@pytest.fixture
def command(small_run: list[str]) -> Command:
    """The command with the small settings, further ones after them."""

    def call(*arguments: str, settings: tuple[str, ...] = (), is_small: bool = True) -> Any:
        given = [*(small_run if is_small else []), *settings]
        return CliRunner().invoke(app, ["train", *arguments, *(word for setting in given for word in ("--set", setting))])

    return call


def check_refused(result: Any, *words: str) -> None:
    """One line that says what is wrong, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("-c", "nosuch"), (), ("nosuch", "focus")),
        ((), ("em.stepz=3",), ("em.stepz",)),
        ((), ("em",), ("section.key=value",)),
        ((), ("optimiser.clip_norm=-1",), ("optimiser.clip_norm",)),
        ((), ("optimiser.learning_rate=inf",), ("optimiser.learning_rate",)),
        (("--precision", "16-mixed"), (), ("compute.precision", "bf16-mixed")),
        (("--device", "tpu"), (), ("tpu", "auto, cpu or cuda")),
        ((), ("networks.recognition=nosuch",), ("nosuch", "train recognition", "weights convert")),
        ((), ("networks.recognition=none",), ("networks.recognition", "perceptual")),
        ((), ("networks.imagenet=nosuch",), ("nosuch",)),
        ((), ("data.kind=prepared",), ("data.path", "train prepare")),
        ((), ("data.kind=prepared", 'data.path="nosuch"'), ("nosuch", "train prepare")),
        ((), ("model=nosuch",), ("nosuch", "anny")),
        ((), ("init.steps=0",), ("init", "steps")),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], settings: tuple[str, ...], words: tuple[str, ...]
) -> None:
    check_refused(command("init", "-o", str(tmp_path / "run"), *arguments, settings=settings), *words)
    assert not (tmp_path / "run").exists()


def test_the_recognition_network_that_is_not_there_is_named_with_its_remedy(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.stages.WEIGHTS_FOLDER", tmp_path)
    result = command("all", "-o", str(tmp_path / "run"), "-c", "light", is_small=False)
    check_refused(result, "recognition", "focus-backend train recognition", "weights convert")
    assert not (tmp_path / "run").exists()


def test_a_damaged_recognition_network_is_named(command: Command, tmp_path: Path, recognition_file: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(recognition_file.read_bytes()[:5000])
    check_refused(command("init", "-o", str(tmp_path / "run"), settings=(f'networks.recognition="{path}"',)), str(path), "damaged")


def test_stages_without_perceptual_losses_want_no_recognition_network(command: Command, tmp_path: Path) -> None:
    settings = ("warmstart.steps=1", "networks.recognition=none")
    result = command("warmstart", "-o", str(tmp_path / "run"), settings=settings)
    assert result.exit_code == 0, result.output
    check_refused(command("init", "-o", str(tmp_path / "run"), settings=settings), "perceptual")


def test_places_that_cannot_be_written_to_are_refused(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    check_refused(command("init", "-o", str(file)), "is a file")
    check_refused(command("init", "-o", str(file / "run")), "cannot be")
    check_refused(command("init", "-o", str(tmp_path)), "other things")
    check_refused(command("recognition", "-o", str(file / "run" / "net.safetensors")), "cannot be written")
    check_refused(command("recognition", "-o", str(tmp_path)), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "mine"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, whole_run: list[str]) -> Path:
    """A run of steps 1 and 2."""
    run = tmp_path_factory.mktemp("finished") / "run"
    settings = [*whole_run, "warmstart.steps=0", "em.steps=0", "misfit.steps=0"]
    arguments = ["train", "all", "-o", str(run), "--json", *(word for setting in settings for word in ("--set", setting))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1] == {"weights": str(run / "segmentation" / "weights")}
    assert [(line["stage"], line["step"]) for line in lines[:-1] if "losses" in line] == [
        *(("init", step) for step in range(1, 5)),
        *(("segmentation", step) for step in (1, 2)),
    ]
    return run


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "begun"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tensorboard_reads_what_was_logged(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "init")).Reload()
    pixel = [scalar.value for scalar in events.Scalars("losses/pixel")]
    lines = [json.loads(line) for line in (finished / "init" / "losses.jsonl").read_text().splitlines()]
    assert pixel == pytest.approx([line["losses"]["pixel"] for line in lines if "losses" in line])
    assert events.Tags()["images"] == ["photo, reconstruction, mask"]


def test_another_configuration_leaves_the_run_as_it_was(command: Command, begun: Path) -> None:
    before = bytes_of(begun)
    check_refused(command("init", "-o", str(begun), settings=("losses.encoder.pixel=0.4",)), "another configuration", "init/config.toml")
    assert bytes_of(begun) == before


def test_a_stage_whose_start_was_trained_further_is_not_taken_for_done(command: Command, begun: Path) -> None:
    longer = ("init.steps=5", "em.steps=0")
    before = bytes_of(begun)
    # Before the first stage is trained, not after it.
    check_refused(command("all", "-o", str(begun), settings=longer), "segmentation", "other weights", "delete")
    check_refused(command("segmentation", "-o", str(begun), settings=longer), "4 of 5 steps", "train init")
    assert bytes_of(begun) == before
    assert command("init", "-o", str(begun), settings=longer).exit_code == 0
    check_refused(command("all", "-o", str(begun), settings=longer), "other weights", "delete")
    shutil.rmtree(begun / "segmentation")
    assert command("all", "-o", str(begun), settings=longer).exit_code == 0


def test_weights_of_another_face_model_are_refused(command: Command, begun: Path, tmp_path: Path) -> None:
    from conftest import make_tiny_model

    save_model(make_tiny_model(shapes=6), tmp_path / "other.safetensors")
    settings = ("em.steps=2", f'model="{tmp_path / "other.safetensors"}"')
    check_refused(command("em", "-o", str(begun), settings=settings), "face model")
    assert not (begun / "em").exists()


def test_other_networks_or_sizes_than_those_of_the_stage_before_are_refused(command: Command, begun: Path) -> None:
    for setting in ("networks.segmentation.width=8", "image_size=64"):
        check_refused(command("em", "-o", str(begun), settings=(setting, "em.steps=2")), "other networks")


def test_a_damaged_checkpoint_says_how_to_go_on(command: Command, begun: Path) -> None:
    newest = sorted((begun / "init" / "checkpoints").iterdir())[-1]
    shutil.rmtree(begun / "segmentation")
    whole = (newest / "encoder.safetensors").read_bytes()
    (newest / "encoder.safetensors").write_bytes(whole[: len(whole) // 2])
    check_refused(command("init", "-o", str(begun), settings=("init.steps=5",)), f"delete {newest}")
    (newest / "state.json").write_text("{")
    check_refused(command("init", "-o", str(begun), settings=("init.steps=5",)), "damaged", "delete")
    shutil.rmtree(newest)
    result = command("init", "-o", str(begun), settings=("init.steps=5",))
    assert result.exit_code == 0
    assert "going on from step 2" in result.stderr


def test_two_commands_do_not_train_in_one_folder(command: Command, begun: Path) -> None:
    before = bytes_of(begun)
    with locked(begun):
        check_refused(command("init", "-o", str(begun), settings=("init.steps=5", "segmentation.steps=0")), "another process")
    assert bytes_of(begun) == before


def test_a_full_disk_leaves_the_checkpoint_before(command: Command, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object) -> None:
        (path.parent / "half").write_text("half-written")
        raise OutputError(f"{path} cannot be written (No space left on device)") from OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_tensors", fail)
    shutil.rmtree(begun / "segmentation")
    folder = begun / "init" / "checkpoints"
    before = bytes_of(folder)
    result = command("init", "-o", str(begun), settings=("init.steps=6",))
    assert result.exit_code == 2
    assert "00000006 cannot be written (No space left on device): free some space" in result.stderr
    assert bytes_of(folder) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_while_the_pool_is_drawn_loses_nothing(
    number: int, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Callable[[int], None]:
        def report(done: int) -> None:
            signal.raise_signal(number)

        return report

    monkeypatch.setattr(Sources, "_counter", interrupted)
    # A process started in the background of a shell inherits that Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = command("init", "-o", str(tmp_path / "run"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    state = tmp_path / "run" / "faces-0" / "pool.json"
    assert json.loads(state.read_text())["filled"] == 24
    before = state.stat().st_mtime_ns
    monkeypatch.undo()
    assert command("init", "-o", str(tmp_path / "run"), settings=("init.steps=1",)).exit_code == 0
    assert state.stat().st_mtime_ns == before


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_refused(command: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    check_refused(command("init", "-o", str(tmp_path / "run")), "cannot be written")
    tmp_path.chmod(0o700)
