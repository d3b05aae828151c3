"""Files of networks: one safetensors file each, everything about it checked when it is read.

One metadata entry, `focus-network`, holds JSON: format version, kind, configuration, the face model (name, sha256, sizes) the network
was made for, package version, notes on the training. Its `sha256` is over the rest of that JSON and all tensors. Weights are stored in
single precision, or matrices and kernels in half precision; they are loaded as single precision either way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from focus_backend import __version__
from focus_backend.errors import WeightsError
from focus_backend.files import digest_of, write_whole
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.theta import ThetaSizes

if TYPE_CHECKING:
    from focus_backend.networks.encoder import Encoder

FORMAT_VERSION = 1
METADATA_KEY = "focus-network"
KINDS = ("encoder", "segmentation", "recognition")
# Kinds that mean nothing without their face model.
MODEL_KINDS = ("encoder", "misfit")
REMEDY = "get the file again, or train the network again"
Precision = Literal["single", "half"]


def save_network(
    path: str | Path,
    network: nn.Module,
    *,
    model: FaceModel | None = None,
    training: Mapping[str, Any] | None = None,
    precision: Precision = "single",
) -> str:
    """Write a network, whole or not at all; the same tensors and notes give the same bytes.

    Args:
        path: the file.
        network: one of ours, with `kind` and `config`.
        model: the face model it was trained with; an encoder needs it.
        training: notes for people, plain JSON values.
        precision: "half" stores matrices and kernels in 16 bits.

    Returns:
        sha256 over description and tensors.

    Raises:
        WeightsError: an encoder without its face model, or with another one; values that are not finite.
        OutputError: the file cannot be written.
    """
    kind, config = cast(str, network.kind), cast(Any, network.config)
    if kind == "encoder" and model is None:
        raise WeightsError("an encoder cannot be saved without its face model", "give the model it was trained with")
    description: dict[str, Any] = {"config": config.model_dump(mode="json"), "training": dict(training or {}), "precision": precision}
    if kind == "encoder" and model is not None:
        encoder = cast("Encoder", network)
        if ThetaSizes.of(model) != encoder.sizes:
            raise WeightsError(f"the encoder was not made for the face model {model.name}", "save it with its own face model")
        description["image_size"] = encoder.image_size
    tensors = {name: _stored(value, precision) for name, value in network.state_dict().items()}
    return write_tensors(path, kind, tensors, description, model=model)


def load_network(
    path: str | Path,
    kind: str,
    *,
    model: FaceModel | None = None,
    device: torch.device | str = "cpu",
    file_sha256: str | None = None,
) -> nn.Module:
    """A network from its file, in evaluation mode; its parameters may be trained further.

    Args:
        path: a file that `save_network` wrote.
        kind: "encoder", "segmentation" or "recognition".
        model: the face model in use; an encoder needs it, the others are checked against it when both are known.
        device: where to put the network.
        file_sha256: what the bytes of the file have to hash to, if known.

    Raises:
        WeightsError: the file is missing, damaged, changed, of another format, kind, face model or shape; the message says which.
    """
    path = Path(path)
    tensors, description = read_tensors(path, kind, model=model, file_sha256=file_sha256)
    # Loading is no reason for the caller's random numbers to change.
    with torch.random.fork_rng(devices=[]):
        network = _build(path, description, model)
    wanted = network.state_dict()
    check_names_and_shapes(f"the {kind} {path}", tensors, wanted, REMEDY)
    for name, value in tensors.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise WeightsError(f"{name} in the {kind} {path} is of type {value.dtype}, expected {wanted[name].dtype}", REMEDY)
    network.load_state_dict(tensors)
    return network.to(device).eval()


def read_description(path: str | Path) -> dict[str, Any]:
    """What a file says about itself: kind, config, face model, training notes, versions, sha256. Tensors are not checked.

    Raises:
        WeightsError: missing, no network, or of another format.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            # A header is some 100 kB; what is no safetensors file could claim anything.
            data = start + file.read(min(int.from_bytes(start, "little"), 100_000_000))
    except OSError as error:
        raise _unreadable(path, error) from error
    return _describe(path, data)


def write_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], description: Mapping[str, Any], *, model: FaceModel | None = None
) -> str:
    """Write tensors of a kind with their description, whole or not at all; returns the sha256 over both.

    Raises:
        WeightsError: the face model has no sha256; values that are not finite.
        OutputError: the file cannot be written.
    """
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    for name, value in kept.items():
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{name} of the {kind} has values that are not finite", "the training diverged; save an earlier state")
    whole: dict[str, Any] = {
        **description,
        "format": FORMAT_VERSION,
        "kind": kind,
        "package": __version__,
        "face_model": None if model is None else model_identity(model).model_dump(),
    }
    # What JSON makes of it is what a reader will hash.
    whole = json.loads(json.dumps(whole, sort_keys=True))
    whole["sha256"] = digest_of(kept, whole)
    # One entry only: the order of several would differ from run to run.
    write_whole(Path(path), save_tensors(kept, metadata={METADATA_KEY: json.dumps(whole, sort_keys=True)}))
    return whole["sha256"]


