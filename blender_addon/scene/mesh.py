# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's mesh: quads, UV map, face attributes, outlier weights."""

from __future__ import annotations

import bpy
import numpy as np
from numpy import ndarray

from ..errors import AddonError
from ..head import HeadMesh
from ..shapes import Float32, Int32

UV_MAP = "UVMap"
OUTLIER_GROUP = "Outlier"
# The weights of a group are set value by value: so many values are enough for the eye.
_WEIGHT_LEVELS = 32


def write_mesh(mesh: bpy.types.Mesh, plan: HeadMesh) -> None:
    """Brings a mesh to what the plan says. What the user added to a mesh of the same polygons stays.

    The mesh must have no shape keys where `has_topology` is false.

    Raises:
        AddonError: an index points outside, which would make Blender crash.
    """
    _check(plan)
    if not has_topology(mesh, plan):
        mesh.clear_geometry()
        _add_topology(mesh, plan)
    mesh.vertices.foreach_set("co", _flat(plan.vertices))
    mesh.update(calc_edges=True)
    _write_uv(mesh, plan)
    _write_face_attribute(mesh, "face", "BOOLEAN", np.ascontiguousarray(plan.is_face, dtype=bool))


def has_topology(mesh: bpy.types.Mesh, plan: HeadMesh) -> bool:
    """Whether the polygons of a mesh are those of the plan."""
    corners = _corners(plan.quads, plan.quads)
    if (len(mesh.vertices), len(mesh.polygons), len(mesh.loops)) != (len(plan.vertices), len(plan.quads), len(corners)):
        return False
    present = np.empty(len(corners), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", present)
    starts = np.empty(len(plan.quads), dtype=np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    return bool(np.array_equal(present, corners) and np.array_equal(starts, _starts(plan.quads)))


def write_outliers(head: bpy.types.Object, plan: HeadMesh) -> None:
    """Vertex group and face attribute that say how much of the photo was not face."""
    _write_face_attribute(head.data, "outlier", "FLOAT", _flat(plan.quad_outlier))
    group = head.vertex_groups.get(OUTLIER_GROUP)
    if group is None:
        group = head.vertex_groups.new(name=OUTLIER_GROUP)
    else:
        group.remove(range(len(plan.vertices)))
    levels = np.rint(np.clip(plan.vertex_outlier, 0.0, 1.0) * _WEIGHT_LEVELS).astype(np.int32)
    for level in np.unique(levels[levels > 0]):
        group.add(np.flatnonzero(levels == level).tolist(), float(level) / _WEIGHT_LEVELS, "REPLACE")


def remove_outliers(head: bpy.types.Object) -> None:
    """Takes both away, where they are."""
    group = head.vertex_groups.get(OUTLIER_GROUP)
    if group is not None:
        head.vertex_groups.remove(group)
    attribute = head.data.attributes.get("outlier")
    if attribute is not None:
        head.data.attributes.remove(attribute)


def _check(plan: HeadMesh) -> None:
    triangles = plan.quads[:, 3] < 0
    corners, uv_corners = _corners(plan.quads, plan.quads), _corners(plan.quad_uv, plan.quads)
    is_right = (
        plan.quads[:, :3].min(initial=0) >= 0
        and corners.max(initial=-1) < len(plan.vertices)
        and uv_corners.min(initial=0) >= 0
        and uv_corners.max(initial=-1) < len(plan.uv)
        and len(plan.is_face) == len(plan.quad_outlier) == len(plan.quad_uv) == len(triangles)
        and len(plan.vertex_outlier) == len(plan.vertices)
    )
    if not is_right:
        raise AddonError("the polygons of the head point at vertices that it does not have", "update backend and add-on", "bad-mesh")


def _corners(indices: Int32[ndarray, "quads 4"], quads: Int32[ndarray, "quads 4"]) -> Int32[ndarray, "corners"]:
    return np.ascontiguousarray(indices[quads >= 0], dtype=np.int32)


def _starts(quads: Int32[ndarray, "quads 4"]) -> Int32[ndarray, "quads"]:
    sizes = np.where(quads[:, 3] < 0, 3, 4)
    return (np.cumsum(sizes) - sizes).astype(np.int32)


def _add_topology(mesh: bpy.types.Mesh, plan: HeadMesh) -> None:
    corners = _corners(plan.quads, plan.quads)
    mesh.vertices.add(len(plan.vertices))
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(plan.quads))
    mesh.polygons.foreach_set("loop_start", _starts(plan.quads))
    mesh.shade_smooth()


def _write_uv(mesh: bpy.types.Mesh, plan: HeadMesh) -> None:
    layer = mesh.uv_layers.get(UV_MAP) or mesh.uv_layers.new(name=UV_MAP, do_init=False)
    layer.uv.foreach_set("vector", _flat(plan.uv[_corners(plan.quad_uv, plan.quads)]))


def _write_face_attribute(mesh: bpy.types.Mesh, name: str, data_type: str, values: ndarray) -> None:
    attribute = mesh.attributes.get(name)
    if attribute is not None and (attribute.data_type, attribute.domain) != (data_type, "FACE"):
        mesh.attributes.remove(attribute)
        attribute = None
    if attribute is None:
        attribute = mesh.attributes.new(name, data_type, "FACE")
    attribute.data.foreach_set("value", values)


def _flat(values: Float32[ndarray, "..."]) -> Float32[ndarray, "numbers"]:
    # Blender copies contiguous float32 at once and converts anything else item by item.
    return np.ascontiguousarray(values, dtype=np.float32).ravel()
