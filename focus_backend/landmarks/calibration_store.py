"""Keeps detectors' calibrations: shipped, else in the user's cache, else made anew. A key in the file guards against a wrong one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from focus_backend.files import write_whole
from focus_backend.landmarks.calibration import CALIBRATION_VERSION, PICTURES, DetectorCalibration, LandmarkNoise, calibrate
from focus_backend.landmarks.detector import LandmarkDetector
from focus_backend.landmarks.embedding import EMBEDDING_VERSION, Embedding
from focus_backend.morphable.face_model import FaceModel, SurfacePoints

_SHIPPED = Path(__file__).parent / "calibrations"
# The shipped calibration is made once, so it can afford more pictures than one made on a user's machine.
SHIPPED_PICTURES = 3000
TENSORS = ("triangles", "barycentric", "indices", "embedding_noise", "bias", "factor", "variance")


def calibration_for(
    model: FaceModel,
    detector: LandmarkDetector,
    cache: Path | None = None,
    pictures: int = PICTURES,
    progress: Callable[[float], None] | None = None,
) -> DetectorCalibration:
    """The calibration of a detector on a model, on the CPU. Made on first use where none is kept: about a minute.

    Args:
        model: any face model.
        detector: any detector.
        cache: folder of the user's cache; by default the one that the system has for this.
        pictures: renders to look at when it must be made.
        progress: is told the fraction done while it is made.

    Raises:
        LandmarkError: there is none yet and none can be made; see `calibrate`.
    """
    cache = cache or user_cache()
    key = calibration_key(model, detector)
    for path in (shipped_path(model, detector), cache / f"{model.name}-{detector.name}-{key[:16]}.safetensors"):
        found = read_calibration(path, key)
        if found:
            return found
    made = calibrate(model, detector, pictures, progress)
    # Without a place to keep it, it is made again next time.
    with contextlib.suppress(OSError):
        write_calibration(made, path, key)
    return made


def calibration_key(model: FaceModel, detector: LandmarkDetector) -> str:
    """Changes whenever the calibration may: with the model's content, the detector and the method."""
    parts = [model.name, detector.name, detector.version, EMBEDDING_VERSION, CALIBRATION_VERSION]
    digest = hashlib.sha256(json.dumps(parts).encode())
    digest.update(model.metadata.get("sha256", "").encode() or _content(model))
    return digest.hexdigest()


def _content(model: FaceModel) -> bytes:
    """Digest of a model that was never stored and so has no hash of its own."""
    digest = hashlib.sha256()
    for tensor in (model.mean_shape, model.shape_basis, model.expression_basis, model.quads, model.albedo_mean, model.albedo_basis):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def shipped_path(model: FaceModel, detector: LandmarkDetector) -> Path:
    """Where the calibration on a shipped model lies, if there is one; written anew by `ship` after the model has changed."""
    return _SHIPPED / f"{model.name}-{detector.name}.safetensors"


def ship(model: FaceModel, detector: LandmarkDetector, progress: Callable[[float], None] | None = None) -> Path:
    """Makes the calibration that is shipped for a model (minutes) and says where it is.

    Raises:
        LandmarkError: none can be made; see `calibrate`.
        OSError: the package's folder cannot be written.
    """
    path = shipped_path(model, detector)
    write_calibration(calibrate(model, detector, SHIPPED_PICTURES, progress), path, calibration_key(model, detector))
    return path


def write_calibration(calibration: DetectorCalibration, path: Path, key: str) -> None:
    """Writes beside, then renames, so that a reader never meets half a file. The covariance factor is kept in half precision.

    Raises:
        OSError: the folder cannot be written.
    """
    embedding, noise = calibration.embedding, calibration.noise
    tensors = {
        "triangles": embedding.points.triangles.int(),
        "barycentric": embedding.points.barycentric,
        "indices": embedding.indices.int(),
        "embedding_noise": embedding.noise,
        "bias": noise.bias,
        "factor": noise.factor.half(),
        "variance": noise.variance,
    }
    names = json.dumps([embedding.points.names, embedding.dropped])
    data = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {"key": key, "detector": embedding.detector, "names": names},
    )
    write_whole(path, data)


def read_calibration(path: Path, key: str) -> DetectorCalibration | None:
    """The calibration in a file; None when there is no such file, it is damaged or it belongs to another model or detector."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            names, dropped = json.loads(metadata["names"])
            tensor = {name: file.get_tensor(name) for name in TENSORS}
        points = SurfacePoints(tuple(names), tensor["triangles"].long(), tensor["barycentric"])
        embedding = Embedding(metadata["detector"], points, tensor["indices"].long(), tensor["embedding_noise"], tuple(dropped))
        noise = LandmarkNoise(tensor["bias"], tensor["factor"].float(), tensor["variance"])
        return DetectorCalibration(embedding, noise)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def independent_noise(embedding: Embedding) -> LandmarkNoise:
    """Noise of points that were placed by hand: each errs for itself."""
    count = len(embedding.noise)
    variance = embedding.noise.float().square().repeat_interleave(2)
    return LandmarkNoise(torch.zeros(count, 2), torch.zeros(0, 2 * count), variance)


def user_cache() -> Path:
    """The folder that the system has for a program's cached files."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(base) / "focus-backend" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "focus-backend"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "focus-backend"
