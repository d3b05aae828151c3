"""Keeps embeddings: shipped beside the model, else in the user's cache, else made anew. Never a wrong one: the key is in the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from focus_backend.landmarks.detector import LandmarkDetector
from focus_backend.landmarks.embedding import EMBEDDING_VERSION, PEOPLE, Embedding, embed
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

_SHIPPED = Path(__file__).parent / "embeddings"


def embedding_for(model: FaceModel, detector: LandmarkDetector, cache: Path | None = None, people: int = PEOPLE) -> Embedding:
    """The embedding of a detector's points on a model, on the model's device.

    Args:
        model: any face model.
        detector: any detector.
        cache: folder of the user's cache; by default the one that the system has for this.
        people: see `embed`.

    Raises:
        LandmarkError: there is none yet and none can be made; see `embed`.
    """
    cache = cache or user_cache()
    key = embedding_key(model, detector, people)
    for path in (shipped_path(model, detector), cache / f"{model.name}-{detector.name}-{key[:16]}.safetensors"):
        found = read_embedding(path, key)
        if found:
            return _on_device(found, model)
    made = embed(model, detector, people)
    # Without a place to keep it, it is made again next time.
    with contextlib.suppress(OSError):
        write_embedding(made, path, key)
    return _on_device(made, model)


def embedding_key(model: FaceModel, detector: LandmarkDetector, people: int = PEOPLE) -> str:
    """Changes whenever the embedding may: with the model's numbers, the detector and the method."""
    digest = hashlib.sha256(json.dumps([model.name, detector.name, detector.version, EMBEDDING_VERSION, people]).encode())
    for tensor in (model.mean_shape, model.shape_basis, model.expression_basis, model.quads, model.albedo_mean, model.albedo_basis):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def shipped_path(model: FaceModel, detector: LandmarkDetector) -> Path:
    """Where the embedding of a shipped model lies, if there is one; written anew by `ship` after the model has changed."""
    return _SHIPPED / f"{model.name}-{detector.name}.safetensors"


def ship(model: FaceModel, detector: LandmarkDetector) -> Path:
    """Makes the embedding that is shipped with a model and says where it is.

    Raises:
        LandmarkError: none can be made; see `embed`.
        OSError: the package's folder cannot be written.
    """
    path = shipped_path(model, detector)
    write_embedding(embed(model, detector), path, embedding_key(model, detector))
    return path


def write_embedding(embedding: Embedding, path: Path, key: str) -> None:
    """Writes beside, then renames, so that a reader never meets half a file.

    Raises:
        OSError: the folder cannot be written.
    """
    tensors = {
        "triangles": embedding.points.triangles,
        "barycentric": embedding.points.barycentric,
        "indices": embedding.indices,
        "noise": embedding.noise,
    }
    names = json.dumps([embedding.points.names, embedding.dropped])
    data = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {"key": key, "detector": embedding.detector, "names": names},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_embedding(path: Path, key: str) -> Embedding | None:
    """The embedding in a file; None when there is no such file, it is damaged or it belongs to another model or detector."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            names, dropped = json.loads(metadata["names"])
            points = SurfacePoints(tuple(names), file.get_tensor("triangles"), file.get_tensor("barycentric"))
            return Embedding(metadata["detector"], points, file.get_tensor("indices"), file.get_tensor("noise"), tuple(dropped))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def user_cache() -> Path:
    """The folder that the system has for a program's cached files."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(base) / "focus-backend" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "focus-backend"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "focus-backend"


def _on_device(embedding: Embedding, model: FaceModel) -> Embedding:
    device = torch.device(model.device)
    return Embedding(
        embedding.detector, embedding.points.to(device), embedding.indices.to(device), embedding.noise.to(device), embedding.dropped
    )