def read_tensors(
    path: Path, kind: str, *, model: FaceModel | None = None, file_sha256: str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (floating ones as float32) and description of a file, checked in the order in which a fault would be named.

    Raises:
        WeightsError: as for `load_network`, save names and shapes.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    description = _describe(path, data)
    if description["kind"] != kind:
        raise WeightsError(f"{path} is of kind {description['kind']!r}, expected {kind!r}", f"give the file of the {kind}")
    if model is not None and (description.get("face_model") is not None or kind in MODEL_KINDS):
        check_face_model(f"the {kind} {path}", description.get("face_model"), model)
    elif kind in MODEL_KINDS:
        raise WeightsError(f"the {kind} {path} cannot be read without its face model", "give the face model it was trained with")
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"the {kind} {path} is damaged or truncated ({error})", REMEDY) from error
    # All bytes as listed need no second look at the tensors among them.
    is_listed = file_sha256 is not None and hashlib.sha256(data).hexdigest() == file_sha256
    if not is_listed and digest_of(tensors, description) != description["sha256"]:
        raise WeightsError(f"the {kind} {path} was changed after it was made (its sha256 does not match)", REMEDY)
    if file_sha256 is not None and not is_listed:
        raise WeightsError(f"the {kind} {path} is another than the one its weights.json lists (sha256 differs)", REMEDY)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}, description


def read_plain_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name of somebody else's file, safetensors or `.pth`; nothing but tensors is unpickled.

    Raises:
        WeightsError: the file cannot be read or holds other things.
    """
    remedy = "give a .safetensors file or a .pth with a state dict"
    try:
        tensors = load_tensors(path.read_bytes()) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        # Its own text is pages of advice.
        raise WeightsError(f"{path} is damaged or holds more than tensors ({type(error).__name__})", remedy) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} holds no plain state dict", remedy)
    return dict(tensors)


def check_names_and_shapes(source: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], remedy: str) -> None:
    """Whether tensors are those of a network.

    Raises:
        WeightsError: names what differs in `source`.
    """
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing:
        raise WeightsError(f"{source} lacks {_some(missing)}", remedy)
    if extra:
        raise WeightsError(f"{source} has {_some(extra)} too many", remedy)
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            raise WeightsError(f"{name} in {source} has shape {tuple(given[name].shape)}, expected {tuple(value.shape)}", remedy)


class ModelIdentity(BaseModel):
    """What a file keeps of the face model it was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    # Numbers of shape, expression and albedo coefficients and of vertices.
    sizes: dict[str, int]


def model_identity(model: FaceModel) -> ModelIdentity:
    """What a file keeps of a face model.

    Raises:
        WeightsError: a model that was never saved has no sha256.
    """
    sha256 = model.metadata.get("sha256")
    if not sha256:
        raise WeightsError(f"the face model {model.name} has no sha256", "save it with `save_model` and load it again")
    sizes = {"shape": model.shape_size, "expression": model.expression_size, "albedo": model.albedo_size}
    return ModelIdentity(name=model.name, sha256=sha256, sizes={**sizes, "vertices": len(model.mean_shape)})


def first_fault(error: ValidationError) -> str:
    """Where the first wrong value is and what is wrong with it, one line."""
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}"


def _build(path: Path, description: Mapping[str, Any], model: FaceModel | None) -> nn.Module:
    """The network that a file describes, its parameters still random."""
    # Late, as the networks' modules use this one.
    from focus_backend.networks.encoder import Encoder, EncoderConfig
    from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork

    kind, config = description["kind"], description.get("config")
    try:
        if kind == "encoder" and model is not None:
            return Encoder(EncoderConfig.model_validate(config), model, int(description["image_size"]))
        if kind == "segmentation":
            return SegmentationNetwork(SegmentationConfig.model_validate(config))
        if kind == "recognition":
            from focus_backend.networks.recognition import RecognitionConfig, RecognitionNetwork

            return RecognitionNetwork(RecognitionConfig.model_validate(config))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise WeightsError(f"the {kind} {path} has a configuration this program does not know ({reason})", REMEDY) from error
    raise WeightsError(f"{path} holds no network this program can build (kind {kind!r})", f"known kinds: {', '.join(KINDS)}")


def check_face_model(source: str, stored: Any, model: FaceModel) -> None:
    """Whether what a file keeps of its face model is the model in use.

    Raises:
        WeightsError: names what differs in `source`.
    """
    used = model_identity(model)
    try:
        made = ModelIdentity.model_validate(stored)
    except ValidationError as error:
        raise WeightsError(f"{source} does not say which face model it is for", REMEDY) from error
    remedy = f"use the face model {made.name!r} it was trained with, or train weights for {used.name!r}"
    for size, value in used.sizes.items():
        if made.sizes.get(size) != value:
            theirs = made.sizes.get(size)
            raise WeightsError(f"{source} is for a face model of {theirs} {size}, {used.name!r} has {value}", remedy)
    if made.sha256 != used.sha256:
        detail = f"{made.name!r} {made.sha256[:12]}, not {used.name!r} {used.sha256[:12]}"
        raise WeightsError(f"{source} was trained with another face model ({detail})", remedy)


def _describe(path: Path, data: bytes) -> dict[str, Any]:
    """The description in a file's header."""
    try:
        length = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(METADATA_KEY)
    except (ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file", REMEDY) from error
    if text is None:
        raise WeightsError(f"{path} is a safetensors file, but none of our networks", "give a file that `focus-backend train` wrote")
    try:
        description = json.loads(text)
        version = description["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path} has a damaged description", REMEDY) from error
    if version != FORMAT_VERSION:
        remedy = "update this program" if isinstance(version, int) and version > FORMAT_VERSION else REMEDY
        raise WeightsError(f"{path} has format {version}, this program reads format {FORMAT_VERSION}", remedy)
    if not (isinstance(description.get("kind"), str) and isinstance(description.get("sha256"), str)):
        raise WeightsError(f"the description in {path} lacks its kind or sha256", REMEDY)
    return description


def _stored(value: Tensor, precision: Precision) -> Tensor:
    """A tensor as it is stored; vectors stay as they are, being small and, in batch norm, of wide range."""
    if precision == "half" and value.is_floating_point() and value.dim() > 1:
        return value.half()
    return value.float() if value.is_floating_point() else value


def _some(names: list[str]) -> str:
    """A few names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{path} cannot be read ({error.strerror or error})", "check the file and its permissions")
