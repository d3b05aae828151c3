"""neutral.obj, read back by a parser of our own and by trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from focus_backend.export.bundle import reconstruction_files


@pytest.fixture(scope="module")
def files(tiny_reconstruction):
    return reconstruction_files(tiny_reconstruction)


def _lines(files, kind):
    return [line.split()[1:] for line in files["neutral.obj"].decode("ascii").splitlines() if line.startswith(kind + " ")]


def test_vertices_keep_their_order_and_millimetres(files, tiny_reconstruction):
    vertices = np.array(_lines(files, "v"), dtype=float)
    assert np.abs(vertices - tiny_reconstruction.neutral_vertices.numpy()).max() <= 5.1e-5


def test_quads_stay_quads_and_padding_becomes_triangles(files, tiny_model):
    sizes = np.array([len(face) for face in _lines(files, "f")])
    assert (sizes == np.where(tiny_model.quads[:, 3] >= 0, 4, 3)).all()
    assert {3, 4} == set(sizes)


def test_corners_point_at_the_model_s_vertices_and_uv(files, tiny_model):
    for line, quad, quad_uv in zip(_lines(files, "f"), tiny_model.quads.tolist(), tiny_model.quad_uv.tolist(), strict=True):
        pairs = [tuple(int(i) - 1 for i in corner.split("/")) for corner in line]
        assert pairs == [(v, t) for v, t in zip(quad, quad_uv, strict=True) if v >= 0]


def test_no_negative_zero(files):
    assert b"-0.0000 " not in files["neutral.obj"]
    assert b"-0.0000\n" not in files["neutral.obj"]


def test_same_result_same_bytes(tiny_reconstruction, files):
    assert reconstruction_files(tiny_reconstruction) == files


def test_trimesh_reads_shape_uv_and_texture(files, tiny_reconstruction, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    mesh = trimesh.load(tmp_path / "neutral.obj", force="mesh", process=False)
    neutral = tiny_reconstruction.neutral_vertices.numpy()
    assert np.allclose(mesh.bounds, [neutral.min(0), neutral.max(0)], atol=1e-3)
    assert mesh.visual.uv.min() >= 0
    assert mesh.visual.uv.max() <= 1
    picture = np.asarray(mesh.visual.material.image.convert("RGB"))
    assert (picture == tiny_reconstruction.texture).all()
