from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.errors import ConfigError
from focus_backend.rendering import MeshTopology, rasterize, render, render_mesh
from focus_backend.rendering.antialias import antialias, edge_crossings
from focus_backend.rendering.execution import is_compiled
from focus_backend.rendering.normals import vertex_normals
from focus_backend.rendering.renderer import show_region
from focus_backend.rendering.shading import shade_pixels
from rendering.interpreted import picture
from rendering.reference import make_camera, make_lighting, make_texture, random_soup, sphere
from synchronisation import count_synchronisations

OFFENDERS = {
    "nonzero": lambda x: torch.where(x > 0.5),
    "index": lambda x: x[x > 0.5],
    "index_put_": lambda x: x.clone().index_put_((x > 0.5,), torch.zeros(())),
    "_local_scalar_dense": lambda x: bool((x > 0.5).any()),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.detach().numpy(),
    "lift_fresh": lambda x: x.new_tensor([1.0, -1.0]),
    "_unique2": lambda x: x.unique(),
    "masked_select": lambda x: x.masked_select(x > 0.5),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.arange(len(x))),
    "_linalg_check_errors": lambda x: torch.linalg.solve(torch.diag(1 + x), x),
    "_to_copy": lambda x: x.to("meta"),
    "gather of several devices": lambda x: x.gather(0, torch.zeros(6, dtype=torch.int64, device="meta")),
}
HARMLESS = [
    lambda x: torch.where(x > 0.5, x, 0.0),
    lambda x: x[torch.arange(3)],
    lambda x: x.repeat_interleave(3),
    lambda x: torch.repeat_interleave(x, torch.arange(len(x)), output_size=sum(range(len(x)))),
    lambda x: x.to(torch.float64),
    lambda x: torch.full((3,), 2.0) + torch.arange(3),
    lambda x: x.square().sum(),
]


@pytest.mark.parametrize("name", OFFENDERS)
def test_the_guard_finds(name):
    with count_synchronisations() as found:
        OFFENDERS[name](torch.rand(6))
    assert found[name] == 1


@pytest.mark.parametrize("function", HARMLESS)
def test_the_guard_lets_pass(function):
    with count_synchronisations() as found:
        function(torch.rand(6))
    assert not found


def test_the_guard_looks_into_the_backward_pass():
    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 if (grad > 0).all() else grad

    result = Careless.apply(torch.rand(3, requires_grad=True)).sum()
    with count_synchronisations() as found:
        result.backward()
    assert found == {"_local_scalar_dense": 1}


def _scene(dtype=torch.float64):
    vertices, topology = sphere(rings=8)
    topology = dataclasses.replace(topology, in_region=vertices[topology.triangles.long()].mean(1)[:, 1] > -15)
    camera = make_camera(width=24, height=20, focal=60.0, turn=(0.3, 0.2, 0.4)).batched(2)
    leaf = torch.stack([vertices, 0.8 * vertices]).requires_grad_()
    return leaf, topology, camera


def test_dense_parts_and_their_gradients_never_synchronise():
    leaf, topology, camera = _scene()
    texture, lighting = make_texture().expand(2, -1, -1, -1), make_lighting().expand(2, -1, -1)
    # The z-buffer of CUDA runs on the CPU only when interpreted: see test_rasterize_triton.py.
    ids = rasterize(camera.to_screen(camera.to_camera_space(leaf)), topology.triangles, 20, 24, cull_backfaces=True)
    with count_synchronisations() as found:
        in_camera = camera.to_camera_space(leaf)
        points = camera.to_screen(in_camera)
        normals = vertex_normals(in_camera, topology.triangles, "dense")
        shown = show_region(ids, topology, "dense")
        image = shade_pixels(points, normals, texture, lighting, shown, topology, "dense").image
        antialias(image, points, ids, topology, "dense").square().sum().backward()
    assert not found
    assert leaf.grad.abs().max() > 0


