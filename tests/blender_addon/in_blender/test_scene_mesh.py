"""The mesh of a head, read back from Blender."""

from __future__ import annotations

import dataclasses

import bpy
import numpy as np
import pytest

from blender_addon.errors import AddonError
from blender_addon.head import Head, HeadMesh, PhotoPlan, Picture, ShapeKey
from blender_addon.options import SceneOptions
from blender_addon.scene.build import build_photo

pytestmark = pytest.mark.usefixtures("empty_file")


def test_polygons_come_back_as_planned_with_quads_and_triangles() -> None:
    head = _built(_mesh())
    assert [list(polygon.vertices) for polygon in head.data.polygons] == [[0, 1, 2, 3], [1, 4, 2]]
    assert [tuple(vertex.co) for vertex in head.data.vertices] == [tuple(row) for row in _mesh().vertices]
    assert not head.data.validate(verbose=True)
    assert len(head.data.edges) == 6


def test_every_polygon_is_smooth() -> None:
    assert all(polygon.use_smooth for polygon in _built(_mesh()).data.polygons)


def test_every_corner_has_its_uv() -> None:
    mesh = _built(_mesh()).data
    assert [layer.name for layer in mesh.uv_layers] == ["UVMap"]
    corners = [tuple(corner.vector) for corner in mesh.uv_layers["UVMap"].uv]
    np.testing.assert_array_equal(corners, _mesh().uv[[0, 1, 2, 3, 5, 4, 6]])


def test_face_and_outliers_are_attributes_of_the_polygons() -> None:
    attributes = _built(_mesh()).data.attributes
    assert (attributes["face"].data_type, attributes["face"].domain) == ("BOOLEAN", "FACE")
    assert [item.value for item in attributes["face"].data] == [True, False]
    assert (attributes["outlier"].data_type, attributes["outlier"].domain) == ("FLOAT", "FACE")
    assert [item.value for item in attributes["outlier"].data] == [0.25, 1.0]


def test_outliers_are_weights_of_a_vertex_group() -> None:
    head = _built(_mesh())
    group = head.vertex_groups["Outlier"].index
    weights = [next((entry.weight for entry in vertex.groups if entry.group == group), 0.0) for vertex in head.data.vertices]
    np.testing.assert_allclose(weights, _mesh().vertex_outlier, atol=1 / 64)


def test_without_mask_there_are_no_outliers() -> None:
    head = _built(_mesh(), SceneOptions(mask=False))
    assert not head.vertex_groups
    assert "outlier" not in head.data.attributes
    assert "face" in head.data.attributes


def test_shape_keys_have_offsets_ranges_and_values() -> None:
    blocks = _built(_mesh()).data.shape_keys.key_blocks
    assert [block.name for block in blocks] == ["Basis", "Fitted expression", "jawOpen", "Identity 1"]
    for block, key in zip(blocks[1:], _mesh().shape_keys, strict=True):
        offsets = np.array([point.co for point in block.data]) - np.array([point.co for point in blocks[0].data])
        np.testing.assert_allclose(offsets, key.offsets, atol=1e-6)
        assert block.relative_key == blocks[0]
        assert (block.slider_min, block.slider_max, block.value) == (key.minimum, key.maximum, key.value)


def test_the_evaluated_head_shows_the_fitted_expression() -> None:
    head = _built(_mesh())
    evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    shown = np.array([vertex.co for vertex in evaluated.vertices])
    np.testing.assert_allclose(shown, _mesh().vertices + _mesh().shape_keys[0].offsets, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("quads", 5), ("quads", -2), ("quad_uv", 7), ("quad_uv", -1)],
)
def test_an_index_that_points_outside_is_refused(field: str, value: int) -> None:
    indices = getattr(_mesh(), field).copy()
    indices[0, 0] = value
    with pytest.raises(AddonError, match="point at vertices"):
        _built(dataclasses.replace(_mesh(), **{field: indices}))


def test_a_head_without_shape_keys_has_none() -> None:
    assert _built(dataclasses.replace(_mesh(), shape_keys=())).data.shape_keys is None


def test_again_with_other_polygons_keeps_the_object() -> None:
    first = _built(_mesh())
    first.location.x = 2.0
    fewer = dataclasses.replace(
        _mesh(),
        quads=_mesh().quads[:1],
        quad_uv=_mesh().quad_uv[:1],
        is_face=_mesh().is_face[:1],
        quad_outlier=_mesh().quad_outlier[:1],
    )
    name = first.name
    second = _built(fewer)
    assert second.name == name
    assert second.location.x == 2.0
    assert len(second.data.polygons) == 1
    assert [block.name for block in second.data.shape_keys.key_blocks] == ["Basis", "Fitted expression", "jawOpen", "Identity 1"]
    assert len(bpy.data.meshes) == 1
    assert len(bpy.data.shape_keys) == 1


def _built(mesh: HeadMesh, options: SceneOptions | None = None) -> bpy.types.Object:
    head = Head(
        name="plain",
        photo_path="/photos/plain.png",
        photo_sha256="00",
        face_index=0,
        mesh=mesh,
        albedo=None,
        texture=None,
        photo=Picture("plain", path="/photos/plain.png"),
        outlier_mask=None,
        outlier_overlay=None,
        camera=None,
        environment=None,
        properties={"focus_method": "fit"},
    )
    (block,) = build_photo(PhotoPlan("/photos/plain.png", "plain", (head,)), options or SceneOptions(), bpy.context.scene)
    return block


def _mesh() -> HeadMesh:
    """A quad and a triangle."""
    offsets = np.arange(15, dtype=np.float32).reshape(5, 3) / 16
    return HeadMesh(
        vertices=np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [2, 0, 0]], np.float32),
        quads=np.array([[0, 1, 2, 3], [1, 4, 2, -1]], np.int32),
        uv=np.array([[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5], [1, 0], [0.5, 0.125], [0.5, 0.75]], np.float32),
        quad_uv=np.array([[0, 1, 2, 3], [5, 4, 6, -1]], np.int32),
        is_face=np.array([True, False]),
        vertex_outlier=np.array([0, 0.25, 0.5, 0.7, 1], np.float32),
        quad_outlier=np.array([0.25, 1], np.float32),
        shape_keys=(
            ShapeKey("Fitted expression", offsets, 1.0),
            ShapeKey("jawOpen", -offsets),
            ShapeKey("Identity 1", 2 * offsets, 0.0, -3.0, 3.0),
        ),
    )
