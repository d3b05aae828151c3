"""A recognition network the user has - ArcFace's ONNX graph or `backbone.pth` - as a file of ours.

Nothing of the source is executed to read it: weights are taken off the graph node by node and put into our own `IResNet`. For a graph the
result is then compared with what the graph itself computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from focus_backend.errors import MissingDependencyError, WeightsError
from focus_backend.networks.checkpoint import check_names_and_shapes, read_plain_tensors, save_network
from focus_backend.networks.iresnet import DEPTHS
from focus_backend.networks.onnx_graph import INSTALL, OnnxGraph, iresnet_tensors, read_graph
from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork

REMEDY = "give w600k_r50.onnx of insightface's buffalo_l, or the backbone.pth of an ArcFace IResNet-18, 34, 50 or 100"
# Unit embeddings of the converted network and of its source differ by rounding only, some 1e-6.
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        architecture: as in `RecognitionConfig`.
        path: our file.
        sha256: of our file's tensors and description.
        difference: largest absolute difference of unit embeddings to the source graph; None where the source has no graph.
    """

    architecture: str
    path: Path
    sha256: str
    difference: float | None


def convert_recognition(source: Path, output: Path) -> Conversion:
    """Read a network, check it, write it as our safetensors file.

    Args:
        source: `.onnx`, or `.pth`, `.pt`, `.safetensors` with the tensors of an IResNet.
        output: the file to write.

    Raises:
        WeightsError: the source is missing, damaged, no IResNet, or computes other embeddings than what was made of it.
        MissingDependencyError: an ONNX file without the packages that read and run it.
        OutputError: the file cannot be written.
    """
    if source.suffix.lower() == ".onnx":
        network, difference = _from_onnx(source)
    elif source.suffix.lower() in (".pth", ".pt", ".safetensors"):
        network, difference = _from_tensors(source, _plain_iresnet(source)), None
        _check_embeddings(source, network)
    else:
        raise WeightsError(f"{source} is neither .onnx nor .pth", REMEDY)
    notes: dict[str, Any] = {
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": "that of the source",
    }
    if difference is not None:
        notes["largest difference of unit embeddings"] = difference
    sha256 = save_network(output, network, training=notes)
    return Conversion(network.config.architecture, output, sha256, difference)


def _from_onnx(source: Path) -> tuple[RecognitionNetwork, float]:
    """Our network with a graph's weights, and how far its embeddings are from the graph's."""
    graph = read_graph(source)
    network = _from_tensors(source, iresnet_tensors(graph))
    pictures = _random_pictures()
    with torch.no_grad():
        ours = network.aligned_features(pictures).final
    theirs = _run_graph(source, graph, pictures)
    if theirs.shape != ours.shape:
        raise WeightsError(f"{source} gives embeddings of shape {tuple(theirs.shape)}, expected {tuple(ours.shape)}", REMEDY)
    difference = float((torch.nn.functional.normalize(theirs, dim=1) - ours).abs().max())
    if not difference < LARGEST_DIFFERENCE:
        raise WeightsError(f"{source} converts to a network with other embeddings (they differ by {difference:.2g})", REMEDY)
    return network, difference


def _from_tensors(source: Path, tensors: Mapping[str, Tensor]) -> RecognitionNetwork:
    """Our network with these tensors, in evaluation mode."""
    architecture = _architecture(source, tensors)
    # Its random start is replaced; the caller's random numbers stay.
    with torch.random.fork_rng(devices=[]):
        network = RecognitionNetwork(RecognitionConfig(architecture=architecture))  # type: ignore[arg-type]
    wanted = network.backbone.state_dict()
    # Counters of training; some files leave them out.
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    complete = {**counters, **tensors}
    check_names_and_shapes(str(source), complete, wanted, REMEDY)
    network.backbone.load_state_dict({name: value.to(wanted[name].dtype) for name, value in complete.items()})
    return network.freeze()


def _architecture(source: Path, tensors: Mapping[str, Tensor]) -> str:
    """The IResNet that has as many blocks in each stage."""
    counts = tuple(len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in range(1, 5))
    for architecture, depths in DEPTHS.items():
        if depths == counts:
            return architecture
    raise WeightsError(f"{source} is no IResNet of known depth (blocks in its stages: {', '.join(map(str, counts))})", REMEDY)


def _plain_iresnet(source: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefix that parallel training leaves."""
    return {name.removeprefix("module."): value for name, value in read_plain_tensors(source).items()}


def _check_embeddings(source: Path, network: RecognitionNetwork) -> None:
    """Raise where the network cannot tell pictures apart: a file with all names right may still hold garbage."""
    with torch.no_grad():
        first, second = network.aligned_features(_random_pictures()).final
    if not (bool(torch.isfinite(first).all()) and bool(torch.isfinite(second).all()) and float(first @ second) < 1 - 1e-6):
        raise WeightsError(f"{source} gives embeddings that are not finite, or one for all pictures", REMEDY)


def _random_pictures() -> Float[Tensor, "2 3 112 112"]:
    """Two pictures with coarse and fine structure, the same at each call."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 7, 7, generator=random)
    fine = torch.rand(2, 3, 112, 112, generator=random)
    return 0.7 * torch.nn.functional.interpolate(coarse, (112, 112), mode="bilinear") + 0.3 * fine


def _run_graph(source: Path, graph: OnnxGraph, pictures: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b n"]:
    """Embeddings as the graph itself computes them, picture by picture, for some graphs take no more at a time."""
    scaled = pictures * 255 if graph.takes_bytes else pictures * 2 - 1
    try:
        run = _evaluator(graph)
        values = [run(picture[None].numpy().astype(graph.input_type)) for picture in scaled]
    except MissingDependencyError:
        raise
    except Exception as error:  # whatever a graph that cannot be run leads to
        raise WeightsError(f"{source} cannot be run for comparison ({type(error).__name__})", REMEDY) from error
    return torch.from_numpy(np.concatenate(values).astype(np.float32))


def _evaluator(graph: OnnxGraph) -> Callable[[np.ndarray], np.ndarray]:
    """A function from an input array to the graph's output array."""
    # ONNX's own reference evaluator would need no further package, but gets the batch norms of such graphs (opset 11) wrong by 5e-2.
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("checking ONNX files needs the package onnxruntime", INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda value: np.asarray(session.run(None, {graph.input_name: value})[0])
