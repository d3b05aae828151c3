# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a server's answer to a photo to the heads that are to land in the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from ..errors import AddonError
from ..head import Head, HeadMesh, PhotoPlan, Picture, ShapeKey
from ..options import SceneOptions
from ..shapes import Float32
from .answer import read_array, read_numbers, unusable
from .environment import environment
from .frames import object_points
from .names import FITTED_EXPRESSION, IDENTITY, head_name, photo_name
from .outliers import SeenMesh, outlier_weights, overlay
from .png import encode_png
from .properties import reconstruction_properties
from .topology import Topology, read_topology
from .view import PhotoView

if TYPE_CHECKING:
    from .. import wire

IDENTITY_RANGE = 3.0


def plan_photo(result: wire.Result, arrays: Mapping[str, wire.Array], photo: Path, options: SceneOptions) -> PhotoPlan:
    """What is to land in the scene for an answer. Needs no Blender and may run in any thread.

    Args:
        result: the answer.
        arrays: its arrays, with those of the parts "geometry" and "model", and of "identity" where sliders are wanted; "photo" where
            Blender would show the file otherwise than the backend saw it.
        photo: where the photo was read.
        options: what is wanted.

    Raises:
        AddonError: an array or a member of a document is missing, of another shape, or not finite; code "answer". Blender cannot keep
            the photo's path; code "photo-name".
    """
    if not result.faces:
        raise unusable("has no faces")
    if len({face.index for face in result.faces}) < len(result.faces):
        raise unusable("has the same face twice")
    photo = photo.absolute()
    _check_path(photo)
    picture = _photo_picture(arrays, photo)
    topology = read_topology(arrays, result.model, options)
    sliders = (*_expression_keys(topology, options), *_identity_keys(topology, options))
    planner = _FacePlanner(result, arrays, photo, options, picture, topology, sliders)
    return PhotoPlan(str(photo), photo_name(photo), tuple(planner.head(face) for face in result.faces))


def _check_path(photo: Path) -> None:
    """Blender knows paths as UTF-8 or as the bytes of the file system; half a surrogate pair is neither, and breaks off what it is in."""
    try:
        str(photo).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise AddonError(f"the photo {photo.name!a} has a name that Blender cannot keep", "rename the file", "photo-name") from None


def _photo_picture(arrays: Mapping[str, wire.Array], photo: Path) -> Picture:
    name = f"{photo_name(photo)} photo"
    if "photo" not in arrays:
        return Picture(name, path=str(photo))
    return Picture(name, png=encode_png(read_array(arrays, "photo", "uint8", (None, None, 3))))


def _expression_keys(topology: Topology, options: SceneOptions) -> list[ShapeKey]:
    offsets = object_points(topology.expressions, options.unit_scale)
    return [ShapeKey(name, key) for name, key in zip(topology.expression_names, offsets, strict=True)]


def _identity_keys(topology: Topology, options: SceneOptions) -> list[ShapeKey]:
    offsets = object_points(topology.identity, options.unit_scale)
    return [ShapeKey(f"{IDENTITY} {k + 1}", key, 0.0, -IDENTITY_RANGE, IDENTITY_RANGE) for k, key in enumerate(offsets)]


@dataclass(frozen=True)
class _FacePlanner:
    """Plans the faces of one answer, which share photo, topology and sliders."""

    result: wire.Result
    arrays: Mapping[str, wire.Array]
    photo: Path
    options: SceneOptions
    picture: Picture
    topology: Topology
    sliders: tuple[ShapeKey, ...]

    def head(self, face: wire.Face) -> Head:
        """One head; errors as in `plan_photo`."""
        name, options, document = head_name(self.photo, face.index), self.options, face.document
        view = PhotoView.read(document)
        neutral = self._vertices(face, "neutral")
        expression = self._vertices(face, "expression")
        masks = self._masks(face, view)
        properties = reconstruction_properties(document, face.index, self.result.seconds)
        return Head(
            name=name,
            photo_path=str(self.photo),
            photo_sha256=str(properties["focus_photo_sha256"]),
            face_index=face.index,
            mesh=self._mesh(neutral, expression, view, masks),
            albedo=self._texture(face, "albedo", name),
            texture=self._texture(face, "texture", name),
            photo=self.picture,
            outlier_mask=None if masks is None else Picture(f"{name} outlier mask", png=encode_png(masks[1]), is_colour=False),
            outlier_overlay=None if masks is None else Picture(f"{name} outlier overlay", png=encode_png(overlay(masks[1]))),
            camera=view.matched_camera(options.unit_scale) if options.camera else None,
            environment=environment(read_numbers(document, "lighting", (9, 3)), view.rotation) if options.world else None,
            properties=properties,
            warnings=tuple(face.warnings),
        )

    def _vertices(self, face: wire.Face, name: str) -> Float32[ndarray, "vertices 3"]:
        return read_array(self.arrays, f"face{face.index}/{name}", "float32", (self.topology.vertex_count, 3))

    def _masks(self, face: wire.Face, view: PhotoView) -> tuple[ndarray, ndarray] | None:
        """Face mask and outlier mask; None where they were not asked for."""
        if not self.options.mask or "masks" not in self.result.parts:
            return None
        shape = (view.height_px, view.width_px)
        face_mask, outlier_mask = (
            read_array(self.arrays, f"face{face.index}/{name}", "uint8", shape) for name in ("face_mask", "outlier_mask")
        )
        return face_mask, outlier_mask

    def _texture(self, face: wire.Face, part: str, name: str) -> Picture | None:
        if part not in self.result.parts:
            return None
        pixels = read_array(self.arrays, f"face{face.index}/{part}", "uint8", (None, None, 3))
        return Picture(f"{name} {part}", png=encode_png(pixels))

    def _mesh(
        self,
        neutral: Float32[ndarray, "vertices 3"],
        expression: Float32[ndarray, "vertices 3"],
        view: PhotoView,
        masks: tuple[ndarray, ndarray] | None,
    ) -> HeadMesh:
        topology, options = self.topology, self.options
        vertex_outlier, quad_outlier = np.zeros(len(neutral), np.float32), np.zeros(len(topology.quads), np.float32)
        if masks is not None:
            points, pixels = view.points_and_pixels(neutral + expression)
            vertex_outlier, quad_outlier = outlier_weights(SeenMesh(points, pixels, topology.quads, topology.is_face), *masks)
        fitted = ShapeKey(FITTED_EXPRESSION, object_points(expression, options.unit_scale), float(options.expression))
        return HeadMesh(
            vertices=object_points(neutral, options.unit_scale),
            quads=topology.quads,
            uv=topology.uv,
            quad_uv=topology.quad_uv,
            is_face=topology.is_face,
            vertex_outlier=vertex_outlier,
            quad_outlier=quad_outlier,
            shape_keys=(fitted, *self.sliders),
        )
