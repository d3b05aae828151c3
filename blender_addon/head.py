# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to land in the scene, as plain data: planning makes it, the scene is built from it.

Object space of a head: Blender's axes, z up, the face looks along -y, x to the subject's left; metres times the unit scale; the origin
lies between the eyes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy import ndarray

from .shapes import Bool, Float32, Int32


@dataclass(frozen=True)
class Picture:
    """A picture: PNG to be packed into the scene, or a file that stays where it is.

    Attributes:
        name: of the image in Blender.
        png: content; b"" where `path` is given.
        path: absolute; "" where `png` is given.
        is_colour: sRGB; otherwise data, which Blender calls Non-Color.
    """

    name: str
    png: bytes = field(default=b"", repr=False)
    path: str = ""
    is_colour: bool = True


@dataclass(frozen=True)
class ShapeKey:
    """Offsets from the neutral head at value 1.

    Attributes:
        name: as Blender shows it; of expressions the ARKit name.
        offsets: object space.
        value: where the slider stands first.
        minimum, maximum: of the slider.
    """

    name: str
    offsets: Float32[ndarray, "vertices 3"]
    value: float = 0.0
    minimum: float = 0.0
    maximum: float = 1.0


@dataclass(frozen=True)
class HeadMesh:
    """The neutral head.

    Attributes:
        vertices: object space.
        quads: counter-clockwise seen from outside; -1 as the last of a triangle.
        uv: origin bottom left.
        quad_uv: index into `uv` of each corner; -1 as `quads`.
        is_face: which quads belong to the face proper.
        vertex_outlier: 0 to 1, how much of the photo at a vertex was not face; 0 where it is not seen.
        quad_outlier: the same of a quad.
        shape_keys: in the order of the sliders.
    """

    vertices: Float32[ndarray, "vertices 3"]
    quads: Int32[ndarray, "quads 4"]
    uv: Float32[ndarray, "uvs 2"]
    quad_uv: Int32[ndarray, "quads 4"]
    is_face: Bool[ndarray, "quads"]
    vertex_outlier: Float32[ndarray, "vertices"]
    quad_outlier: Float32[ndarray, "quads"]
    shape_keys: tuple[ShapeKey, ...] = ()


@dataclass(frozen=True)
class MatchedCamera:
    """The camera of the photo.

    Attributes:
        matrix: camera space (x right, y up, looking along -z; object units) to the head's object space.
        focal_length_px: pixels.
        principal_point_px: x to the right, y down, from the top left corner.
        width_px, height_px: of the photo.
    """

    matrix: Float32[ndarray, "4 4"]
    focal_length_px: float
    principal_point_px: tuple[float, float]
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Head:
    """One face of a photo.

    Attributes:
        name: for the objects: the photo's stem, with a number from the second face on.
        photo_path: absolute; where the photo was read.
        photo_sha256: of the file.
        face_index: 0 for the largest face of the photo.
        mesh: the head.
        albedo: the model's albedo, in UV; None where it was not asked for.
        texture: the photo's colours without its light, in UV; None where it was not asked for.
        photo: the upright photo.
        outlier_mask: photo size, white where the photo shows no face; None where it was not asked for.
        outlier_overlay: the same as colour with alpha, to lie over the photo; None where it was not asked for.
        camera: None where it was not asked for.
        environment: linear radiance from every direction of object space, as Blender maps equirectangular pictures, bottom row first;
            None where it was not asked for.
        properties: parameters and versions, to be kept as custom properties; see `planning.properties`.
        warnings: what the user should know, a line each.
    """

    name: str
    photo_path: str
    photo_sha256: str
    face_index: int
    mesh: HeadMesh
    albedo: Picture | None
    texture: Picture | None
    photo: Picture
    outlier_mask: Picture | None
    outlier_overlay: Picture | None
    camera: MatchedCamera | None
    environment: Float32[ndarray, "rows columns 3"] | None
    properties: Mapping[str, str | int | float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhotoPlan:
    """All faces of a photo, largest first.

    Attributes:
        photo_path: absolute.
        name: of the collection: the photo's stem.
        heads: at least one.
    """

    photo_path: str
    name: str
    heads: tuple[Head, ...]
