"""`weights export`: parts of several folders as one, or an error that says why they do not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from focus_backend.cli import app
from focus_backend.commands.weights_export import export_command, export_weights
from focus_backend.errors import ConfigError, WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from focus_backend.networks.checkpoint import save_network
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import load_recognition, load_weights, save_weights
from focus_backend.reconstruction.method import chosen_method, misfit_for

SIZE = 64


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


def networks(model: FaceModel, seed: int = 0) -> tuple[Encoder, SegmentationNetwork]:
    torch.manual_seed(seed)
    encoder, segmentation = Encoder(EncoderConfig(backbone="mobilenet"), model, SIZE), SegmentationNetwork(SegmentationConfig(width=4))
    torch.nn.init.normal_(encoder.backbone.head.weight, std=0.1)
    return encoder, segmentation


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: FaceModel) -> Path:
    """A run with the stages em, misfit (the same encoder) and other (another one)."""
    run = tmp_path_factory.mktemp("run")
    encoder, segmentation = networks(model)
    bias = 0.001 * model.mean_shape
    notes = {"config": "mine", "shape_spread": [0.5] * model.shape_size}
    plain = {"model": model, "image_size": SIZE}
    save_weights(run / "em" / "weights", encoder, segmentation, **plain, training={**notes, "stage": "em", "steps": 3})
    made = {"stage": "misfit", "misfit_method": "refine"}
    save_weights(run / "misfit" / "weights", encoder, networks(model, 1)[1], **plain, misfit=bias, training=made)
    save_weights(run / "other" / "weights", *networks(model, 2), **plain, misfit=bias)
    (run / "config.toml").write_text('name = "mine"\nimage_size = 64\n[logging]\nevery = 10\n[compute]\ndevice = "cpu"\n')
    return run


def same(first: torch.nn.Module, second: torch.nn.Module, tolerance: float) -> bool:
    other = second.state_dict()
    return all(
        torch.allclose(value.float(), other[name].float(), atol=tolerance, rtol=tolerance) for name, value in first.state_dict().items()
    )


def test_parts_of_several_stages_become_one_folder(run: Path, tmp_path: Path, model: FaceModel) -> None:
    out = tmp_path / "default"
    misfit = run / "misfit" / "weights"
    sha256 = export_weights(run / "em" / "weights", out, {"misfit": misfit}, method="network")
    made = load_weights(out, model)
    encoder, segmentation = networks(model)
    assert (made.name, made.sha256) == ("default", sha256)
    assert same(made.encoder, encoder, 1e-3)
    assert made.segmentation is not None
    assert same(made.segmentation, segmentation, 1e-3)
    assert made.misfit is not None
    assert torch.equal(made.misfit, load_weights(misfit, model).misfit)
    notes = made.description["training"]
    assert notes["shape_spread"] == [0.5] * model.shape_size
    assert (notes["stage"], notes["misfit_method"], notes["parts"]["misfit"]["stage"]) == ("em", "refine", "misfit")
    assert notes["recipe"] == {"name": "mine", "image_size": 64}
    assert chosen_method("auto", made) == "network"
    assert misfit_for("network", made) is None
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert size < 0.6 * sum(file.stat().st_size for file in (run / "misfit" / "weights").glob("*.safetensors"))


def test_exporting_again_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name / "default" for name in "ab"]
    for folder in folders:
        export_weights(run / "em" / "weights", folder)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    # Of what was exported, and in its own place: nothing gets lost but the recipe stays.
    export_weights(folders[0], folders[0])
    assert {path.name: path.read_bytes() for path in folders[0].iterdir()} == first


def test_parts_can_be_left_out_and_exchanged(run: Path, tmp_path: Path, model: FaceModel) -> None:
    out = tmp_path / "default"
    source = run / "misfit" / "weights"
    export_weights(source, out, {"misfit": None, "segmentation": run / "em" / "weights"}, precision="single")
    made = load_weights(out, model)
    assert made.misfit is None
    assert "misfit_method" not in made.description["training"]
    assert made.segmentation is not None
    assert same(made.segmentation, networks(model)[1], 0)
    assert same(made.encoder, networks(model)[0], 0)


def test_a_recognition_network_is_shared_or_taken_along(run: Path, tmp_path: Path) -> None:
    beside, out = tmp_path / "recognition.safetensors", tmp_path / "default"
    save_network(beside, RecognitionNetwork())
    export_weights(run / "em" / "weights", out)
    assert load_recognition(out) is not None
    assert not (out / beside.name).exists()
    export_weights(run / "em" / "weights", out, {"recognition": None})
    assert load_recognition(out) is None
    export_weights(run / "em" / "weights", tmp_path / "elsewhere" / "mine", {"recognition": beside})
    assert load_recognition(tmp_path / "elsewhere" / "mine") is not None


def test_what_does_not_go_together_is_refused(run: Path, tmp_path: Path) -> None:
    source, out = run / "em" / "weights", tmp_path / "default"
    with pytest.raises(WeightsError, match="another encoder's"):
        export_weights(source, out, {"misfit": run / "other" / "weights"})
    with pytest.raises(WeightsError, match="have no misfit"):
        export_weights(source, out, {"misfit": source})
    with pytest.raises(WeightsError, match="have no recognition"):
        export_weights(source, out, {"recognition": source})
    with pytest.raises(ConfigError, match="'auto' cannot be recommended"):
        export_weights(source, out, method="auto")
    with pytest.raises(ConfigError, match="no part 'encoder'"):
        export_weights(source, out, {"encoder": source})
    assert not out.exists()


def test_the_command_says_what_it_made(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_command(run / "misfit" / "weights", tmp_path / "default", {}, None, "half")
    sha256 = json.loads((tmp_path / "default" / "weights.json").read_text())["sha256"]
    printed = capsys.readouterr().out
    assert "encoder, misfit, segmentation" in printed
    assert sha256[:12] in printed


def test_the_command_line_names_parts_and_method(run: Path, tmp_path: Path, model: FaceModel) -> None:
    source, out = run / "em" / "weights", tmp_path / "default"
    arguments = ["weights", "export", str(source), "-o", str(out), "--misfit", str(run / "misfit" / "weights")]
    result = CliRunner().invoke(app, [*arguments, "--segmentation", "none", "--method", "fit", "--single"])
    assert result.exit_code == 0, result.output
    made = load_weights(out, model)
    assert made.misfit is not None
    assert made.segmentation is None
    assert chosen_method("auto", made) == "fit"
    assert same(made.encoder, networks(model)[0], 0)
    refused = CliRunner().invoke(app, [*arguments, "--method", "magic"])
    assert refused.exit_code == 2
    assert "'magic' cannot be recommended" in refused.output + refused.stderr
