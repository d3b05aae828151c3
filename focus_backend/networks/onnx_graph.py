"""The weights of an IResNet off its ONNX graph.

The graph is followed from its input to its output. Exporters fold batch norms into the convolutions before them; where one is missing the
convolution has its scale, and our norm becomes one that adds the convolution's bias and changes nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focus_backend.errors import MissingDependencyError, WeightsError
from focus_backend.networks.iresnet import BATCH_NORM_EPSILON

INSTALL = "pip install 'focus-backend[recognition]'"
REMEDY = "give w600k_r50.onnx of insightface's buffalo_l or another ArcFace IResNet"
# What passes values on, or reads their shape only.
_PASSING = ("Identity", "Dropout", "Cast")
_RESHAPING = ("Unsqueeze", "Squeeze", "Reshape", "Flatten")


class OnnxGraph:
    """A graph to be followed along its values.

    Attributes:
        proto: the model.
        input_name, input_type: of its picture.
        takes_bytes: pictures in [0, 255], scaled inside; else [-1, 1]. Known once the weights were taken.
    """

    def __init__(self, proto: Any, source: Path) -> None:
        from onnx import TensorProto

        self.proto, self.source = proto, source
        self.takes_bytes = False
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._makers = {name: node for node in proto.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in proto.graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)
        inputs = [value for value in proto.graph.input if value.name not in self._constants]
        if len(inputs) != 1 or len(proto.graph.output) != 1:
            raise self.problem(f"{len(inputs)} inputs, {len(proto.graph.output)} outputs")
        self.input_name, self.output_name = inputs[0].name, proto.graph.output[0].name
        is_half = inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT16
        self.input_type = np.float16 if is_half else np.float32

    def problem(self, detail: str) -> WeightsError:
        """The error that says the graph is another one."""
        return WeightsError(f"{self.source} is not the graph of an ArcFace IResNet ({detail})", REMEDY)

    def readers(self, value: str) -> list[Any]:
        """The nodes that compute something of a value."""
        found: list[Any] = []
        for node in self._readers.get(value, []):
            if node.op_type in _PASSING:
                found += self.readers(node.output[0])
            elif node.op_type != "Shape":
                found.append(node)
        return found

    def reader(self, value: str, *kinds: str) -> Any | None:
        """The only node that reads a value if it is of one of these kinds, else None."""
        found = self.readers(value)
        return found[0] if len(found) == 1 and found[0].op_type in kinds else None

    def expect(self, value: str, *kinds: str) -> Any:
        """As `reader`; raises where there is none."""
        node = self.reader(value, *kinds)
        if node is None:
            found = ", ".join(each.op_type for each in self.readers(value)) or "nothing"
            raise self.problem(f"{found} where {' or '.join(kinds)} was expected")
        return node

    def constant(self, name: str) -> Tensor:
        """A constant of the graph, in single precision."""
        from onnx import TensorProto, numpy_helper

        if name in self._constants:
            tensor = self._constants[name]
            if tensor.data_location == TensorProto.EXTERNAL:
                raise WeightsError(f"{self.source} keeps its weights in other files", "give a graph with its weights inside")
            return torch.from_numpy(np.array(numpy_helper.to_array(tensor), dtype=np.float32))
        node = self._makers.get(name)
        if node is not None and node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            return torch.from_numpy(np.array(numpy_helper.to_array(node.attribute[0].t), dtype=np.float32))
        # Shapes do not matter here: vectors are flattened, matrices and kernels are not reshaped by exporters.
        if node is not None and node.op_type in (*_PASSING, *_RESHAPING):
            return self.constant(node.input[0])
        raise self.problem("a weight that is computed")

    def is_constant(self, name: str) -> bool:
        """Whether a value is an initializer or made by a constant node."""
        node = self._makers.get(name)
        return name in self._constants or (node is not None and node.op_type == "Constant")


def read_graph(source: Path) -> OnnxGraph:
    """The graph in a file; files it refers to are not opened.

    Raises:
        WeightsError: missing, damaged, or no graph with one input and one output.
        MissingDependencyError: the package that reads ONNX is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("reading ONNX files needs the package onnx", INSTALL) from error
    try:
        proto = onnx.load_model_from_string(source.read_bytes())
    except OSError as error:
        raise WeightsError(f"{source} cannot be read ({error.strerror or error})", "check the file and its permissions") from error
    except Exception as error:  # protobuf raises what it likes
        raise WeightsError(f"{source} is damaged or no ONNX file ({type(error).__name__})", REMEDY) from error
    return OnnxGraph(proto, source)


def iresnet_tensors(graph: OnnxGraph) -> dict[str, Tensor]:
    """The graph's weights by the names they have in `IResNet`.

    Raises:
        WeightsError: the graph is another network.
    """
    try:
        return _Walk(graph).tensors
    except (ValueError, IndexError, RuntimeError, TypeError, RecursionError) as error:
        raise graph.problem(f"{type(error).__name__} on the way") from error


