"""face.glb, read back through pygltflib and trimesh."""

from __future__ import annotations

import io

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image

from focus_backend.export.bundle import reconstruction_files
from focus_backend.export.glb import smooth_normals, split_at_seams

_TYPES = {pygltflib.FLOAT: "<f4", pygltflib.UNSIGNED_INT: "<u4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}


@pytest.fixture(scope="module")
def glb_bytes(tiny_reconstruction):
    return reconstruction_files(tiny_reconstruction)["face.glb"]


@pytest.fixture(scope="module")
def document(glb_bytes):
    return pygltflib.GLTF2.load_from_bytes(glb_bytes)


def _values(document, index):
    accessor = document.accessors[index]
    view = document.bufferViews[accessor.bufferView]
    width = _WIDTHS[accessor.type]
    flat = np.frombuffer(document.binary_blob(), _TYPES[accessor.componentType], accessor.count * width, view.byteOffset)
    return flat.reshape(-1, width)


@pytest.fixture(scope="module")
def split(tiny_model):
    return split_at_seams(tiny_model.triangles.numpy(), tiny_model.uv.numpy(), tiny_model.triangle_uv.numpy())


def test_positions_are_metres_in_the_same_axes(document, split, tiny_reconstruction):
    positions = _values(document, document.meshes[0].primitives[0].attributes.POSITION)
    assert np.allclose(positions, tiny_reconstruction.neutral_vertices.numpy()[split.source] / 1000, atol=1e-7)


def test_bounds_are_those_of_the_data(document):
    for accessor in document.accessors:
        if accessor.min:
            values = _values(document, document.accessors.index(accessor))
            assert np.allclose(accessor.min, values.min(0))
            assert np.allclose(accessor.max, values.max(0))


def test_every_expression_is_a_named_target_at_full_activation(document, split, tiny_model):
    mesh = document.meshes[0]
    assert mesh.extras["targetNames"] == list(tiny_model.expression_names)
    targets = mesh.primitives[0].targets
    assert len(targets) == tiny_model.expression_size == 52
    for index in (0, 17, 51):
        full = (tiny_model.expression_basis[index] / tiny_model.expression_scale[index]).numpy()[split.source] / 1000
        assert np.allclose(_values(document, targets[index]["POSITION"]), full, atol=1e-7)


def test_default_weights_bring_back_the_fitted_face(document, split, tiny_reconstruction):
    mesh, result = document.meshes[0], tiny_reconstruction
    positions = _values(document, mesh.primitives[0].attributes.POSITION).astype(float)
    for weight, target in zip(mesh.weights, mesh.primitives[0].targets, strict=True):
        positions = positions + weight * _values(document, target["POSITION"])
    fitted = result.model.decode_shape(result.shape, result.expression).numpy()[split.source]
    assert np.abs(positions * 1000 - fitted).max() < 0.001


def test_texture_coordinates_have_their_origin_at_the_top(document, split, tiny_model):
    uv = _values(document, document.meshes[0].primitives[0].attributes.TEXCOORD_0)
    by_vertex = {}
    for corner, uv_corner in zip(tiny_model.triangles.flatten().tolist(), tiny_model.triangle_uv.flatten().tolist(), strict=True):
        by_vertex.setdefault(corner, set()).add(tuple(np.round(tiny_model.uv[uv_corner].numpy(), 5)))
    for source, (u, v) in zip(split.source.tolist(), uv.tolist(), strict=True):
        assert any(abs(u - a) < 1e-4 and abs(1 - v - b) < 1e-4 for a, b in by_vertex[source])


def test_seam_splits_vertices_and_only_those(split, tiny_model):
    counts = np.bincount(split.source, minlength=len(tiny_model.mean_shape))
    assert counts.min() == 1
    assert (counts > 1).any()
    assert len(split.source) < 2 * len(tiny_model.mean_shape)


def test_triangles_are_the_model_s(document, split, tiny_model):
    indices = _values(document, document.meshes[0].primitives[0].indices).reshape(-1, 3)
    assert (split.source[indices] == tiny_model.triangles.numpy()).all()


def test_normals_are_unit_and_point_outwards(document, tiny_reconstruction):
    primitive = document.meshes[0].primitives[0]
    normals = _values(document, primitive.attributes.NORMAL)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    positions = _values(document, primitive.attributes.POSITION)
    outwards = positions - positions.mean(0)
    assert ((normals * outwards).sum(1) > 0).mean() > 0.98


def test_normals_of_a_sphere_are_its_directions():
    ball = trimesh.creation.icosphere(subdivisions=3)
    assert np.abs(smooth_normals(ball.vertices, ball.faces) - ball.vertices).max() < 0.02


def test_texture_is_embedded_as_png(document, tiny_reconstruction):
    view = document.bufferViews[document.images[0].bufferView]
    content = document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    assert content.startswith(b"\x89PNG")
    assert (np.asarray(Image.open(io.BytesIO(content))) == tiny_reconstruction.texture).all()


def test_trimesh_opens_it_upright_in_metres_with_texture(glb_bytes, tiny_reconstruction):
    scene = trimesh.load(io.BytesIO(glb_bytes), file_type="glb")
    mesh = scene.to_mesh() if hasattr(scene, "to_mesh") else scene.dump(concatenate=True)
    neutral = tiny_reconstruction.neutral_vertices.numpy() / 1000
    assert np.allclose(mesh.bounds, [neutral.min(0), neutral.max(0)], atol=1e-5)
    material = mesh.visual.material
    assert material.baseColorTexture.size == tiny_reconstruction.texture.shape[:2]
