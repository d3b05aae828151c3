from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from focus_backend.errors import ConfigError, MissingDependencyError
from focus_backend.rendering import barycentric_coordinates, rasterize
from focus_backend.rendering.rasterize_pytorch3d import is_pytorch3d_available, to_ndc
from focus_backend.rendering.renderer import locate
from rendering.reference import BAD_TRIANGLES, bumpy_sheet, cast_rays, make_camera, random_soup, sphere

BACKENDS = ["numba", "torch"]


def _screen(vertices, camera):
    return camera.to_screen(camera.to_camera_space(vertices))[None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cull_backfaces", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_ray_casting_on_random_meshes(backend, cull_backfaces, seed):
    camera = make_camera()
    vertices, topology = random_soup(seed)
    points = _screen(vertices, camera)
    ids = rasterize(points, topology.triangles, 24, 32, cull_backfaces=cull_backfaces, backend=backend)[0]
    expected, barycentric, depth = cast_rays(camera.to_camera_space(vertices), topology.triangles, camera, cull_backfaces)
    # The z-buffer compares nearness as float32: where triangles cross each other the two may disagree, but not by more than that.
    differs = ids.numpy() != expected
    assert differs.sum() <= 1
    assert (expected >= 0).sum() > 200
    same = ~differs & (expected >= 0)
    found = barycentric_coordinates(points, topology.triangles, ids[None])[0].numpy()
    np.testing.assert_allclose(found[same], barycentric[same], atol=1e-10)
    corner_depths = points[0, topology.triangles.long()[ids], 2].numpy()
    np.testing.assert_allclose((found * corner_depths).sum(-1)[same], depth[same], rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cull_backfaces", [False, True])
def test_numba_and_torch_agree_bit_by_bit(dtype, cull_backfaces):
    camera = make_camera(width=90, height=70, focal=500.0, dtype=dtype)
    vertices = torch.stack([random_soup(seed, 300, dtype)[0] for seed in range(3)])
    triangles = random_soup(0, 300)[1].triangles
    points = camera.batched(3).to_screen(camera.batched(3).to_camera_space(vertices))
    first = rasterize(points, triangles, 70, 90, cull_backfaces=cull_backfaces, backend="numba")
    second = rasterize(points, triangles, 70, 90, cull_backfaces=cull_backfaces, backend="torch")
    assert torch.equal(first, second)
    assert (first >= 0).float().mean() > 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_equals_single_and_is_deterministic(backend):
    camera = make_camera()
    points = torch.cat([_screen(random_soup(seed)[0], camera) for seed in range(3)])
    triangles = random_soup(0)[1].triangles
    together = rasterize(points, triangles, 24, 32, backend=backend)
    assert torch.equal(together, rasterize(points, triangles, 24, 32, backend=backend))
    for index in range(3):
        assert torch.equal(together[index], rasterize(points[index : index + 1], triangles, 24, 32, backend=backend)[0])


def test_torch_path_in_small_chunks_gives_the_same(monkeypatch):
    camera = make_camera()
    vertices, topology = random_soup(1)
    points = _screen(vertices, camera)
    expected = rasterize(points, topology.triangles, 24, 32, backend="torch")
    monkeypatch.setattr(sys.modules["focus_backend.rendering.rasterize"], "_CHUNK", 50)
    assert torch.equal(rasterize(points, topology.triangles, 24, 32, backend="torch"), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_surface_has_no_holes(backend):
    # Small triangles, whole-pixel vertices and exact edges are where a rasterizer leaks.
    vertices, topology = bumpy_sheet(cells=20, size=100.0)
    x, y, _ = vertices.unbind(-1)
    points = torch.stack([(x + 50) * 0.4 - 4.5, (y + 50) * 0.4 - 4.5, torch.full_like(x, 100)], dim=-1)[None]
    assert (rasterize(points, topology.triangles, 32, 32, backend=backend) >= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_tie_goes_to_the_lowest_id(backend):
    points = torch.tensor([[[0.0, 0.0, 5.0], [8.0, 0.0, 5.0], [0.0, 8.0, 5.0], [8.0, 8.0, 5.0]]])
    triangles = torch.tensor([[3, 2, 1], [0, 1, 2], [0, 1, 2], [1, 3, 2]])
    ids = rasterize(points, triangles, 8, 8, backend=backend)[0]
    assert set(ids.unique().tolist()) == {0, 1}
    # Centres on the shared diagonal belong to both.
    assert (ids.flip(1).diagonal() == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_triangles_are_left_out(backend):
    good = [[0.0, 0.0, 9.0], [40.0, 0.0, 9.0], [0.0, 40.0, 9.0]]
    points = torch.tensor([*BAD_TRIANGLES, good]).view(1, -1, 3)
    ids = rasterize(points, torch.arange(points.shape[1]).view(-1, 3), 16, 16, backend=backend)
    assert (ids == len(BAD_TRIANGLES)).all()
    huge = torch.tensor([[[-1e30, -1e30, 2.0], [1e30, -1e30, 2.0], [0.0, 1e30, 2.0]]])
    assert (rasterize(huge, torch.tensor([[0, 1, 2]]), 16, 16, backend=backend) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_draw(backend):
    assert (rasterize(torch.zeros(2, 3, 3), torch.zeros(0, 3, dtype=torch.int64), 4, 5, backend=backend) == -1).all()
    assert rasterize(torch.zeros(0, 3, 3), torch.tensor([[0, 1, 2]]), 4, 5, backend=backend).shape == (0, 4, 5)


def test_barycentric_gradients_and_compiled_twin():
    camera = make_camera(width=10, height=8, focal=60.0)
    vertices, topology = random_soup(2, 12)
    points = _screen(vertices, camera)
    ids = rasterize(points, topology.triangles, 8, 10)
    exact = barycentric_coordinates(points, topology.triangles, ids)
    torch.testing.assert_close(locate(points, topology.triangles, ids), exact, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda p: barycentric_coordinates(p, topology.triangles, ids), points.requires_grad_())


def test_unknown_backend_is_refused():
    with pytest.raises(ConfigError):
        rasterize(torch.zeros(1, 3, 3).to("meta"), torch.zeros(1, 3, dtype=torch.int64), 4, 4, backend="numba")


@pytest.mark.skipif(is_pytorch3d_available(), reason="pytorch3d is installed")
def test_absent_pytorch3d_is_reported():
    with pytest.raises(MissingDependencyError):
        rasterize(torch.zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.int64), 4, 4, backend="pytorch3d")


def test_pytorch3d_frame():
    # The image's corners: the shorter side spans [-1, 1], x points left and y up.
    corners = to_ndc(torch.tensor([[[0.0, 0.0, 3.0], [20.0, 10.0, 3.0]]]), 10, 20)
    torch.testing.assert_close(corners, torch.tensor([[[2.0, 1.0, 3.0], [-2.0, -1.0, 3.0]]]))


@pytest.mark.skipif(not is_pytorch3d_available(), reason="pytorch3d is not installed")
@pytest.mark.parametrize("cull_backfaces", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (64, 48)])
def test_pytorch3d_gives_the_same_ids(cull_backfaces, size):
    height, width = size
    vertices, topology = sphere()
    camera = make_camera(width=width, height=height, focal=150.0, dtype=torch.float32)
    points = _screen(vertices.float(), camera).repeat(2, 1, 1)
    ours = rasterize(points, topology.triangles, height, width, cull_backfaces=cull_backfaces)
    theirs = rasterize(points, topology.triangles, height, width, cull_backfaces=cull_backfaces, backend="pytorch3d")
    # float32 decides pixel centres within rounding of an edge differently.
    assert (ours != theirs).float().mean() < 2e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_ids():
    camera = make_camera(width=90, height=70, focal=500.0, dtype=torch.float32)
    vertices, topology = random_soup(3, 300, torch.float32)
    points = _screen(vertices, camera)
    expected = rasterize(points, topology.triangles, 70, 90)
    assert torch.equal(rasterize(points.cuda(), topology.triangles.cuda(), 70, 90, backend="torch").cpu(), expected)