def test_dense_picture_and_gradients_equal_the_compiled_ones_in_parts_of_the_batch(monkeypatch):
    monkeypatch.setattr("focus_backend.rendering.shading.PIXELS_AT_A_TIME", 24 * 18)
    for ours, theirs in zip(picture("numba", "dense")(), picture("numba", "compiled")(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("limit", "value"), [("CROSSINGS_PER_BORDER_PIXEL", 1), ("CANDIDATES_PER_BORDER_PIXEL", 8)])
def test_crossings_beyond_the_capacity_are_left_out(limit, value, monkeypatch):
    camera = make_camera(width=24, height=20, focal=90.0).batched(2)
    topology = random_soup(0)[1]
    points = camera.to_screen(camera.to_camera_space(torch.stack([random_soup(seed)[0] for seed in range(2)])))
    ids = rasterize(points, topology.triangles, 20, 24, cull_backfaces=True)
    every = edge_crossings(points, ids, topology, "dense")
    monkeypatch.setattr(f"focus_backend.rendering.antialias_torch.{limit}", value)
    some = edge_crossings(points, ids, topology, "dense")
    every, some = ({tuple(row) for row in rows[rows[:, 0] >= 0].tolist()} for rows in (every, some))
    assert 20 < len(some) < len(every)
    # Leaving out candidates lets others win their pixels.
    assert limit.startswith("CANDIDATES") or some < every


def test_dense_way_without_gradients_and_of_nothing():
    leaf, topology, camera = _scene()
    texture, lighting = make_texture().expand(2, -1, -1, -1), make_lighting().expand(2, -1, -1)
    with torch.no_grad():
        ours, theirs = (render_mesh(topology, leaf, texture, lighting, camera, execution=way) for way in ("dense", "compiled"))
    for field in dataclasses.fields(ours):
        torch.testing.assert_close(getattr(ours, field.name), getattr(theirs, field.name), atol=1e-9, rtol=0)
    none = MeshTopology.build(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, 2, dtype=torch.float64))
    assert not render_mesh(none, leaf, texture, lighting, camera, execution="dense").image.any()


def test_unseen_pixels_and_undrawable_triangles_leave_gradients_finite():
    leaf, topology, camera = _scene()
    with torch.no_grad():
        moved = leaf.clone()
        moved[:, ::3, 2] += 190.0
        moved[:, 5] = -camera.translation[0] @ camera.rotation[0]
    moved.requires_grad_()
    texture, lighting = make_texture().expand(2, -1, -1, -1), make_lighting().expand(2, -1, -1)
    results = []
    for way in ("dense", "compiled"):
        image = render_mesh(topology, moved, texture, lighting, camera, execution=way).image
        results.append(torch.autograd.grad(image.square().sum(), moved)[0])
    assert results[0].isfinite().all()
    assert results[0].abs().max() > 0
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


def test_compiled_way_is_refused_where_it_cannot_work():
    assert is_compiled(torch.zeros(1), "auto")
    assert not is_compiled(torch.zeros(1), "dense")
    assert not is_compiled(torch.zeros(1, device="meta"), "auto")
    with pytest.raises(ConfigError):
        is_compiled(torch.zeros(1, device="meta"), "compiled")


def test_render_elsewhere_mixes_no_devices_and_reads_no_values(tiny_model):
    pytest.importorskip("triton", reason="triton is not installed")
    topology = MeshTopology.of(tiny_model)
    sizes = (tiny_model.shape_size, tiny_model.expression_size, tiny_model.albedo_size)
    # Tensors of the device "meta" have no values: reading one raises, and so does meeting a tensor of the CPU.
    model = _without_values(tiny_model)
    vars(model)["_rendering_topology"] = {"face": _without_values(topology)}
    theta = [torch.zeros(2, size, device="meta", requires_grad=True) for size in sizes]
    vertices, albedo = model.decode(*theta)
    camera = make_camera(width=32, height=24, dtype=torch.float32).batched(2).to("meta")
    lighting, background = torch.zeros(2, 9, 3, device="meta", requires_grad=True), torch.zeros(2, 24, 32, 3, device="meta")
    with count_synchronisations() as found:
        rendering = render(model, vertices, albedo, lighting, camera, background=background)
        rendering.image.sum().backward()
    assert not found
    assert rendering.image.device.type == "meta"
    assert rendering.image.shape == (2, 24, 32, 3)
    assert all(leaf.grad.shape == leaf.shape for leaf in (*theta, lighting))


def _without_values(value):
    tensors = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **{name: t.to("meta") for name, t in tensors.items() if isinstance(t, torch.Tensor)})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_never_synchronises():
    leaf, topology, camera = _scene()
    topology = MeshTopology(*(getattr(topology, field.name).cuda() for field in dataclasses.fields(topology)))
    given = (make_texture().expand(2, -1, -1, -1).cuda(), make_lighting().expand(2, -1, -1).cuda(), camera.to("cuda"))
    moved = leaf.detach().cuda().requires_grad_()

    def once():
        render_mesh(topology, moved, *given).image.square().sum().backward()

    once()
    torch.cuda.set_sync_debug_mode("error")
    try:
        once()
    finally:
        torch.cuda.set_sync_debug_mode("default")
