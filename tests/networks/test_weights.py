"""Weights folders: parts that belong together, or an error that says why not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from conftest import make_tiny_model
from focus_backend.errors import OutputError, WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks import weights as module
from focus_backend.networks.checkpoint import load_network, save_network
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import default_weights, list_weights, load_recognition, load_weights, save_weights


def make_networks(model: FaceModel, seed: int = 0, size: int = 64) -> tuple[Encoder, SegmentationNetwork]:
    torch.manual_seed(seed)
    encoder = Encoder(EncoderConfig(backbone="mobilenet"), model, size)
    torch.nn.init.normal_(encoder.backbone.head.weight, std=0.1)
    return encoder, SegmentationNetwork(SegmentationConfig(width=4))


def save(folder: Path, model: FaceModel, seed: int = 0, **extra) -> str:
    return save_weights(folder, *make_networks(model, seed), model=model, image_size=64, training={"stage": "em"}, **extra)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_model: FaceModel) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "small"
    save(folder, tiny_model, misfit=0.01 * tiny_model.mean_shape)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "small"))


def test_weights_come_back_ready_for_inference(original: Path, tiny_model: FaceModel) -> None:
    weights = load_weights(original, tiny_model)
    encoder, segmentation = make_networks(tiny_model)
    assert (weights.name, weights.image_size) == ("small", 64)
    assert weights.description["training"] == {"stage": "em"}
    assert weights.description["face_model"]["name"] == "tiny"
    for network, wanted in ((weights.encoder, encoder), (weights.segmentation, segmentation)):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        state = network.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in wanted.state_dict().items())
    assert torch.equal(weights.misfit, 0.01 * tiny_model.mean_shape)


def test_same_weights_give_the_same_folder(original: Path, folder: Path, tmp_path: Path, tiny_model: FaceModel) -> None:
    again = tmp_path / "again" / "small"
    sha256 = save(again, tiny_model, misfit=0.01 * tiny_model.mean_shape)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in original.iterdir()}
    assert load_weights(str(original), tiny_model).sha256 == sha256
    listed = json.loads((again / "weights.json").read_text())
    assert listed["sha256"] == sha256
    assert listed["files"]["encoder"] == hashlib.sha256((again / "encoder.safetensors").read_bytes()).hexdigest()


def test_optional_parts_may_be_absent(tmp_path: Path, tiny_model: FaceModel) -> None:
    save(tmp_path / "plain", tiny_model, precision="half")
    weights = load_weights(tmp_path / "plain", tiny_model)
    assert weights.misfit is None
    assert load_recognition(tmp_path / "plain") is None
    assert {value.dtype for value in weights.encoder.parameters()} == {torch.float32}
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert names == [
        "encoder.safetensors",
        "segmentation.safetensors",
        "weights.json",
    ]


def test_recognition_network_travels_along(tmp_path: Path, tiny_model: FaceModel) -> None:
    network = RecognitionNetwork(RecognitionConfig(architecture="small"))
    save(tmp_path / "whole", tiny_model, recognition=network)
    loaded = load_recognition(tmp_path / "whole")
    assert isinstance(loaded, RecognitionNetwork)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_shared_recognition_network_is_listed_and_checked(tmp_path: Path, tiny_model: FaceModel) -> None:
    beside = tmp_path / "recognition.safetensors"
    save_network(beside, RecognitionNetwork(RecognitionConfig(architecture="small")))
    save(tmp_path / "alone", tiny_model)
    assert load_recognition(tmp_path / "alone") is None
    save(tmp_path / "sharing", tiny_model, shares_recognition=True)
    assert not (tmp_path / "sharing" / beside.name).exists()
    loaded = load_recognition(tmp_path / "sharing")
    assert loaded is not None
    wanted = load_network(beside, "recognition").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    torch.manual_seed(1)
    save_network(beside, RecognitionNetwork(RecognitionConfig(architecture="small")))
    with pytest.raises(WeightsError, match=r"recognition .*another than the one its weights.json lists"):
        load_recognition(tmp_path / "sharing")


def test_saving_again_replaces_all_and_keeps_the_model_card(folder: Path, tiny_model: FaceModel) -> None:
    (folder / "README.md").write_text("a model card")
    sha256 = save(folder, tiny_model, seed=1)
    names = ["README.md", "encoder.safetensors", "segmentation.safetensors", "weights.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert load_weights(folder, tiny_model).sha256 == sha256
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_unknown_weights_name_those_there_are(tmp_path: Path, tiny_model: FaceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WEIGHTS_FOLDER", tmp_path)
    assert list_weights() == []
    assert default_weights() is None
    with pytest.raises(WeightsError, match=r"no weights 'nobody'.*one of: none"):
        load_weights("nobody", tiny_model)
    save(tmp_path / "other", tiny_model)
    assert default_weights() is None
    save(tmp_path / "default", tiny_model)
    assert list_weights() == ["default", "other"]
    assert default_weights() == "default"
    assert load_weights("other", tiny_model).name == "other"
    with pytest.raises(WeightsError, match="one of: default, other"):
        load_weights("nobody", tiny_model)


def test_weights_of_another_face_model_are_refused(original: Path, tiny_model: FaceModel) -> None:
    with pytest.raises(WeightsError, match=r"another face model .'tiny'"):
        load_weights(original, dataclasses.replace(tiny_model, metadata={"sha256": "f" * 64}))
    with pytest.raises(WeightsError, match="of 4 albedo, 'tiny' has 5"):
        load_weights(original, make_tiny_model(albedos=5))


@pytest.mark.parametrize("name", ["encoder", "segmentation", "misfit"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "missing"])
def test_damaged_parts_are_named(folder: Path, tiny_model: FaceModel, name: str, fault: str) -> None:
    path = folder / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(data if fault == "flipped" else data[: len(data) // 2])
    message = {"flipped": "changed after it was made", "truncated": "damaged or truncated", "missing": "cannot be read"}[fault]
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(folder, tiny_model)
    assert name in caught.value.problem


def test_a_sound_file_of_other_weights_is_noticed(folder: Path, tmp_path: Path, tiny_model: FaceModel) -> None:
    save(tmp_path / "other", tiny_model, seed=1)
    shutil.copy(tmp_path / "other" / "segmentation.safetensors", folder)
    with pytest.raises(WeightsError, match=r"segmentation .*another than the one its weights.json lists"):
        load_weights(folder, tiny_model)


def rewrite(folder: Path, **changes) -> None:
    """Change the list and sign it anew."""
    content = json.loads((folder / "weights.json").read_text()) | changes
    content.pop("sha256")
    content["sha256"] = module._digest(content)
    (folder / "weights.json").write_text(json.dumps(content))


def test_lists_that_make_no_sense_are_refused(folder: Path, tiny_model: FaceModel) -> None:
    listed = json.loads((folder / "weights.json").read_text())
    files = listed["files"]
    faults = {
        "format 2, .* update": {"format": 2},
        "wrong .image_size: ": {"image_size": -3},
        "wrong .face_model.sha256: ": {"face_model": {"name": "tiny"}},
        "is for 64 px, its list says 32 px": {"image_size": 32},
        "lacks encoder": {"files": {"segmentation": files["segmentation"]}},
        "lists '../secret'": {"files": files | {"../secret": "0"}},
    }
    for message, change in faults.items():
        rewrite(folder, **(listed | change))
        with pytest.raises(WeightsError, match=message):
            load_weights(folder, tiny_model)
    (folder / "weights.json").write_text(json.dumps(listed | {"training": {"stage": "other"}}))
    with pytest.raises(WeightsError, match=r"weights.json was changed"):
        load_weights(folder, tiny_model)
    for text in ("", "[]", "{}", '{"format": 1', "3"):
        (folder / "weights.json").write_text(text)
        with pytest.raises(WeightsError, match="damaged or no list"):
            load_weights(folder, tiny_model)


def test_parts_that_do_not_belong_together_are_not_saved(tmp_path: Path, tiny_model: FaceModel) -> None:
    encoder, segmentation = make_networks(tiny_model)
    with pytest.raises(WeightsError, match="64 px, not 224 px"):
        save_weights(tmp_path / "new", encoder, segmentation, model=tiny_model, image_size=224)
    with pytest.raises(WeightsError, match=r"misfit prior has shape .3, 3."):
        save(tmp_path / "new", tiny_model, misfit=torch.zeros(3, 3))
    with pytest.raises(WeightsError, match="not finite"):
        save(tmp_path / "new", tiny_model, misfit=tiny_model.mean_shape * float("nan"))
    assert not list(tmp_path.iterdir())


def test_other_folders_are_not_overwritten(tmp_path: Path, tiny_model: FaceModel) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("")
    with pytest.raises(OutputError, match="no weights folder"):
        save(tmp_path / "photos", tiny_model)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
