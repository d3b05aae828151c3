"""Weights folders: the networks that belong together, with the face model they were trained with.

A folder holds `weights.json` and one file a network: `encoder.safetensors` and, optionally, `segmentation.safetensors`,
`recognition.safetensors` and `misfit.safetensors` (the misfit prior of equation 11). The JSON lists the sha256 of every file.
The recognition network, which serves any weights, may lie beside the folder instead of in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from focus_backend import __version__
from focus_backend.errors import OutputError, WeightsError
from focus_backend.files import write_whole
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import (
    REMEDY,
    ModelIdentity,
    Precision,
    check_face_model,
    first_fault,
    load_network,
    model_identity,
    read_tensors,
    save_network,
    write_tensors,
)
from focus_backend.networks.encoder import Encoder
from focus_backend.networks.segmentation import SegmentationNetwork

FORMAT_VERSION = 1
WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"
LIST_NAME = "weights.json"
DEFAULT_WEIGHTS = "default"
REQUIRED_FILES = ("encoder",)
OPTIONAL_FILES = ("segmentation", "recognition", "misfit")


@dataclass(frozen=True)
class Weights:
    """Networks ready for inference.

    Attributes:
        name: of the folder.
        sha256: of its list, which holds the hashes of all files.
        image_size: rows and columns of the crops, pixels.
        encoder, segmentation: in evaluation mode, without gradients; no segmentation where none was trained.
        misfit: E_MP of equation 11, model space, mm; None where no prior was made.
        description: the list itself, with notes on the training.
    """

    name: str
    sha256: str
    image_size: int
    encoder: Encoder
    segmentation: SegmentationNetwork | None
    misfit: Float[Tensor, "v 3"] | None
    description: Mapping[str, Any] = field(default_factory=dict)


class FolderList(BaseModel):
    """What `weights.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: str
    image_size: int = Field(gt=0)
    face_model: ModelIdentity
    # sha256 of the bytes of each file, by its name without suffix.
    files: dict[str, str]
    package: str
    training: dict[str, Any]


def list_weights() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS_FOLDER.glob(f"*/{LIST_NAME}"))


def default_weights() -> str | None:
    """Name of the weights to use when none are asked for; None if the package came without."""
    return DEFAULT_WEIGHTS if DEFAULT_WEIGHTS in list_weights() else None


def find_weights(name_or_path: str | Path) -> Path:
    """The folder of weights, by name or path.

    Raises:
        WeightsError: there is none.
    """
    shipped = WEIGHTS_FOLDER / str(name_or_path)
    if os.sep not in str(name_or_path) and (shipped / LIST_NAME).is_file():
        return shipped
    folder = Path(name_or_path)
    if (folder / LIST_NAME).is_file():
        return folder
    known = ", ".join(list_weights()) or "none"
    raise WeightsError(f"there are no weights {str(name_or_path)!r}", f"give a folder with a {LIST_NAME} or one of: {known}")


def read_list(folder: Path) -> tuple[FolderList, str]:
    """The list of a folder and its sha256.

    Raises:
        WeightsError: it is missing, damaged, changed or of another format.
    """
    path = folder / LIST_NAME
    try:
        content = json.loads(path.read_bytes())
        version, sha256 = content["format"], content.pop("sha256")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error})", "check the file and its permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged or no list of weights", REMEDY) from error
    if version != FORMAT_VERSION:
        remedy = "update this program" if isinstance(version, int) and version > FORMAT_VERSION else REMEDY
        raise WeightsError(f"{path} has format {version}, this program reads format {FORMAT_VERSION}", remedy)
    if _digest(content) != sha256:
        raise WeightsError(f"{path} was changed after it was made (its sha256 does not match)", REMEDY)
    try:
        listed = FolderList.model_validate(content)
    except ValidationError as error:
        raise WeightsError(f"{path} is wrong ({first_fault(error)})", REMEDY) from error
    _check_files(path, set(listed.files))
    return listed, sha256


def part_file(folder: Path, kind: str) -> Path:
    """The file of a part of a weights folder."""
    own = folder / f"{kind}.safetensors"
    beside = folder.parent / own.name
    return beside if kind == "recognition" and not own.is_file() and beside.is_file() else own


def load_weights(name_or_path: str | Path, model: FaceModel, device: torch.device | str = "cpu") -> Weights:
    """Weights for inference, by name or from a folder.

    Args:
        name_or_path: one of `list_weights()`, or a folder.
        model: the face model in use.
        device: where to put networks and misfit prior.

    Raises:
        WeightsError: there are none; or they are for another face model; or a file is missing, damaged or changed.
    """
    folder = find_weights(name_or_path)
    listed, sha256 = read_list(folder)
    check_face_model(f"the weights {folder}", listed.face_model, model)
    encoder = cast(Encoder, _load(folder, "encoder", listed, model, device))
    has_segmentation = "segmentation" in listed.files
    segmentation = cast(SegmentationNetwork, _load(folder, "segmentation", listed, model, device)) if has_segmentation else None
    if encoder.image_size != listed.image_size:
        raise WeightsError(f"the encoder in {folder} is for {encoder.image_size} px, its list says {listed.image_size} px", REMEDY)
    misfit = _load_misfit(folder, listed, model, device) if "misfit" in listed.files else None
    return Weights(listed.name, sha256, listed.image_size, encoder, segmentation, misfit, listed.model_dump(mode="json"))


def load_recognition(name_or_path: str | Path, device: torch.device | str = "cpu") -> nn.Module | None:
    """The recognition network of a weights folder, for inference; None if it has none.

    Raises:
        WeightsError: as for `load_weights`.
    """
    folder = find_weights(name_or_path)
    listed, _ = read_list(folder)
    return _load(folder, "recognition", listed, None, device) if "recognition" in listed.files else None


def save_weights(
    folder: str | Path,
    encoder: Encoder,
    segmentation: SegmentationNetwork | None,
    *,
    model: FaceModel,
    image_size: int,
    misfit: Float[Tensor, "v 3"] | None = None,
    recognition: nn.Module | None = None,
    training: Mapping[str, Any] | None = None,
    precision: Precision = "single",
    shares_recognition: bool = False,
) -> str:
    """Write a weights folder, whole or not at all, in place of an earlier one; returns its sha256.

    Args:
        folder: its last part is the name of the weights.
        encoder, segmentation, recognition: the networks; None for one that was not trained.
        model: the face model they were trained with.
        image_size: of the crops, pixels; has to be the encoder's.
        misfit: E_MP of equation 11, model space, mm.
        training: notes for people, plain JSON values.
        precision: "half" stores matrices and kernels in 16 bits.
        shares_recognition: list the recognition network that lies beside the folder, if there is one.

    Raises:
        WeightsError: the parts do not belong together, or have values that are not finite.
        OutputError: the folder cannot be written, or is something else than a weights folder.
    """
    folder = Path(folder).absolute()
    if encoder.image_size != image_size:
        raise WeightsError(f"the encoder is for {encoder.image_size} px, not {image_size} px", "give the encoder's own size")
    if misfit is not None and misfit.shape != model.mean_shape.shape:
        wanted = tuple(model.mean_shape.shape)
        raise WeightsError(f"the misfit prior has shape {tuple(misfit.shape)}, expected {wanted}", "make it with this face model")
    given: dict[str, nn.Module | None] = {"encoder": encoder, "segmentation": segmentation, "recognition": recognition}
    networks = {name: network for name, network in given.items() if network is not None}
    beside = _empty_beside(folder)
    try:
        for name, network in networks.items():
            # Recognition sees pictures only and serves any face model.
            owner = None if name == "recognition" else model
            save_network(beside / f"{name}.safetensors", network, model=owner, training=training, precision=precision)
        if misfit is not None:
            write_tensors(beside / "misfit.safetensors", "misfit", {"misfit": misfit.float()}, {}, model=model)
        parts = list(beside.glob("*.safetensors"))
        if shares_recognition and recognition is None:
            parts += folder.parent.glob("recognition.safetensors")
        sha256 = _write_list(beside, folder.name, parts, image_size, model, training)
        _put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sha256


def _load(folder: Path, kind: str, listed: FolderList, model: FaceModel | None, device: torch.device | str) -> nn.Module:
    """One network of a folder, frozen."""
    network = load_network(part_file(folder, kind), kind, model=model, device=device, file_sha256=listed.files[kind])
    return network.requires_grad_(False)


def _load_misfit(folder: Path, listed: FolderList, model: FaceModel, device: torch.device | str) -> Float[Tensor, "v 3"]:
    path = folder / "misfit.safetensors"
    tensors, _ = read_tensors(path, "misfit", model=model, file_sha256=listed.files["misfit"])
    misfit = tensors.get("misfit")
    if misfit is None or misfit.shape != model.mean_shape.shape:
        raise WeightsError(f"{path} holds no offset a vertex of the face model {model.name!r}", REMEDY)
    return misfit.clone().to(device)


def _check_files(path: Path, names: set[str]) -> None:
    missing = set(REQUIRED_FILES) - names
    unknown = names - {*REQUIRED_FILES, *OPTIONAL_FILES}
    if missing or unknown:
        what = f"lacks {min(missing)}" if missing else f"lists {min(unknown)!r}, which this program does not know"
        raise WeightsError(f"{path} {what}", REMEDY)


def _write_list(
    folder: Path, name: str, parts: Sequence[Path], image_size: int, model: FaceModel, training: Mapping[str, Any] | None
) -> str:
    """Write the list of the files `parts` into `folder`; returns its sha256."""
    files = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(parts)}
    listed = FolderList(
        format=FORMAT_VERSION,
        name=name,
        image_size=image_size,
        face_model=model_identity(model),
        files=files,
        package=__version__,
        training=dict(training or {}),
    )
    content = listed.model_dump(mode="json")
    sha256 = _digest(content)
    write_whole(folder / LIST_NAME, (json.dumps(content | {"sha256": sha256}, indent=2, sort_keys=True) + "\n").encode())
    return sha256


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _empty_beside(folder: Path) -> Path:
    """A new folder beside `folder`, once it is clear that `folder` may be replaced."""
    try:
        if folder.exists() and not (folder / LIST_NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} exists and is no weights folder", "choose another place")
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise OutputError(f"the weights {folder} cannot be written ({error.strerror or error})", "choose another place") from error


def _put_in_place(beside: Path, folder: Path) -> None:
    """Rename a finished folder to its place; what else an earlier one held, such as a model card, stays."""
    try:
        if not folder.exists():
            beside.chmod(0o755)
            beside.rename(folder)
            return
        kept = {path.stem for path in beside.glob("*.safetensors")}
        # The list comes last: until then files that are already new differ from it, which a reader notices.
        for path in [*beside.glob("*.safetensors"), beside / LIST_NAME]:
            path.replace(folder / path.name)
        for name in OPTIONAL_FILES:
            if name not in kept:
                (folder / f"{name}.safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the weights {folder} cannot be written ({error.strerror or error})", "choose another place") from error
