"""Conversion of recognition networks, from ONNX graphs and state dicts made here out of our own IResNet with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from focus_backend.commands.weights import convert_recognition as convert_command
from focus_backend.commands.weights import list_weights_command, show_weights
from focus_backend.errors import WeightsError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import load_network, read_description
from focus_backend.networks.convert import convert_recognition
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.iresnet import DEPTHS, IResNet
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.weights import save_weights


class GraphMaker:
    """Writes an IResNet as ONNX nodes, as PyTorch's exporter does: norms after a layer folded into it, or all kept."""

    def __init__(self, network: IResNet, is_folded: bool, takes_bytes: bool = False) -> None:
        self.is_folded, self.takes_bytes = is_folded, takes_bytes
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.count = 0
        value = self._scaled("input.1")
        value = self._prelu(self._convolution(value, network.conv1, network.bn1), network.prelu)
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                value = self._block(value, block)
        value = self._node("Flatten", [self._norm(value, network.bn2)], axis=1)
        value = self._node("Gemm", [value, self._tensor(network.fc.weight), self._tensor(network.fc.bias)], transB=1)
        self.output = self._norm(value, network.features)

    def save(self, path: Path) -> Path:
        import onnx
        from onnx import TensorProto, helper

        picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])
        embedding = helper.make_tensor_value_info(self.output, TensorProto.FLOAT, ["None", 512])
        graph = helper.make_graph(self.nodes, "iresnet", [picture], [embedding], self.tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), str(path))
        return path

    def _scaled(self, value: str) -> str:
        if not self.takes_bytes:
            return value
        value = self._node("Sub", [value, self._tensor(torch.tensor(127.5))])
        return self._node("Mul", [value, self._tensor(torch.tensor(0.0078125))])

    def _block(self, value: str, block: Any) -> str:
        inner = self._prelu(self._convolution(self._norm(value, block.bn1), block.conv1, block.bn2), block.prelu)
        inner = self._convolution(inner, block.conv2, block.bn3)
        return self._node("Add", [inner, value if block.downsample is None else self._convolution(value, *block.downsample)])

    def _convolution(self, value: str, layer: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        size, stride = layer.kernel_size[0], layer.stride[0]
        options = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [layer.padding[0]] * 4}
        if not self.is_folded:
            return self._norm(self._node("Conv", [value, self._tensor(layer.weight)], **options), norm)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = self._tensor(layer.weight * factor[:, None, None, None])
        return self._node("Conv", [value, weight, self._tensor(norm.bias - norm.running_mean * factor)], **options)

    def _norm(self, value: str, norm: Any) -> str:
        parts = [self._tensor(part) for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
        return self._node("BatchNormalization", [value, *parts], epsilon=norm.eps)

    def _prelu(self, value: str, layer: nn.PReLU) -> str:
        return self._node("PRelu", [value, self._tensor(layer.weight[:, None, None])])

    def _tensor(self, value: Tensor) -> str:
        from onnx import numpy_helper

        name = f"weight{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def _node(self, kind: str, inputs: list[str], **options: Any) -> str:
        from onnx import helper

        self.count += 1
        self.nodes.append(helper.make_node(kind, inputs, [f"value{self.count}"], **options))
        return f"value{self.count}"


@pytest.fixture(scope="module")
def network() -> IResNet:
    """An IResNet-18 whose norms and slopes are not those it starts with."""
    torch.manual_seed(0)
    made = IResNet(DEPTHS["iresnet18"])
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.0, 0.5)
    return made.eval().requires_grad_(False)


def _embedding(network: IResNet, picture: Tensor) -> Tensor:
    return nn.functional.normalize(network.embedding(network.first_stage(picture * 2 - 1)), dim=1)


def _check_same(path: Path, network: IResNet, tolerance: float) -> None:
    loaded = load_network(path, "recognition")
    assert isinstance(loaded, RecognitionNetwork)
    assert loaded.config.architecture == "iresnet18"
    picture = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(loaded.aligned_features(picture).final, _embedding(network, picture), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("is_folded", "takes_bytes"), [(True, False), (False, True)])
def test_an_onnx_graph_becomes_the_same_network(network: IResNet, tmp_path: Path, is_folded: bool, takes_bytes: bool) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    source = GraphMaker(network, is_folded, takes_bytes).save(tmp_path / "w600k.onnx")
    made = convert_recognition(source, tmp_path / "recognition.safetensors")
    assert made.architecture == "iresnet18"
    assert made.difference is not None
    assert made.difference < 1e-5
    if takes_bytes:
        # Such a graph divides by 128 where the network it was made of wants 127.5.
        network = _with_first_kernel_scaled(network, 127.5 / 128)
    _check_same(made.path, network, 1e-5)
    notes = read_description(made.path)["training"]
    assert notes["source"] == "w600k.onnx"
    assert len(notes["source_sha256"]) == 64


