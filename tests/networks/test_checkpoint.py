"""Files of networks: what goes in comes out, and whatever differs is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import make_tiny_model
from focus_backend.errors import OutputError, WeightsError
from focus_backend.files import digest_of
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import METADATA_KEY, load_network, read_description, save_network, write_tensors
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork


def make_segmentation(seed: int = 0) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return SegmentationNetwork(SegmentationConfig(width=4, dropout=0.25))


def make_encoder(model: FaceModel) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone="mobilenet", scales={"albedo": 2.0}), model, 64)
    torch.nn.init.normal_(encoder.backbone.head.weight, std=0.1)
    return encoder


@pytest.fixture
def saved(tmp_path: Path, tiny_model: FaceModel) -> Path:
    path = tmp_path / "segmentation.safetensors"
    save_network(path, make_segmentation(), model=tiny_model, training={"steps": 3})
    return path


@pytest.fixture
def saved_encoder(tmp_path: Path, tiny_model: FaceModel) -> Path:
    path = tmp_path / "encoder.safetensors"
    save_network(path, make_encoder(tiny_model), model=tiny_model)
    return path


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """A file's safetensors header and the bytes after it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], *, signed: bool = False) -> None:
    """Change a file's description; `signed` with a sha256 that fits it again."""
    tensors, description = load_file(path), json.loads(header(path)[0]["__metadata__"][METADATA_KEY])
    change(description)
    if signed:
        description["sha256"] = digest_of(tensors, description)
    save_file(tensors, path, {METADATA_KEY: json.dumps(description)})


def test_segmentation_comes_back_as_it_was(saved: Path) -> None:
    network = load_network(saved, "segmentation")
    wanted = make_segmentation()
    assert isinstance(network, SegmentationNetwork)
    assert network.config == wanted.config
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in wanted.state_dict().items())


def test_encoder_comes_back_as_it_was(saved_encoder: Path, tiny_model: FaceModel) -> None:
    encoder = load_network(saved_encoder, "encoder", model=tiny_model)
    assert isinstance(encoder, Encoder)
    wanted = make_encoder(tiny_model).eval()
    assert (encoder.config, encoder.image_size) == (wanted.config, 64)
    image = torch.rand(2, 3, 64, 64)
    given, expected = encoder(image), wanted(image)
    assert all(torch.equal(value, getattr(expected, name)) for name, value in vars(given).items())


def test_description_says_what_the_file_is(saved_encoder: Path, saved: Path, tiny_model: FaceModel) -> None:
    description = read_description(saved_encoder)
    assert description["kind"] == "encoder"
    assert description["config"]["backbone"] == "mobilenet"
    assert description["image_size"] == 64
    sizes = {"shape": 5, "expression": 52, "albedo": 4, "vertices": len(tiny_model.mean_shape)}
    assert description["face_model"] == {"name": "tiny", "sha256": "0" * 64, "sizes": sizes}
    assert read_description(saved)["training"] == {"steps": 3}


