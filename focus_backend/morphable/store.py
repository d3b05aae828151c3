"""Where face models are kept: one safetensors file a model, verified when read.

The tensors are those of `FaceModel` under their own names (`landmarks68.triangles` and the like for points). The bases are in half
precision, everything else in single precision or 32-bit integers. One metadata entry, `focus-face-model`, holds JSON: format version,
names, and what is known about the model's making. Its `sha256` is over the rest of that JSON and all tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from focus_backend.errors import ModelError
from focus_backend.files import digest_of, write_whole
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

FORMAT_VERSION = 1
METADATA_KEY = "focus-face-model"
MODEL_FOLDER = Path(__file__).parent / "models"
HALF_PRECISION = ("shape_basis", "expression_basis", "albedo_basis")
POINTS = ("landmarks68", "now_landmarks")
REBUILD = "get it again, or rebuild it with `focus-backend models build anny`"

# Shape of each tensor; a word stands for one size throughout the file.
SHAPES: dict[str, tuple[str | int, ...]] = {
    "mean_shape": ("vertices", 3),
    "shape_basis": ("shape", "vertices", 3),
    "expression_basis": ("expression", "vertices", 3),
    "expression_scale": ("expression",),
    "quads": ("quads", 4),
    "quad_uv": ("quads", 4),
    "uv": ("uvs", 2),
    "quad_in_face": ("quads",),
    "texels": ("texels",),
    "albedo_mean": ("texels", 3),
    "albedo_basis": ("albedo", "texels", 3),
    "landmarks68.triangles": (68,),
    "landmarks68.barycentric": (68, 3),
    "now_landmarks.triangles": (7,),
    "now_landmarks.barycentric": (7, 3),
}
# Index tensors and the size that their values stay below.
INDEX_LIMITS = {"quads": "vertices", "quad_uv": "uvs"}


def list_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in MODEL_FOLDER.glob("*.safetensors"))


def load_model(name_or_path: str | Path = "anny") -> FaceModel:
    """A face model by name, or from a file.

    Raises:
        ModelError: no such model; or its file is truncated, tampered with, incomplete or of another version.
    """
    path = find_model(name_or_path)
    tensors, description = _read(path)
    values: dict[str, Any] = {}
    for name in SHAPES:
        owner, _, part = name.partition(".")
        tensor = tensors[name]
        tensor = tensor.float() if tensor.is_floating_point() else tensor if tensor.dtype == torch.bool else tensor.long()
        if part:
            values.setdefault(owner, {})[part] = tensor
        else:
            values[name] = tensor
    for owner in POINTS:
        values[owner] = SurfacePoints(names=tuple(description["point_names"][owner]), **values[owner])
    return FaceModel(
        name=description["name"],
        expression_names=tuple(description["expression_names"]),
        texture_size=int(description["texture_size"]),
        metadata={**description["about"], "format": str(FORMAT_VERSION), "sha256": description["sha256"]},
        **values,
    )


def model_info(name_or_path: str | Path) -> dict[str, Any]:
    """What a model consists of and where it comes from, for people to read.

    Raises:
        ModelError: as for `load_model`.
    """
    path = find_model(name_or_path)
    model = load_model(path)
    return {
        "name": model.name,
        "file": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "vertices": len(model.mean_shape),
        "quads": len(model.quads),
        "face quads": int(model.quad_in_face.sum()),
        "shape components": model.shape_size,
        "expressions": model.expression_size,
        "albedo components": model.albedo_size,
        "texture": f"{model.texture_size} x {model.texture_size}",
        **model.metadata,
    }


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model.

    Raises:
        ModelError: there is none.
    """
    shipped = MODEL_FOLDER / f"{name_or_path}.safetensors"
    if os.sep not in str(name_or_path) and shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = ", ".join(list_models()) or "none"
    raise ModelError(f"there is no face model {str(name_or_path)!r}", f"give a file or one of: {known}")


