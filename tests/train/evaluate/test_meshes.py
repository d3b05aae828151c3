"""Meshes and landmarks in the formats that datasets come in."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import read_landmarks, read_mesh

SEVEN = np.arange(21, dtype=np.float64).reshape(7, 3) / 4
PICKED = '<!DOCTYPE PickedPoints>\n<PickedPoints>\n <DocumentData>\n  <DateTime time="1"/>\n </DocumentData>\n{points}</PickedPoints>\n'


def test_obj_with_quads_and_texture(tmp_path):
    path = tmp_path / "mesh.obj"
    path.write_text("# mm\nv 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3/1/1 4/1/1\nf -4 -3 -2\n")
    mesh = read_mesh(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


def test_ply_and_points_without_faces(tmp_path):
    box = trimesh.creation.box()
    box.export(tmp_path / "box.ply")
    mesh = read_mesh(tmp_path / "box.ply")
    np.testing.assert_allclose(mesh.vertices, box.vertices)
    assert mesh.triangles.tolist() == box.faces.tolist()
    (tmp_path / "points.obj").write_text("v 1 2 3\nv 4 5 6\n")
    assert read_mesh(tmp_path / "points.obj").triangles.shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("v 0 0\n", "damaged"),
        ("", "no points"),
        ("v 0 0 nan\n", "not finite"),
        ("v 0 0 0\nf 1 2 3\n", "not there"),
        ("v a b c\n", "damaged"),
    ],
)
def test_unusable_mesh_is_named(tmp_path, content, said):
    path = tmp_path / "subject7.obj"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=rf"subject7\.obj.*{said}"):
        read_mesh(path)


def test_missing_mesh_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"gone\.obj cannot be read"):
        read_mesh(tmp_path / "gone.obj")


def test_landmarks_in_every_format(tmp_path):
    np.savetxt(tmp_path / "a.lmk", SEVEN)
    np.savetxt(tmp_path / "a.txt", SEVEN, delimiter=",", header="x y z")
    np.save(tmp_path / "a.npy", SEVEN)
    points = "".join(f' <point x="{x}" active="1" name="{i}" y="{y}" z="{z}"/>\n' for i, (x, y, z) in enumerate(SEVEN))
    (tmp_path / "a.pp").write_text(PICKED.format(points=points + ' <point active="0" x="9" y="9" z="9" name="off"/>\n'))
    for suffix in (".lmk", ".txt", ".npy", ".pp"):
        np.testing.assert_allclose(read_landmarks(tmp_path / f"a{suffix}"), SEVEN)


def test_wrong_landmarks_are_named(tmp_path):
    np.savetxt(tmp_path / "few.txt", SEVEN[:6])
    np.savetxt(tmp_path / "same.txt", np.ones((7, 3)))
    (tmp_path / "words.txt").write_text("a b c\n")
    for name in ("few", "same", "words", "gone"):
        with pytest.raises(EvaluationError, match=name):
            read_landmarks(tmp_path / f"{name}.txt")


def test_pickled_landmarks_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EvaluationError, match="damaged"):
        read_landmarks(tmp_path / "a.npy")