def _with_first_kernel_scaled(network: IResNet, factor: float) -> IResNet:
    scaled = IResNet(DEPTHS["iresnet18"]).eval().requires_grad_(False)
    scaled.load_state_dict(network.state_dict())
    scaled.conv1.weight.mul_(factor)
    return scaled


def test_a_graph_that_computes_something_else_is_refused(network: IResNet, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    maker = GraphMaker(network, is_folded=True)
    # Same weights in the same places, but the pictures are padded on two sides only: no name or shape tells.
    for node in maker.nodes:
        options = {option.name: option.ints for option in node.attribute}
        if node.op_type == "Conv" and options["kernel_shape"][0] == 3:
            options["pads"][:] = [2, 2, 0, 0]
    source = maker.save(tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="other embeddings"):
        convert_recognition(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def _other_graph() -> Any:
    """A convolution and a ReLU."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weight")
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "z")]
    return helper.make_model(helper.make_graph(nodes, "other", values[:1], values[1:], [weight]))


def test_other_graphs_are_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(_other_graph(), str(tmp_path / "other.onnx"))
    with pytest.raises(WeightsError, match="Relu where PRelu was expected"):
        convert_recognition(tmp_path / "other.onnx", tmp_path / "out.safetensors")


def test_weights_outside_of_the_graph_are_not_opened(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "outside.onnx"
    onnx.save(_other_graph(), str(path), save_as_external_data=True, location="secret.bin", size_threshold=1)
    assert (tmp_path / "secret.bin").exists()
    with pytest.raises(WeightsError, match="in other files"):
        convert_recognition(path, tmp_path / "out.safetensors")


def test_a_state_dict_becomes_the_same_network(network: IResNet, tmp_path: Path) -> None:
    # As parallel training saves it; counters left out.
    tensors = {f"module.{name}": value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(tensors, tmp_path / "backbone.pth")
    made = convert_recognition(tmp_path / "backbone.pth", tmp_path / "recognition.safetensors")
    assert made.difference is None
    _check_same(made.path, network, 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [("missing", "lacks features.weight"), ("depth", "no IResNet of known depth"), ("nan", "not finite"), ("shape", "fc.weight")],
)
def test_a_wrong_state_dict_says_what_differs(network: IResNet, tmp_path: Path, change: str, message: str) -> None:
    tensors = dict(network.state_dict())
    if change == "missing":
        del tensors["features.weight"]
    elif change == "depth":
        tensors["layer3.2.bn1.weight"] = torch.ones(256)
    elif change == "nan":
        tensors["bn1.bias"] = torch.full((64,), torch.nan)
    else:
        tensors["fc.weight"] = torch.zeros(512, 10)
    torch.save(tensors, tmp_path / "backbone.pth")
    with pytest.raises(WeightsError, match=message):
        convert_recognition(tmp_path / "backbone.pth", tmp_path / "out.safetensors")


class _Dangerous:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/focus-was-unpickled"),))


@pytest.mark.parametrize("name", ["missing.pth", "damaged.pth", "damaged.onnx", "missing.onnx", "network.txt", "pickle.pth"])
def test_files_that_cannot_be_used_are_weights_errors(tmp_path: Path, name: str) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnx")
    source = tmp_path / name
    if name.startswith("damaged"):
        source.write_bytes(b"\x08\x07not a network")
    elif name == "network.txt":
        source.write_text("?")
    elif name == "pickle.pth":
        torch.save({"conv1.weight": _Dangerous()}, source)
    with pytest.raises(WeightsError):
        convert_recognition(source, tmp_path / "out.safetensors")
    assert not Path("/tmp/focus-was-unpickled").exists()


def test_the_commands_convert_and_show(network: IResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    convert_command(tmp_path / "backbone.pth", tmp_path / "recognition.safetensors")
    assert "iresnet18" in capsys.readouterr().out
    show_weights(str(tmp_path / "recognition.safetensors"), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "recognition"
    assert shown["training"]["source"] == "backbone.pth"
    show_weights(str(tmp_path / "recognition.safetensors"), as_json=False)
    assert "config.architecture" in capsys.readouterr().out
    list_weights_command(as_json=True)
    assert set(json.loads(capsys.readouterr().out)) == {"weights", "default"}
    with pytest.raises(WeightsError):
        show_weights("nothing-of-this-name", as_json=False)


def test_a_weights_folder_is_shown_file_by_file(tiny_model: FaceModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Encoder(EncoderConfig(backbone="mobilenet"), tiny_model, 64)
    segmentation = SegmentationNetwork(SegmentationConfig(width=4))
    folder = tmp_path / "mine"
    save_weights(folder, encoder, segmentation, model=tiny_model, image_size=64, recognition=RecognitionNetwork())
    show_weights(str(folder), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == "mine"
    assert shown["face_model"]["name"] == "tiny"
    assert set(shown["files"]) == {"encoder", "segmentation", "recognition"}
    assert shown["files"]["recognition"]["config"] == {"architecture": "small"}
    damaged = folder / "recognition.safetensors"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightsError, match="sha256 differs"):
        show_weights(str(folder), as_json=False)