def save_model(model: FaceModel, path: Path, about: Mapping[str, str] | None = None) -> str:
    """Write a model, whole or not at all; returns its sha256.

    Args:
        model: any face model.
        path: the file.
        about: source, licence, units and how it was built; the model's own metadata when left out.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = _tensors(model)
    kept = {key: str(value) for key, value in (model.metadata if about is None else about).items() if key not in ("format", "sha256")}
    description: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": model.name,
        "texture_size": model.texture_size,
        "expression_names": list(model.expression_names),
        "point_names": {owner: list(getattr(model, owner).names) for owner in POINTS},
        "about": kept,
    }
    description["sha256"] = digest_of(tensors, description)
    # One entry only: the order of several would differ from run to run.
    data = save_tensors(tensors, metadata={METADATA_KEY: json.dumps(description, sort_keys=True)})
    write_whole(path, data)
    return description["sha256"]


def _tensors(model: FaceModel) -> dict[str, Tensor]:
    """The model's tensors as they are stored."""
    tensors = {}
    for name in SHAPES:
        value: Any = model
        for part in name.split("."):
            value = getattr(value, part)
        if value.is_floating_point():
            value = value.to(torch.float16 if name in HALF_PRECISION else torch.float32)
        elif value.dtype != torch.bool:
            value = value.to(torch.int32)
        tensors[name] = value.detach().cpu().contiguous()
    return tensors


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a file, checked in the order in which a fault would be named."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the face model {path} cannot be read ({error.strerror or error})", "check the file and its permissions"
        ) from error
    description = _describe(path, data)
    try:
        tensors = load_tensors(data)
    except Exception as error:
        raise ModelError(f"the face model {path} is damaged or truncated ({error})", REBUILD) from error
    missing = [name for name in SHAPES if name not in tensors]
    if missing:
        raise ModelError(f"the face model {path} lacks {missing[0]}", REBUILD)
    _check_shapes(path, tensors, description)
    if digest_of(tensors, description) != description.get("sha256"):
        raise ModelError(f"the face model {path} was changed after it was made (its sha256 does not match)", REBUILD)
    _check_values(path, tensors)
    return tensors, description


def _describe(path: Path, data: bytes) -> dict[str, Any]:
    """The description in the file's header."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        text = header.get("__metadata__", {}).get(METADATA_KEY)
    except (ValueError, AttributeError) as error:
        raise ModelError(f"the face model {path} is damaged or no safetensors file", REBUILD) from error
    if text is None:
        raise ModelError(f"{path} is a safetensors file, but no face model", "give a file that `focus-backend models build` wrote")
    try:
        description = json.loads(text)
        version = description["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the face model {path} has a damaged description", REBUILD) from error
    if version != FORMAT_VERSION:
        raise ModelError(f"the face model {path} has format {version}, this program reads format {FORMAT_VERSION}", REBUILD)
    wanted = {"name", "texture_size", "expression_names", "point_names", "about", "sha256"}
    if not wanted <= set(description):
        raise ModelError(f"the description in the face model {path} lacks {min(wanted - set(description))}", REBUILD)
    return description


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    sizes: dict[str | int, int] = {"expression": len(description["expression_names"])}
    for name, wanted in SHAPES.items():
        got = tuple(tensors[name].shape)
        expected = tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in wanted)
        if len(got) != len(expected) or any(e not in (-1, g) for g, e in zip(got, expected, strict=True)):
            raise ModelError(f"{name} in the face model {path} has shape {got}, expected {expected} (-1: any)", REBUILD)
        sizes |= {size: g for size, g in zip(wanted, got, strict=True) if isinstance(size, str)}


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Values that the digest cannot vouch for, should a model have been made wrongly."""
    for name in SHAPES:
        tensor = tensors[name]
        # A sum is not finite if one part of it is not, and faster than asking each.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise ModelError(f"{name} in the face model {path} has values that are not finite", REBUILD)
    for name, limit in INDEX_LIMITS.items():
        size = len(tensors["mean_shape" if limit == "vertices" else "uv"])
        if not (int(tensors[name].min()) >= -1 and int(tensors[name].max()) < size):
            raise ModelError(f"{name} in the face model {path} points outside the mesh", REBUILD)
