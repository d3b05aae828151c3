"""Face model files: what is written is read, and every kind of damage is one clear error."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from focus_backend.errors import ModelError, OutputError
from focus_backend.morphable import find_model, list_models, load_model, model_info
from focus_backend.morphable.build import build_model
from focus_backend.morphable.store import METADATA_KEY, save_model


@pytest.fixture
def stored(tiny_model, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_model(tiny_model, path)
    return path


def description_of(path) -> dict:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"][METADATA_KEY])


def rewritten(path, tensors=None, **changes):
    """The same file with some tensors or parts of its description replaced."""
    description = description_of(path) | changes
    save_file(tensors or load_file(path), path, metadata={METADATA_KEY: json.dumps(description)})
    return path


def test_what_is_written_is_read(tiny_model, stored):
    model = load_model(stored)
    for field in dataclasses.fields(tiny_model):
        before, after = getattr(tiny_model, field.name), getattr(model, field.name)
        if isinstance(before, torch.Tensor):
            assert after.dtype == before.dtype
            # The bases are stored in half precision: 11 bits.
            torch.testing.assert_close(after, before, rtol=2**-10, atol=1e-4)
        elif field.name.endswith(("68", "landmarks")):
            assert after.names == before.names
            assert torch.equal(after.triangles, before.triangles)
        elif field.name != "metadata":
            assert after == before
    assert model.metadata["source"] == "tests"
    assert len(model.metadata["sha256"]) == 64


def test_same_model_same_bytes(tiny_model, stored, tmp_path):
    digest = save_model(tiny_model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == stored.read_bytes()
    assert digest == load_model(stored).metadata["sha256"]


def test_stored_again_after_reading_is_the_same(stored, tmp_path):
    save_model(load_model(stored), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == stored.read_bytes()


@pytest.mark.parametrize("length", [0, 5, 100, 4000, -1])
def test_truncated(stored, length):
    stored.write_bytes(stored.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"tiny\.safetensors.*(damaged|truncated)"):
        load_model(stored)


def test_text_named_safetensors(tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_text("these are no tensors at all")
    with pytest.raises(ModelError, match=r"notes\.safetensors"):
        load_model(path)


def test_other_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="no face model"):
        load_model(path)


@pytest.mark.parametrize("place", [0.5, 0.9, 0.999])
def test_one_changed_byte(stored, place):
    data = bytearray(stored.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    stored.write_bytes(data)
    with pytest.raises(ModelError, match="sha256 does not match"):
        load_model(stored)


def test_changed_description(stored):
    with pytest.raises(ModelError, match="sha256 does not match"):
        load_model(rewritten(stored, name="other"))


def test_other_version(stored):
    with pytest.raises(ModelError, match="format 2, this program reads format 1"):
        load_model(rewritten(stored, format=2))


def test_missing_tensor(stored):
    tensors = load_file(stored)
    del tensors["uv"]
    with pytest.raises(ModelError, match="lacks uv"):
        load_model(rewritten(stored, tensors))


def test_wrong_shape(stored):
    tensors = load_file(stored)
    tensors["albedo_mean"] = tensors["albedo_mean"][:-1].clone()
    with pytest.raises(ModelError, match=r"albedo_basis .* has shape|albedo_mean .* has shape"):
        load_model(rewritten(stored, tensors))


@pytest.mark.parametrize("name", ["mean_shape", "shape_basis", "albedo_basis"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tiny_model, tmp_path, name, value):
    broken = getattr(tiny_model, name).clone()
    broken.view(-1)[7] = value
    path = tmp_path / "broken.safetensors"
    save_model(dataclasses.replace(tiny_model, **{name: broken}), path)
    with pytest.raises(ModelError, match=f"{name} .* not finite"):
        load_model(path)


def test_index_outside_the_mesh(tiny_model, tmp_path):
    quads = tiny_model.quads.clone()
    quads[3, 1] = len(tiny_model.mean_shape)
    save_model(dataclasses.replace(tiny_model, quads=quads), tmp_path / "broken.safetensors")
    with pytest.raises(ModelError, match=r"quads .* outside the mesh"):
        load_model(tmp_path / "broken.safetensors")


def test_every_error_says_what_to_do(stored):
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(ModelError) as caught:
        load_model(stored)
    assert str(stored) in caught.value.problem
    assert "models build anny" in caught.value.remedy


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"no face model 'nobody'.*anny"):
        load_model("nobody")
    assert "anny" in list_models()
    assert find_model("anny").name == "anny.safetensors"


def test_info_of_the_shipped_model():
    info = model_info("anny")
    assert info["shape components"] == 80
    assert info["megabytes"] < 40
    assert "Apache-2.0" in info["source"]
    assert "ICT-FaceKit Light" in info["calibration"]
    assert info["units"].startswith("millimetres")


def test_place_that_cannot_be_written(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tiny_model, tmp_path / "file" / "model.safetensors")


def test_nothing_half_written_is_left(tiny_model, tmp_path, monkeypatch):
    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save_model(tiny_model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_unknown_source(tmp_path):
    with pytest.raises(ModelError, match="no face model source 'nobody'"):
        build_model("nobody", tmp_path / "model.safetensors")
