from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel, SurfacePoints
from focus_backend.rendering import MeshTopology, Rendering, ambient_lighting, rasterize, rasterize_model, render, render_mesh
from focus_backend.rendering.normals import normal_sums_torch, vertex_normals
from focus_backend.rendering.shading import shade_pixels, shade_pixels_torch
from rendering import reference
from rendering.reference import bumpy_sheet, make_camera, make_lighting, make_texture, random_soup, sphere


def _render(vertices, topology, camera, antialiased=False, dtype=torch.float64, **options):
    texture, lighting = make_texture(dtype=dtype)[None], make_lighting(dtype)[None]
    return render_mesh(topology, vertices[None].to(dtype), texture, lighting, camera.to(dtype), antialiased=antialiased, **options)


@pytest.mark.parametrize("mesh", [lambda: random_soup(3, 12), sphere, bumpy_sheet])
def test_image_equals_the_reference(mesh):
    vertices, topology = mesh()
    topology = dataclasses.replace(topology, in_region=torch.arange(len(topology.triangles)) % 5 != 0)
    camera = make_camera(width=28, height=20)
    rendering = _render(vertices, topology, camera)
    expected = reference.render(topology, vertices, make_texture(), make_lighting(), camera)
    torch.testing.assert_close(rendering.image[0], torch.from_numpy(expected), atol=1e-9, rtol=0)
    assert 50 < rendering.mask.sum() < 28 * 20


def test_float32_is_close_to_float64():
    vertices, topology = sphere()
    camera = make_camera(width=60, height=50, focal=200.0)
    exact, single = _render(vertices, topology, camera), _render(vertices, topology, camera, dtype=torch.float32)
    same = exact.triangle_ids == single.triangle_ids
    assert same.float().mean() > 0.999
    # A quarter of an 8-bit step.
    assert (exact.image - single.image)[same].abs().max() < 1e-3


def _leaves(vertices, camera, dtype=torch.float64):
    values = (vertices[None], make_texture()[None], make_lighting()[None], camera.rotation, camera.translation, camera.focal_length)
    return tuple(value.to(dtype).clone().requires_grad_() for value in values)


def _image_of(topology, camera, antialiased):
    def image(vertices, texture, lighting, rotation, translation, focal_length):
        moved = dataclasses.replace(camera, rotation=rotation, translation=translation, focal_length=focal_length)
        return render_mesh(topology, vertices, texture, lighting, moved, antialiased=antialiased).image

    return image


def test_interior_gradients_against_finite_differences():
    # The sheet covers the whole image, so there is no edge in it.
    vertices, topology = bumpy_sheet(cells=3)
    camera = make_camera(width=7, height=6, focal=25.0, turn=(0.1, -0.1, 0.05))
    leaves = _leaves(vertices, camera)
    assert (_image_of(topology, camera, False)(*leaves) > 0).all()
    assert torch.autograd.gradcheck(_image_of(topology, camera, False), leaves, eps=1e-6, atol=1e-5)


def test_gradients_with_edges_against_finite_differences_of_the_same_image():
    vertices, topology = bumpy_sheet(cells=2, size=60.0)
    camera = make_camera(width=12, height=10, focal=25.0, turn=(0.4, -0.5, 0.3))
    assert torch.autograd.gradcheck(_image_of(topology, camera, True), _leaves(vertices, camera), eps=1e-6, atol=1e-5)