def test_same_network_gives_the_same_bytes(saved: Path, tmp_path: Path, tiny_model: FaceModel) -> None:
    # Memory layout is no part of a network.
    network = make_segmentation().to(memory_format=torch.channels_last)
    sha256 = save_network(tmp_path / "again.safetensors", network, model=tiny_model, training={"steps": 3})
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
    assert sha256 == read_description(saved)["sha256"]
    assert sha256 != save_network(tmp_path / "other.safetensors", make_segmentation(1), model=tiny_model, training={"steps": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "other.safetensors", "segmentation.safetensors"]


def test_loading_leaves_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_network(saved, "segmentation")
    assert torch.equal(torch.rand(3), expected)


def test_half_precision_is_smaller_and_loads_as_single(saved_encoder: Path, tmp_path: Path, tiny_model: FaceModel) -> None:
    path = tmp_path / "half.safetensors"
    network = make_encoder(tiny_model)
    save_network(path, network, model=tiny_model, precision="half")
    assert path.stat().st_size < 0.6 * saved_encoder.stat().st_size
    state = load_network(path, "encoder", model=tiny_model).state_dict()
    for name, value in network.state_dict().items():
        assert state[name].dtype == value.dtype
        torch.testing.assert_close(state[name], value, atol=1e-6, rtol=1e-3)
    # Batch norm's statistics outgrow and outshrink half precision.
    assert torch.equal(state["backbone.features.0.1.running_var"], network.state_dict()["backbone.features.0.1.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format 2, this program reads format 1: update"),
        (lambda d: d.update(training={"steps": 4}), "changed after it was made"),
        (lambda d: d.pop("kind"), "lacks its kind"),
        (lambda d: d.pop("format"), "damaged description"),
        (lambda d: d.update(kind="encoder"), "kind 'encoder', expected 'segmentation'"),
    ],
)
def test_changed_descriptions_are_noticed(saved: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(saved, "segmentation")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["config"].update(width=8), "has shape .*4, 6, 3, 3.* expected .*8, 6, 3, 3"),
        (lambda d: d["config"].update(depth=9), "configuration this program does not know .*depth"),
        (lambda d: d["config"].update(width=10**9), "configuration this program does not know .*width"),
        (lambda d: d.update(config=None), "configuration this program does not know"),
    ],
)
def test_configurations_that_do_not_fit_the_tensors_are_named(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(saved, change, signed=True)
    with pytest.raises(WeightsError, match=message):
        load_network(saved, "segmentation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("last.bias"), "lacks last.bias"),
        (lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:5]], "lacks .* and 2 more"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "has more too many"),
        (
            lambda tensors: tensors.update({"last.weight": torch.zeros(1, 5, 1, 1)}),
            "last.weight .* shape .1, 5, 1, 1., expected .1, 4",
        ),
        (lambda tensors: tensors.update({"last.bias": torch.zeros(1, dtype=torch.int64)}), "last.bias .* type torch.int64"),
    ],
)
def test_other_tensors_are_named(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str, tiny_model: FaceModel
) -> None:
    network, path = make_segmentation(), tmp_path / "other.safetensors"
    tensors = dict(network.state_dict())
    change(tensors)
    write_tensors(path, "segmentation", tensors, {"config": network.config.model_dump()}, model=tiny_model)
    with pytest.raises(WeightsError, match=message):
        load_network(path, "segmentation")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_flipped_bit_is_noticed(saved: Path, place: float) -> None:
    data = bytearray(saved.read_bytes())
    data[int(place * len(data))] ^= 1
    saved.write_bytes(data)
    with pytest.raises(WeightsError):
        load_network(saved, "segmentation")


@pytest.mark.parametrize("length", [0, 5, 400, 100_000, -1])
def test_truncated_files_are_noticed(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(WeightsError, match="damaged"):
        load_network(saved, "segmentation")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a text that is long enough to have a header of eight bytes")
    torch.save(make_segmentation().state_dict(), tmp_path / "torch.pth")
    save_file({"last.bias": torch.zeros(1)}, tmp_path / "plain.safetensors")
    for name, message in {
        "text": "no safetensors",
        "torch.pth": "no safetensors",
        "plain.safetensors": "none of our",
        "absent": "cannot be read",
        "": "read",
    }.items():
        with pytest.raises(WeightsError, match=message):
            load_network(tmp_path / name, "segmentation")
        with pytest.raises(WeightsError, match=message):
            read_description(tmp_path / name)


def test_weights_of_another_face_model_are_refused(saved_encoder: Path, saved: Path, tiny_model: FaceModel) -> None:
    other = dataclasses.replace(tiny_model, name="other", metadata={"sha256": "f" * 64})
    for path, kind in ((saved_encoder, "encoder"), (saved, "segmentation")):
        with pytest.raises(WeightsError, match=r"another face model .'tiny' 000000000000, not 'other' ffffffffffff"):
            load_network(path, kind, model=other)
        with pytest.raises(WeightsError, match="of 5 shape, 'tiny' has 6"):
            load_network(path, kind, model=make_tiny_model(shapes=6))
    with pytest.raises(WeightsError, match="without its face model"):
        load_network(saved_encoder, "encoder")


def test_face_model_without_identity_is_refused(tmp_path: Path, tiny_model: FaceModel) -> None:
    nameless = dataclasses.replace(tiny_model, metadata={})
    with pytest.raises(WeightsError, match="no sha256"):
        save_network(tmp_path / "encoder.safetensors", make_encoder(tiny_model), model=nameless)
    with pytest.raises(WeightsError, match="without its face model"):
        save_network(tmp_path / "encoder.safetensors", make_encoder(tiny_model))
    with pytest.raises(WeightsError, match="not made for the face model"):
        save_network(tmp_path / "encoder.safetensors", make_encoder(tiny_model), model=make_tiny_model(albedos=3))
    assert not list(tmp_path.iterdir())


def test_diverged_networks_are_not_saved(tmp_path: Path) -> None:
    network = make_segmentation()
    with torch.no_grad():
        network.last.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match=r"last.bias .* not finite"):
        save_network(tmp_path / "segmentation.safetensors", network)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_network(tmp_path / "file" / "segmentation.safetensors", make_segmentation())
