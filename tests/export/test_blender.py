"""OBJ and GLB in Blender itself, as a module: upright, at the right scale, with UV, texture and 52 shape keys."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from focus_backend.export.bundle import write_reconstruction

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed (pip install focus-backend[blender])"),
]

# In a process of its own: bpy holds one scene for the whole process, and brings its own numpy habits.
_IMPORT = """
import json, sys
import bpy
folder, kind = sys.argv[1], sys.argv[2]
bpy.ops.wm.read_factory_settings(use_empty=True)
if kind == "glb":
    bpy.ops.import_scene.gltf(filepath=folder + "/face.glb")
else:
    bpy.ops.wm.obj_import(filepath=folder + "/neutral.obj", global_scale=0.001)
face = next(o for o in bpy.data.objects if o.type == "MESH")
mesh = face.data
keys = mesh.shape_keys.key_blocks if mesh.shape_keys else []
textures = [n.image for m in mesh.materials for n in m.node_tree.nodes if n.type == "TEX_IMAGE"]
uv = [tuple(d.uv) for d in mesh.uv_layers[0].data] if mesh.uv_layers else []
place = lambda co: list(face.matrix_world @ co)
print("ANSWER" + json.dumps({
    "vertices": [place(v.co) for v in mesh.vertices],
    "corners": [len(p.vertices) for p in mesh.polygons],
    "uv": uv,
    "loop_vertices": [l.vertex_index for l in mesh.loops],
    "keys": [[k.name, k.value] for k in keys],
    "key_5": [place(p.co) for p in keys[6].data] if keys else [],
    "textures": [[list(t.size), list(t.pixels[:4])] for t in textures],
    "smooth": sum(p.use_smooth for p in mesh.polygons),
}))
"""


@pytest.fixture(scope="module")
def imported(tiny_reconstruction, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blender") / "me"
    write_reconstruction(tiny_reconstruction, folder)
    return {kind: _import(folder, kind) for kind in ("obj", "glb")}


def _import(folder: Path, kind: str) -> dict:
    done = subprocess.run([sys.executable, "-c", _IMPORT, folder, kind], capture_output=True, text=True, timeout=300, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout + done.stderr
    return json.loads(answers[0].removeprefix("ANSWER"))


def _in_blender(vertices_mm: np.ndarray) -> np.ndarray:
    """Model space in Blender's frame: metres, z up, the face looks along -y."""
    x, y, z = vertices_mm.T / 1000
    return np.stack([x, -z, y], 1)


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_upright_at_the_right_scale(imported, tiny_reconstruction, kind):
    vertices = np.array(imported[kind]["vertices"])
    expected = _in_blender(tiny_reconstruction.neutral_vertices.numpy())
    assert np.allclose([vertices.min(0), vertices.max(0)], [expected.min(0), expected.max(0)], atol=1e-6)


def test_obj_keeps_vertices_and_quads(imported, tiny_reconstruction, tiny_model):
    expected = _in_blender(tiny_reconstruction.neutral_vertices.numpy())
    assert np.allclose(imported["obj"]["vertices"], expected, atol=1e-6)
    assert sorted(imported["obj"]["corners"]) == sorted(np.where(tiny_model.quads[:, 3] >= 0, 4, 3).tolist())


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_uv_is_the_model_s(imported, tiny_model, kind):
    """Blender's UV has its origin at the bottom left, as the model's: both files must come out the same."""
    found = {tuple(np.round(uv, 4)) for uv in imported[kind]["uv"]}
    used = np.unique(tiny_model.triangle_uv.numpy())
    expected = {tuple(np.round(uv.astype(float), 4)) for uv in tiny_model.uv.numpy()[used]}
    distance = np.abs(np.array(sorted(found))[:, None] - np.array(sorted(expected))[None]).max(-1)
    assert distance.min(1).max() < 2e-4
    assert distance.min(0).max() < 2e-4


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_texture_is_there(imported, tiny_reconstruction, kind):
    (size, first_pixel) = imported[kind]["textures"][0]
    assert size == list(tiny_reconstruction.texture.shape[:2])
    # Blender counts rows from the bottom.
    assert np.allclose(np.array(first_pixel[:3]) * 255, tiny_reconstruction.texture[-1, 0], atol=1)


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_shaded_smooth(imported, kind):
    assert imported[kind]["smooth"] == len(imported[kind]["corners"])


def test_52_shape_keys_by_name_with_the_fitted_values(imported, tiny_reconstruction, tiny_model):
    keys = imported["glb"]["keys"]
    assert [name for name, _ in keys] == ["Basis", *tiny_model.expression_names]
    fitted = np.array(list(tiny_reconstruction.activations.values()))
    assert np.allclose([value for _, value in keys[1:]], np.clip(fitted, -10, 10), atol=1e-5)


def test_shape_key_is_the_full_expression(imported, tiny_reconstruction, tiny_model):
    full = tiny_reconstruction.neutral_vertices + tiny_model.expression_basis[5] / tiny_model.expression_scale[5]
    found, expected = np.array(imported["glb"]["key_5"]), _in_blender(full.numpy())
    assert np.allclose([found.min(0), found.max(0)], [expected.min(0), expected.max(0)], atol=1e-5)
