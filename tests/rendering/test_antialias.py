from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.rendering import MeshTopology, ambient_lighting, rasterize, render_mesh
from focus_backend.rendering.antialias import DEPTH_TOLERANCE, antialias, blend_crossings_torch, edge_crossings
from focus_backend.rendering.antialias_torch import edge_crossings_torch
from rendering.reference import make_camera, sphere

SAMPLES = 16


def _coverage(vertices, topology, camera, antialiased=True):
    """How much of each pixel the mesh covers: white albedo under white ambient light on black."""
    albedo, lighting = vertices.new_ones(1, 1, 1, 3), ambient_lighting(1.0, vertices.dtype)[None]
    return render_mesh(topology, vertices[None], albedo, lighting, camera, antialiased=antialiased).image[0, ..., 0]


def _supersampled(vertices, topology, camera):
    """The same by counting samples on a finer grid."""
    fine = camera.resized(camera.width * SAMPLES, camera.height * SAMPLES, scale=SAMPLES)
    samples = _coverage(vertices, topology, fine, antialiased=False)
    return torch.nn.functional.avg_pool2d(samples[None], SAMPLES)[0]


def _ellipsoid():
    vertices, topology = sphere(rings=40, radius=40.0)
    return vertices * torch.tensor([0.7, 1.0, 0.9], dtype=torch.float64), topology


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6)])
def test_coverage_is_that_of_supersampling(turn):
    vertices, topology = _ellipsoid()
    camera = make_camera(width=48, height=40, focal=90.0, turn=turn)
    exact = _supersampled(vertices, topology, camera)
    smooth, hard = _coverage(vertices, topology, camera), _coverage(vertices, topology, camera, antialiased=False)
    edge = (exact > 0.02) & (exact < 0.98)
    # One line sample a pixel errs by up to 1/8 on a straight diagonal edge, and by more in the few pixels where the outline turns from
    # steep to level; the errors cancel.
    assert (smooth - exact).abs().max() < 0.3
    assert (smooth - exact).abs()[edge].mean() < 0.03 < 0.2 < (hard - exact).abs()[edge].mean()
    assert (smooth - exact)[edge].mean().abs() < 0.005


def _moments(coverage):
    """Area, and first and second moments: smooth functions of the picture that move with its outline."""
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in coverage.shape), indexing="ij")
    return torch.stack([(coverage * weight).sum() for weight in (rows**0, rows, columns, rows**2, columns**2, rows * columns)])


def _moved(camera, parameters):
    """Camera shifted (mm) and zoomed by four parameters."""
    return dataclasses.replace(
        camera, translation=camera.translation + parameters[:3], focal_length=camera.focal_length * torch.exp(parameters[3])
    )


def test_outline_gradients_are_those_of_supersampled_coverage():
    vertices, topology = _ellipsoid()
    camera = make_camera(width=48, height=40, focal=90.0, turn=(0.3, 0.2, 0.4))
    zero = torch.zeros(4, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(lambda p: _moments(_coverage(vertices, topology, _moved(camera, p))), zero)
    # Steps of about half a pixel, so that sampling noise (1/256 of a pixel) stays small.
    steps = torch.tensor([1.0, 1.0, 4.0, 0.02], dtype=torch.float64)
    columns = []
    for index in range(4):
        step = zero.clone()
        step[index] = steps[index]
        ahead = _moments(_supersampled(vertices, topology, _moved(camera, step)))
        behind = _moments(_supersampled(vertices, topology, _moved(camera, -step)))
        columns.append((ahead - behind) / (2 * steps[index]))
    expected = torch.stack(columns, dim=1)
    # 5 % of the largest entry of each parameter's column.
    assert ((gradient - expected).abs() < 0.05 * expected.abs().amax(0)).all()
    assert (expected.abs().amax(0) > 0.1).all()


def test_an_edge_inside_the_picture_has_the_gradient_of_its_coverage():
    # A dark square before a bright one: moving it by one pixel to the right trades one bright column for a dark one, and back.
    square = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    vertices = torch.cat([square * 40, square * 10 + torch.tensor([0.3, 0.2, 40.0])])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    uv = torch.tensor([[[0.25, 0.5]] * 3] * 2 + [[[0.75, 0.5]] * 3] * 2, dtype=torch.float64)
    albedo = torch.tensor([1.0, 0.0], dtype=torch.float64)[None, None, :, None].expand(1, 1, 2, 3)
    topology = MeshTopology.build(triangles, uv)
    camera = make_camera(turn=(0.0, 0.0, 0.0))

    def right_half(shift):
        moved = torch.cat([vertices[:4], vertices[4:] + torch.stack([shift, shift * 0, shift * 0])])
        image = render_mesh(topology, moved[None], albedo, ambient_lighting(1.0, torch.float64)[None], camera).image[0, ..., 0]
        return image[:, 17:].sum()

    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(right_half(shift), shift)
    # The square is 20 mm high at 160 mm: 20 rows at one pixel a millimetre.
    assert abs(float(gradient) + 20) < 0.5


def test_compiled_and_torch_blend_the_same():
    vertices, topology = _ellipsoid()
    camera = make_camera(width=48, height=40, focal=90.0, turn=(0.3, 0.2, 0.4)).batched(2)
    points = camera.to_screen(camera.to_camera_space(torch.stack([vertices, vertices * 0.8]))).requires_grad_()
    image = torch.rand(2, 40, 48, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = rasterize(points, topology.triangles, 40, 48, cull_backfaces=True)
    ours = antialias(image, points, ids, topology)
    theirs = blend_crossings_torch(image, points, edge_crossings(points.detach(), ids, topology), topology)
    assert not torch.equal(ours, image)
    torch.testing.assert_close(ours, theirs)
    weights = torch.rand(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(result, (image, points), weights) for result in (ours, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_and_torch_find_the_same_crossings(dtype):
    vertices, topology = _ellipsoid()
    topology = dataclasses.replace(topology, in_region=vertices[topology.triangles.long()].mean(1)[:, 1] > -15)
    cameras = make_camera(width=48, height=40, focal=90.0, turn=(0.3, 0.2, 0.4), dtype=dtype).batched(2)
    both = torch.stack([vertices, vertices * 0.8]).to(dtype)
    points = cameras.to_screen(cameras.to_camera_space(both))
    ids = rasterize(points, topology.triangles, 40, 48, cull_backfaces=True)
    ours = edge_crossings(points, ids, topology)
    theirs = edge_crossings_torch(points, ids, topology, DEPTH_TOLERANCE)
    theirs = theirs[theirs[:, 0] >= 0]
    assert len(ours) > 120
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_short_buffer_grows(monkeypatch):
    vertices, topology = _ellipsoid()
    camera = make_camera(width=48, height=40, focal=90.0).batched(1)
    points = camera.to_screen(camera.to_camera_space(vertices[None]))
    ids = rasterize(points, topology.triangles, 40, 48, cull_backfaces=True)
    expected = edge_crossings(points, ids, topology)
    monkeypatch.setattr("focus_backend.rendering.antialias.CROSSINGS_PER_BORDER_PIXEL", 0)
    assert torch.equal(edge_crossings(points, ids, topology), expected)
