"""All files of one reconstruction, by name; the one place that knows the layout of a result folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from focus_backend.export.folder import write_folder
from focus_backend.export.glb import MorphTargets, write_glb
from focus_backend.export.obj import write_mtl, write_obj
from focus_backend.export.pictures import draw_report, encode_jpeg, encode_mask, encode_png
from focus_backend.morphable.face_model import FaceModel
from focus_backend.progress import Beat, quiet
from focus_backend.reconstruction.result import Reconstruction, activation_scale


def write_reconstruction(reconstruction: Reconstruction, folder: Path) -> None:
    """Write the result as `folder`, whole or not at all; an older result there is replaced.

    Raises:
        OutputError: not writable, disk full, or the folder holds other files.
        FitError: the result is not finite.
    """
    write_folder(reconstruction_files(reconstruction), folder)


def reconstruction_files(reconstruction: Reconstruction, beat: Beat = quiet) -> dict[str, bytes]:
    """Content of every file of the result, in memory: what the folder gets, and what a server may send.

    Args:
        reconstruction: one face.
        beat: called before every file.

    Raises:
        FitError: the result is not finite.
    """
    # First, for it refuses numbers that are not finite.
    document = write_document(reconstruction.to_document())
    # Pictures are packed beside the rest, without the interpreter's lock.
    with ThreadPoolExecutor(1) as packer:
        texture = packer.submit(encode_png, reconstruction.texture)
        albedo = packer.submit(encode_png, reconstruction.albedo_texture)
        outlier_mask = packer.submit(encode_mask, reconstruction.outlier_mask)
        face_mask = packer.submit(encode_mask, reconstruction.face_mask)
        encoders: dict[str, Callable[[], bytes]] = {
            "neutral.obj": lambda: _obj(reconstruction),
            "report.jpg": lambda: _report(reconstruction),
            "neutral.mtl": lambda: write_mtl("texture.png"),
            "face.glb": lambda: _glb(reconstruction, texture.result()),
            "albedo.png": albedo.result,
            "texture.png": texture.result,
            "outlier_mask.png": outlier_mask.result,
            "face_mask.png": face_mask.result,
            "result.json": lambda: document,
        }
        files = {}
        for name, encode in encoders.items():
            beat()
            files[name] = encode()
    return files


def _report(reconstruction: Reconstruction) -> bytes:
    page = draw_report(reconstruction.photo, reconstruction.rendering, reconstruction.face_mask, reconstruction.outlier_mask)
    return encode_jpeg(page)


def _obj(reconstruction: Reconstruction) -> bytes:
    model = reconstruction.model
    vertices = _array(reconstruction.neutral_vertices)
    return write_obj(vertices, _array(model.uv), _array(model.quads), _array(model.quad_uv), "neutral.mtl")


def _glb(reconstruction: Reconstruction, texture_png: bytes) -> bytes:
    model = reconstruction.model
    return write_glb(
        _array(reconstruction.neutral_vertices),
        _array(model.triangles),
        _array(model.uv),
        _array(model.triangle_uv),
        expression_targets(model, reconstruction.expression),
        texture_png,
    )


def with_texture_size(reconstruction: Reconstruction, size: int | None) -> Reconstruction:
    """The result with albedo and texture scaled down to `size` pixels a side; they are never scaled up."""
    if size is None:
        return reconstruction
    return dataclasses.replace(
        reconstruction,
        albedo_texture=_at_most(reconstruction.albedo_texture, size),
        texture=_at_most(reconstruction.texture, size),
    )


def expression_targets(model: FaceModel, expression: Tensor) -> MorphTargets:
    """The model's expressions at full activation, with the fitted coefficients (standard deviations) as activations."""
    scale = activation_scale(model)
    return MorphTargets(
        names=model.expression_names,
        offsets=_array(model.expression_basis / scale[:, None, None]),
        weights=_array(expression * scale),
    )


def write_document(document: Mapping) -> bytes:
    """JSON with one key a line at the top and short lists on one line, so that people can read it."""
    lines = [f"  {json.dumps(key)}: {_pretty(value, 4)}" for key, value in document.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8")


def _pretty(value: object, indent: int) -> str:
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    pad = " " * indent
    lines = [f"{pad}{json.dumps(key, ensure_ascii=False)}: {_pretty(inner, indent + 2)}" for key, inner in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * (indent - 2) + "}"


def _at_most(picture: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) if len(picture) > size else picture


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
