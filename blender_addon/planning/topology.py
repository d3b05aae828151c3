# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all heads of a face model share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from ..options import SceneOptions
from ..shapes import Bool, Float32, Int32
from .answer import read_array, read_indices, unusable
from .names import is_key_name

if TYPE_CHECKING:
    from .. import wire


@dataclass(frozen=True)
class Topology:
    """The parts "model" and "identity" of an answer.

    Attributes:
        vertex_count: of the model.
        quads, quad_uv, uv, is_face: as in `HeadMesh`.
        expression_names: ARKit names; none where they are not wanted.
        expressions: offsets, model space, mm.
        identity: offsets, model space, mm; none where they are not wanted.
    """

    vertex_count: int
    quads: Int32[ndarray, "quads 4"]
    quad_uv: Int32[ndarray, "quads 4"]
    uv: Float32[ndarray, "uvs 2"]
    is_face: Bool[ndarray, "quads"]
    expression_names: tuple[str, ...]
    expressions: Float32[ndarray, "expressions vertices 3"]
    identity: Float32[ndarray, "components vertices 3"]


def read_topology(arrays: Mapping[str, wire.Array], model: wire.ModelInfo, options: SceneOptions) -> Topology:
    """The model's arrays.

    Raises:
        AddonError: one is missing, of another shape, not finite, or points beyond another, or names cannot be shape keys'; code "answer".
    """
    count = model.vertices
    uv = read_array(arrays, "model/uv", "float32", (None, 2))
    quads = read_indices(arrays, "model/quads", (None, 4), count)
    quad_uv = read_indices(arrays, "model/quad_uv", (len(quads), 4), len(uv))
    if ((quads < 0) != (quad_uv < 0)).any():
        raise unusable("has triangles in one of model/quads and model/quad_uv that are none in the other")
    is_face = read_array(arrays, "model/quad_in_face", "uint8", (len(quads),)) != 0
    names: tuple[str, ...] = ()
    expressions = identity = np.zeros((0, count, 3), np.float32)
    if options.expressions:
        names = tuple(model.expressions)
        if len(set(names)) < len(names) or not all(is_key_name(name) for name in names):
            raise unusable("has names of expressions that are odd or not unique")
        expressions = read_array(arrays, "model/expressions", "float32", (len(names), count, 3))
    if options.identity:
        identity = read_array(arrays, "model/identity", "float32", (None, count, 3))
    return Topology(count, quads, quad_uv, uv, is_face, names, expressions, identity)