def test_every_map_has_gradients_and_compiled_equals_torch():
    vertices, topology = sphere(rings=8)
    camera = make_camera(width=24, height=20).batched(2)
    turned = torch.stack([vertices, vertices.flip(-1)])
    in_camera = camera.to_camera_space(turned)
    points = camera.to_screen(in_camera).requires_grad_()
    normals = vertex_normals(in_camera, topology.triangles).requires_grad_()
    texture = torch.stack([make_texture(), make_texture().flip(0)]).requires_grad_()
    lighting = torch.stack([make_lighting(), make_lighting() * -0.5]).requires_grad_()
    ids = rasterize(points, topology.triangles, 20, 24)
    leaves = (points, normals, texture, lighting)
    results = []
    for shade in (shade_pixels, shade_pixels_torch):
        maps = shade(*leaves, ids, topology)
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(m.shape, generator=generator, dtype=m.dtype) for m in maps]
        each = [
            torch.autograd.grad((m * w).sum(), leaves, retain_graph=True, allow_unused=True) for m, w in zip(maps, weights, strict=True)
        ]
        every = torch.autograd.grad(sum((m * w).sum() for m, w in zip(maps, weights, strict=True)), leaves)
        results.append((maps, each, every))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(results[0][2], results[1][2], atol=1e-9, rtol=1e-9)
    for compiled, plain in zip(results[0][1], results[1][1], strict=True):
        for ours, theirs in zip(compiled, plain, strict=True):
            # Where torch has no gradient at all, the kernel may answer zero.
            torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, atol=1e-9, rtol=1e-9)


