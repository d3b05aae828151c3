"""The face as one binary glTF: metres, every expression a named morph target, the fitted one as default weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pygltflib as gltf
from jaxtyping import Float, Int
from numpy import ndarray

_METRES_PER_MILLIMETRE = 0.001


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
    attributes = gltf.Attributes(
        POSITION=buffer.vectors(vertices[mesh.source] * _METRES_PER_MILLIMETRE, bounds=True),
        NORMAL=buffer.vectors(smooth_normals(vertices, triangles)[mesh.source]),
        TEXCOORD_0=buffer.vectors(mesh.uv),
    )
    indices = buffer.indices(mesh.triangles)
    offsets = morph_targets.offsets[:, mesh.source] * _METRES_PER_MILLIMETRE
    targets = [{"POSITION": buffer.vectors(offset, bounds=True)} for offset in offsets]
    picture = buffer.view(texture_png)
    document = _document(buffer, picture)
    document.meshes = [
        gltf.Mesh(
            name="face",
            primitives=[gltf.Primitive(attributes=attributes, indices=indices, material=0, targets=targets or None)],
            weights=[float(w) for w in morph_targets.weights],
            extras={"targetNames": list(morph_targets.names), "units": "metres"},
        )
    ]
    document.set_binary_blob(bytes(buffer.data))
    return b"".join(document.save_to_bytes())


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


def _document(buffer: _Buffer, picture: int) -> gltf.GLTF2:
    """Everything but the mesh: scene, material, texture and the buffer's layout."""
    material = gltf.Material(
        name="face",
        pbrMetallicRoughness=gltf.PbrMetallicRoughness(baseColorTexture=gltf.TextureInfo(index=0), metallicFactor=0.0, roughnessFactor=0.7),
        # The head is an open shell: without this its inside is a hole.
        doubleSided=True,
        alphaCutoff=None,
    )
    return gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator="FOCUS", extras={"units": "metres", "up": "+y", "front": "+z"}),
        scene=0,
        scenes=[gltf.Scene(nodes=[0])],
        nodes=[gltf.Node(name="face", mesh=0)],
        materials=[material],
        textures=[gltf.Texture(source=0, sampler=0)],
        images=[gltf.Image(name="texture", mimeType="image/png", bufferView=picture)],
        samplers=[
            gltf.Sampler(magFilter=gltf.LINEAR, minFilter=gltf.LINEAR_MIPMAP_LINEAR, wrapS=gltf.CLAMP_TO_EDGE, wrapT=gltf.CLAMP_TO_EDGE)
        ],
        accessors=buffer.accessors,
        bufferViews=buffer.views,
        buffers=[gltf.Buffer(byteLength=len(buffer.data))],
    )


class _Buffer:
    """The one binary chunk, growing, with the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[gltf.BufferView] = []
        self.accessors: list[gltf.Accessor] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to four as glTF asks; the index of their view."""
        self.views.append(gltf.BufferView(buffer=0, byteOffset=len(self.data), byteLength=len(content), target=target))
        self.data += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def vectors(self, values: Float[ndarray, "n d"], bounds: bool = False) -> int:
        """Append float32 vectors; `bounds` are required for positions. The index of their accessor."""
        values = np.ascontiguousarray(values, dtype="<f4")
        self.accessors.append(
            gltf.Accessor(
                bufferView=self.view(values.tobytes(), gltf.ARRAY_BUFFER),
                componentType=gltf.FLOAT,
                count=len(values),
                type=f"VEC{values.shape[1]}",
                min=values.min(0).tolist() if bounds else None,
                max=values.max(0).tolist() if bounds else None,
            )
        )
        return len(self.accessors) - 1

    def indices(self, triangles: Int[ndarray, "faces 3"]) -> int:
        """Append triangle corners; the index of their accessor."""
        content = np.ascontiguousarray(triangles, dtype="<u4").tobytes()
        self.accessors.append(
            gltf.Accessor(
                bufferView=self.view(content, gltf.ELEMENT_ARRAY_BUFFER),
                componentType=gltf.UNSIGNED_INT,
                count=triangles.size,
                type=gltf.SCALAR,
            )
        )
        return len(self.accessors) - 1
