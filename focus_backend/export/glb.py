"""The face as one binary glTF: metres, every expression a named morph target, the fitted one as default weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_METRES_PER_MILLIMETRE = 0.001
# Numbers that glTF has for kinds of values, of buffers and of sampling.
_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071


@dataclass(frozen=True)
class MorphTargets:
    """Named offsets of the vertices at full activation.

    Attributes:
        names: one a target.
        offsets: mm, model space.
        weights: activation that a viewer shows first; 1 is the full expression.
    """

    names: tuple[str, ...]
    offsets: Float[ndarray, "targets vertices 3"]
    weights: Float[ndarray, "targets"]


@dataclass(frozen=True)
class SplitMesh:
    """Triangles in which a vertex has one texture coordinate, as glTF wants it.

    Attributes:
        source: which vertex of the original mesh each is.
        uv: origin top left.
        triangles: corners.
    """

    source: Int[ndarray, "split"]
    uv: Float[ndarray, "split 2"]
    triangles: Int[ndarray, "faces 3"]


def write_glb(
    vertices: Float[ndarray, "vertices 3"],
    triangles: Int[ndarray, "faces 3"],
    uv: Float[ndarray, "uvs 2"],
    triangle_uv: Int[ndarray, "faces 3"],
    morph_targets: MorphTargets,
    texture_png: bytes,
) -> bytes:
    """GLB file. Model space already is glTF's frame (y up, the front looks along +z); only the unit changes.

    Args:
        vertices: model space, mm.
        triangles: counter-clockwise seen from outside.
        uv: origin bottom left.
        triangle_uv: index into `uv` of each corner.
        morph_targets: the expressions.
        texture_png: sRGB picture, embedded as it is.
    """
    mesh = split_at_seams(triangles, uv, triangle_uv)
    buffer = _Buffer()
    attributes = {
        "POSITION": buffer.vectors(vertices[mesh.source] * _METRES_PER_MILLIMETRE, bounds=True),
        "NORMAL": buffer.vectors(smooth_normals(vertices, triangles)[mesh.source]),
        "TEXCOORD_0": buffer.vectors(mesh.uv),
    }
    primitive: dict[str, Any] = {"attributes": attributes, "indices": buffer.indices(mesh.triangles), "material": 0}
    face: dict[str, Any] = {"name": "face", "primitives": [primitive]}
    # glTF knows no empty lists.
    if morph_targets.names:
        offsets = morph_targets.offsets[:, mesh.source] * _METRES_PER_MILLIMETRE
        primitive["targets"] = [{"POSITION": buffer.vectors(offset, bounds=True)} for offset in offsets]
        face["weights"] = [float(w) for w in morph_targets.weights]
    face["extras"] = {"targetNames": list(morph_targets.names), "units": "metres"}
    return _file(_document(face, buffer, buffer.view(texture_png)), bytes(buffer.data))


def split_at_seams(triangles: Int[ndarray, "faces 3"], uv: Float[ndarray, "uvs 2"], triangle_uv: Int[ndarray, "faces 3"]) -> SplitMesh:
    """One vertex for each pair of vertex and texture coordinate that a corner uses, ordered by that pair."""
    pairs, corner = np.unique(triangles.reshape(-1) * len(uv) + triangle_uv.reshape(-1), return_inverse=True)
    source, place = np.divmod(pairs, len(uv))
    flipped = np.array([0.0, 1.0]) + uv[place] * np.array([1.0, -1.0])
    return SplitMesh(source, flipped.astype(np.float32), corner.reshape(-1, 3))


def smooth_normals(vertices: Float[ndarray, "vertices 3"], triangles: Int[ndarray, "faces 3"]) -> Float[ndarray, "vertices 3"]:
    """Area-weighted unit normals, shared across UV seams so that no seam shows; (0, 0, 1) where no triangle says more."""
    corners = vertices.astype(np.float64)[triangles]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], face_normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def _document(mesh: Mapping[str, Any], buffer: _Buffer, picture: int) -> dict[str, Any]:
    """Everything but the numbers; what has its default is left out."""
    material = {
        "name": "face",
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.7},
        # The head is an open shell: without this its inside is a hole.
        "doubleSided": True,
    }
    sampler = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP_TO_EDGE, "wrapT": _CLAMP_TO_EDGE}
    return {
        "asset": {"version": "2.0", "generator": "FOCUS", "extras": {"units": "metres", "up": "+y", "front": "+z"}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}],
        "meshes": [mesh],
        "materials": [material],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [{"name": "texture", "mimeType": "image/png", "bufferView": picture}],
        "samplers": [sampler],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }


def _file(document: Mapping[str, Any], data: bytes) -> bytes:
    """The container: a header, a chunk of JSON, and one of binary data, whose length is a multiple of four already."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    chunks = (struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(data), b"BIN\0"), data)
    return struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))) + b"".join(chunks)


class _Buffer:
    """The one binary chunk, growing, with the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to four as glTF asks; the index of their view."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view if target is None else view | {"target": target})
        self.data += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def vectors(self, values: Float[ndarray, "n d"], bounds: bool = False) -> int:
        """Append float32 vectors; `bounds` are required for positions. The index of their accessor."""
        values = np.ascontiguousarray(values, dtype="<f4")
        view = self.view(values.tobytes(), _ARRAY_BUFFER)
        accessor = {"bufferView": view, "componentType": _FLOAT, "count": len(values), "type": f"VEC{values.shape[1]}"}
        self.accessors.append(accessor | ({"min": values.min(0).tolist(), "max": values.max(0).tolist()} if bounds else {}))
        return len(self.accessors) - 1

    def indices(self, triangles: Int[ndarray, "faces 3"]) -> int:
        """Append triangle corners; the index of their accessor."""
        view = self.view(np.ascontiguousarray(triangles, dtype="<u4").tobytes(), _ELEMENT_ARRAY_BUFFER)
        self.accessors.append({"bufferView": view, "componentType": _UNSIGNED_INT, "count": triangles.size, "type": "SCALAR"})
        return len(self.accessors) - 1