def test_vertex_normals_of_a_sphere_and_their_gradient():
    vertices, topology = sphere(rings=16)
    used = topology.triangles.unique().long()
    normals = vertex_normals(vertices[None], topology.triangles)[0, used]
    assert (normals * torch.nn.functional.normalize(vertices[used], dim=-1)).sum(-1).min() > 0.999
    soup, connected = bumpy_sheet(cells=2)
    leaf = soup[None].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, connected.triangles), leaf, atol=1e-6)
    weights = torch.randn(leaf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, plain = (
        vertex_normals(leaf, connected.triangles),
        torch.nn.functional.normalize(normal_sums_torch(leaf, connected.triangles), dim=-1),
    )
    torch.testing.assert_close(torch.autograd.grad(ours, leaf, weights), torch.autograd.grad(plain, leaf, weights))


def test_batch_equals_single_and_is_deterministic():
    vertices, topology = sphere(rings=10)
    cameras = [make_camera(turn=(0.3 * i, 0.2, 0.0), focal=150.0 + 20 * i) for i in range(3)]
    names = ("rotation", "translation", "focal_length", "principal_point")
    together = type(cameras[0])(*(torch.stack([getattr(c, name) for c in cameras]) for name in names), 32, 24)
    textures = torch.stack([make_texture() * (0.5 + 0.2 * i) for i in range(3)])
    lightings = torch.stack([make_lighting() * (1 - 0.2 * i) for i in range(3)])
    leaf = torch.stack([vertices * (1 + 0.1 * i) for i in range(3)]).requires_grad_()

    def of(index):
        rendering = render_mesh(topology, leaf[index], textures[index], lightings[index], together[index])
        return rendering, torch.autograd.grad(rendering.image.square().sum(), leaf)[0]

    (batch, gradient), (again, gradient_again) = of(slice(None)), of(slice(None))
    assert torch.equal(gradient, gradient_again)
    for field in dataclasses.fields(Rendering):
        value = getattr(batch, field.name)
        assert torch.equal(value, getattr(again, field.name))
        for index in range(3):
            assert torch.equal(value[index], getattr(of(slice(index, index + 1))[0], field.name)[0])
    torch.testing.assert_close(gradient, sum(of(slice(i, i + 1))[1] for i in range(3)))


def test_hidden_parts_and_background():
    # A small shown square behind a larger one that is not shown: nothing of it may be seen, and the background stays as it is.
    square = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    vertices = torch.cat([square * 10, square * 20 + torch.tensor([0.0, 0.0, 30.0])])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    uv = torch.rand(4, 3, 2, dtype=torch.float64)
    camera = make_camera(turn=(0.0, 0.0, 0.0))
    background = torch.rand(1, 24, 32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for shown, is_hidden in (([True, True, False, False], True), ([False, False, True, True], False)):
        topology = MeshTopology.build(triangles, uv, torch.tensor(shown))
        rendering = _render(vertices, topology, camera, antialiased=True, background=background)
        assert bool((rendering.triangle_ids < 0).all()) == is_hidden
        if is_hidden:
            assert torch.equal(rendering.image, background)
        else:
            away = torch.nn.functional.max_pool2d(rendering.mask.double()[None], 5, 1, 2)[0] == 0
            assert torch.equal(rendering.image[away], background[away])
    rendering.image.sum().backward()
    assert (background.grad[away] == 1).all()
    assert (background.grad[rendering.mask] < 1).all()


def test_behind_the_camera_gives_an_empty_picture_with_finite_gradients():
    vertices, topology = sphere(rings=6)
    leaf = (vertices + torch.tensor([0.0, 0.0, 500.0], dtype=torch.float64)).requires_grad_()
    rendering = _render(leaf, topology, make_camera(), antialiased=True)
    assert not rendering.mask.any()
    assert (rendering.image == 0).all()
    rendering.image.sum().backward()
    assert (leaf.grad == 0).all()


def test_not_a_number_does_not_crash():
    vertices, topology = sphere(rings=6)
    vertices[10:20] = torch.nan
    rendering = _render(vertices, topology, make_camera(), antialiased=True)
    assert rendering.mask.any()


def _face_model():
    vertices, _ = bumpy_sheet(cells=4)
    index = torch.arange(25).view(5, 5)
    quads = torch.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], dim=-1).view(-1, 4)
    points = SurfacePoints((), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    flat = torch.zeros(1, len(vertices), 3)
    uv = (vertices[:, :2] / 120 + 0.5).float()
    in_face = torch.arange(len(quads)) < 8
    texels = torch.arange(64)
    return FaceModel(
        "sheet", vertices.float(), flat, flat, torch.ones(1), ("none",), quads, quads, uv, in_face,
        8, texels, torch.full((64, 3), 0.5), torch.zeros(1, 64, 3), points, points,
    )  # fmt: skip


def test_face_model_is_rendered_by_region_and_rasterize_model_agrees():
    model, camera = _face_model(), make_camera(dtype=torch.float32)
    vertices, albedo = model.decode(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 1))
    lighting = ambient_lighting().expand(2, -1, -1)
    face = render(model, vertices, albedo, lighting, camera)
    head = render(model, vertices, albedo, lighting, camera, region="head")
    assert 0 < face.mask.sum() < head.mask.sum()
    assert torch.equal(face.mask, head.mask & model.triangle_in_face[head.triangle_ids])
    for region, rendering in (("face", face), ("head", head)):
        seen = rasterize_model(model, vertices, camera, region=region)
        assert torch.equal(seen.triangle_ids, rendering.triangle_ids)
        assert torch.equal(seen.mask, rendering.mask)
        torch.testing.assert_close(seen.barycentric, rendering.barycentric, atol=1e-6, rtol=0)
    assert MeshTopology.of(model) is MeshTopology.of(model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    vertices, topology = sphere()
    camera = make_camera(width=60, height=50, focal=200.0)
    moved = MeshTopology(*(getattr(topology, field.name).cuda() for field in dataclasses.fields(topology)))
    cpu = _leaves(vertices, camera)
    cuda = tuple(value.detach().cuda().requires_grad_() for value in cpu)
    image, image_cuda = _image_of(topology, camera, True)(*cpu), _image_of(moved, camera.to("cuda"), True)(*cuda)
    torch.testing.assert_close(image, image_cuda.cpu(), atol=1e-9, rtol=0)
    ours, theirs = torch.autograd.grad(image.square().sum(), cpu), torch.autograd.grad(image_cuda.square().sum(), cuda)
    torch.testing.assert_close(ours, tuple(value.cpu() for value in theirs), atol=1e-6, rtol=1e-6)