class _Walk:
    """One way through a graph, collecting tensors."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.tensors: dict[str, Tensor] = {}
        value, scale = self._input_scale(graph.input_name)
        value = self._convolution(graph.expect(value, "Conv"), "conv1", "bn1")
        self.tensors["conv1.weight"] = self.tensors["conv1.weight"] * scale
        value = self._prelu(value, "prelu")
        stage, block = 0, 0
        # A graph has fewer blocks than nodes; a damaged one might lead in circles.
        for _ in graph.proto.graph.node:
            branches = graph.readers(value)
            if len(branches) != 2:
                break
            is_new_stage = all(node.op_type != "Add" for node in branches)
            stage, block = (stage + 1, 0) if is_new_stage else (stage, block + 1)
            value = self._block(value, branches, f"layer{stage}.{block}")
        self._head(value)

    def _input_scale(self, value: str) -> tuple[str, float]:
        """Past the scaling of bytes, if the graph has it, and the factor that our first convolution needs instead."""
        factor, offset = 1.0, 0.0
        while (node := self.graph.reader(value, "Sub", "Mul", "Div")) is not None:
            number = self.graph.constant(node.input[1])
            if number.numel() != 1:
                raise self.graph.problem("channels are scaled one by one")
            amount = float(number)
            if node.op_type == "Sub":
                offset -= amount
            else:
                amount = amount if node.op_type == "Mul" else 1 / amount
                factor, offset = factor * amount, offset * amount
            value, self.graph.takes_bytes = node.output[0], True
        if not self.graph.takes_bytes:
            return value, 1.0
        # Bytes are 127.5 (u + 1) of our u in [-1, 1]; padding is zero in both only if zero stays zero.
        if abs(factor * 127.5 + offset) > 1e-3:
            raise self.graph.problem("bytes are not centred at 127.5")
        return value, factor * 127.5

    def _block(self, value: str, branches: list[Any], name: str) -> str:
        """A residual block; returns the value after it."""
        adding = [node for node in branches if node.op_type == "Add"]
        others = [node for node in branches if node.op_type != "Add"]
        # The main branch begins with a norm, or has the larger kernel.
        others.sort(key=lambda node: (node.op_type == "BatchNormalization", self._kernel_size(node)))
        main = others[-1]
        if main.op_type == "BatchNormalization":
            inner = self._norm(main, f"{name}.bn1")
            main = self.graph.expect(inner, "Conv")
        else:
            self._no_norm(f"{name}.bn1", int(self.graph.constant(main.input[1]).shape[1]))
        inner = self._convolution(main, f"{name}.conv1", f"{name}.bn2")
        inner = self._prelu(inner, f"{name}.prelu")
        inner = self._convolution(self.graph.expect(inner, "Conv"), f"{name}.conv2", f"{name}.bn3")
        end = self.graph.expect(inner, "Add")
        if adding:
            shortcut_end = adding[0]
        else:
            shortcut = self._convolution(others[0], f"{name}.downsample.0", f"{name}.downsample.1")
            shortcut_end = self.graph.expect(shortcut, "Add")
        if end is not shortcut_end and end.output[0] != shortcut_end.output[0]:
            raise self.graph.problem("branches that do not meet")
        return end.output[0]

    def _head(self, value: str) -> None:
        """Norm, linear layer, norm; the last has to be the output."""
        norm = self.graph.reader(value, "BatchNormalization")
        if norm is not None:
            value = self._norm(norm, "bn2")
        else:
            self._no_norm("bn2", 512)
        value = self.graph.expect(value, "Flatten", "Reshape").output[0]
        node = self.graph.expect(value, "Gemm", "MatMul")
        weight = self.graph.constant(node.input[1])
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        self.tensors["fc.weight"] = weight if transposed else weight.T.contiguous()
        bias = torch.zeros(len(self.tensors["fc.weight"]))
        value = node.output[0]
        if len(node.input) > 2:
            bias = self.graph.constant(node.input[2]).flatten()
        elif (added := self.graph.reader(value, "Add")) is not None:
            constant = next(name for name in added.input if self.graph.is_constant(name))
            bias, value = self.graph.constant(constant).flatten(), added.output[0]
        self.tensors["fc.bias"] = bias
        norm = self.graph.reader(value, "BatchNormalization")
        if norm is None:
            self._no_norm("features", len(bias))
        else:
            self._norm(norm, "features")

    def _convolution(self, node: Any, name: str, norm_name: str) -> str:
        """A convolution and the norm after it, which may be folded in; returns the value after both."""
        if node.op_type != "Conv":
            raise self.graph.problem(f"{node.op_type} where Conv was expected")
        weight = self.graph.constant(node.input[1])
        self.tensors[f"{name}.weight"] = weight
        bias = self.graph.constant(node.input[2]).flatten() if len(node.input) > 2 else torch.zeros(len(weight))
        norm = self.graph.reader(node.output[0], "BatchNormalization")
        if norm is None:
            self._no_norm(norm_name, len(weight))
            self.tensors[f"{norm_name}.bias"] = bias
            return node.output[0]
        value = self._norm(norm, norm_name)
        # Our convolutions have no bias, the norm's mean takes it.
        self.tensors[f"{norm_name}.running_mean"] = self.tensors[f"{norm_name}.running_mean"] - bias
        return value

    def _norm(self, node: Any, name: str) -> str:
        """A batch norm; returns the value after it."""
        weight, bias, mean, variance = (self.graph.constant(each).flatten() for each in node.input[1:5])
        epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), BATCH_NORM_EPSILON)
        tensors = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance + (epsilon - BATCH_NORM_EPSILON)}
        self.tensors |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}
        return node.output[0]

    def _no_norm(self, name: str, channels: int) -> None:
        """A norm that changes nothing."""
        tensors = {"weight": torch.ones(channels), "bias": torch.zeros(channels), "running_mean": torch.zeros(channels)}
        tensors["running_var"] = torch.full((channels,), 1 - BATCH_NORM_EPSILON)
        self.tensors |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}

    def _prelu(self, value: str, name: str) -> str:
        """A PReLU; returns the value after it."""
        node = self.graph.expect(value, "PRelu")
        self.tensors[f"{name}.weight"] = self.graph.constant(node.input[1]).flatten()
        return node.output[0]

    def _kernel_size(self, node: Any) -> int:
        return int(self.graph.constant(node.input[1]).shape[-1]) if node.op_type == "Conv" else 0
