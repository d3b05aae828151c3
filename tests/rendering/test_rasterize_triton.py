from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from focus_backend.errors import ConfigError
from focus_backend.rendering import rasterize
from rendering.interpreted import picture, scenes
from rendering.reference import make_camera, random_soup

pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What the kernel gives when triton interprets it, which has to be chosen before triton is imported: in another process."""
    file = tmp_path_factory.mktemp("interpreted") / "results.safetensors"
    script = Path(__file__).with_name("interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script), str(file)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(file)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cull_backfaces", [False, True])
def test_triton_and_numba_agree_bit_by_bit(interpreted, dtype, cull_backfaces):
    drawn = {}
    for name, *scene in scenes(dtype):
        expected = rasterize(*scene, cull_backfaces=cull_backfaces, backend="numba")
        found = interpreted[f"{name} {dtype} {cull_backfaces}"]
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), name
        drawn[name] = len(expected.unique())
    assert drawn["soup"] > 10
    assert drawn["sphere"] > 10


def test_whole_cuda_path_gives_the_same_picture_and_gradients(interpreted):
    expected = picture("numba", "compiled")()
    assert interpreted["picture 0"].std() > 0.1
    for index, values in enumerate(expected):
        torch.testing.assert_close(interpreted[f"picture {index}"], values, atol=1e-9, rtol=1e-9)


def test_whole_cuda_path_never_synchronises(interpreted):
    assert int(interpreted["synchronisations"]) == 0


@pytest.mark.parametrize("points", ["fp32", "fp64"])
def test_kernel_compiles_for_cuda_without_fused_arithmetic(points, monkeypatch, tmp_path):
    triton = pytest.importorskip("triton")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this triton does not compile for CUDA")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from focus_backend.rendering.kernels_triton import PIXELS, TRIANGLES, z_buffer

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    signature = {"points": f"*{points}", "triangles": "*i32", "keys": "*i64"}
    signature |= dict.fromkeys(("vertices", "faces", "height", "width"), "i32")
    constants = {"cull_backfaces": True, "triangle_block": TRIANGLES, "pixel_block": PIXELS}
    source = ASTSource(fn=z_buffer, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    code = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": False}).asm["ptx"]
    # A fused multiply-add or an approximate division would round otherwise than the other backends.
    assert not re.search(r"fma\.|\.approx|div\.full", code)
    assert {"div.rn.f64", "cvt.rn.f32.f64"} <= set(re.findall(r"div\.\w+\.f\d+|cvt\.rn\.f32\.f64", code))
    assert "max.s64" in code


def test_cpu_tensors_are_refused():
    with pytest.raises(ConfigError):
        rasterize(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]), 4, 4, backend="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_ids():
    for dtype in (torch.float32, torch.float64):
        for name, points, triangles, height, width in scenes(dtype):
            expected = rasterize(points, triangles, height, width, backend="numba")
            found = rasterize(points.cuda(), triangles.cuda(), height, width, backend="triton")
            assert torch.equal(found.cpu(), expected), name
    camera = make_camera(width=200, height=180, focal=1200.0, dtype=torch.float32)
    vertices, topology = random_soup(3, 3000, torch.float32)
    points = camera.to_screen(camera.to_camera_space(vertices))[None]
    expected = rasterize(points, topology.triangles, 180, 200)
    assert torch.equal(rasterize(points.cuda(), topology.triangles.cuda(), 180, 200).cpu(), expected)
