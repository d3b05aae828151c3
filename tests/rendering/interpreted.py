"""What the Triton kernel and the dense path of CUDA give on the CPU, written to a file: `TRITON_INTERPRET=1 python interpreted.py FILE`.

In a process of its own, because Triton's interpreter has to be chosen before triton is imported.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from focus_backend.rendering import MeshTopology, rasterize, render_mesh
from rendering.reference import BAD_TRIANGLES, bumpy_sheet, make_camera, make_lighting, make_texture, random_soup, sphere
from synchronisation import count_synchronisations

BAD = [
    *BAD_TRIANGLES,
    [[-1e30, -1e30, 9.0], [1e30, -1e30, 9.0], [0.0, 1e30, 9.0]],
    [[0.0, 0.0, 3.0], [5.0, 0.0, 3.0], [0.0, 5.0, 3.0]],
    [[0.0, 0.0, 3.0], [5.0, 0.0, 3.0], [0.0, 5.0, 3.0]],
]


def scenes(dtype):
    """Points, triangles and size by name: random triangles, closed meshes, corners that must not be drawn, ties, and nothing."""
    camera = make_camera(width=21, height=17, focal=110.0, dtype=dtype)
    soups = torch.stack([random_soup(seed, 32, dtype)[0] for seed in range(2)])
    both = camera.batched(2)
    yield "soup", both.to_screen(both.to_camera_space(soups)), random_soup(0, 32)[1].triangles, 17, 21
    vertices, topology = sphere(rings=9)
    yield "sphere", camera.to_screen(camera.to_camera_space(vertices.to(dtype)))[None], topology.triangles, 17, 21
    corners = torch.tensor(BAD, dtype=dtype).view(1, -1, 3)
    yield "bad", corners, torch.arange(corners.shape[1]).view(-1, 3), 8, 7
    square = torch.tensor([[[0.0, 0.0, 2.0], [8.0, 0.0, 2.0], [8.0, 8.0, 2.0], [0.0, 8.0, 2.0]]], dtype=dtype)
    yield "tie", square, torch.tensor([[0, 1, 2], [0, 2, 3]]), 8, 8
    yield "one pixel", square, torch.tensor([[0, 1, 2], [0, 2, 3]]), 1, 1
    yield "no triangles", torch.zeros(2, 3, 3, dtype=dtype), torch.zeros(0, 3, dtype=torch.int64), 4, 5
    yield "no images", torch.zeros(0, 3, 3, dtype=dtype), torch.tensor([[0, 1, 2]]), 4, 5


def picture(backend, execution):
    """Image, and gradients of all that has some, of two bumpy sheets with a hidden part, and a list of what is to be differentiated."""
    vertices, topology = bumpy_sheet(cells=4, size=60.0)
    in_region = torch.arange(len(topology.triangles)) % 7 != 0
    topology = MeshTopology(topology.triangles, topology.uv, in_region, topology.edges, topology.edge_triangles)
    camera = make_camera(width=24, height=18, focal=60.0, turn=(0.4, -0.5, 0.3)).batched(2)
    leaves = [torch.stack([vertices, 0.8 * vertices]), make_texture().expand(2, -1, -1, -1), make_lighting().expand(2, -1, -1)]
    leaves += [camera.rotation, camera.translation, camera.focal_length, torch.full((2, 18, 24, 3), 0.3, dtype=torch.float64)]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    moved = type(camera)(*leaves[3:6], camera.principal_point, 24, 18)
    weights = torch.rand(2, 18, 24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run():
        image = render_mesh(topology, *leaves[:3], moved, leaves[6], True, backend, execution).image
        return [image.detach(), *torch.autograd.grad(image, leaves, weights)]

    return run


def main() -> None:
    """Write the ids of every scene, a picture with its gradients, and the number of synchronisations it took."""
    results = {}
    for dtype in (torch.float32, torch.float64):
        for cull_backfaces in (False, True):
            for name, *scene in scenes(dtype):
                found = rasterize(*scene, cull_backfaces=cull_backfaces, backend="triton")
                results[f"{name} {dtype} {cull_backfaces}"] = found
    run = picture("triton", "dense")
    with count_synchronisations() as found:
        values = run()
    print(dict(found), file=sys.stderr)
    results |= {f"picture {index}": value.contiguous() for index, value in enumerate(values)}
    results["synchronisations"] = torch.tensor(sum(found.values()))
    save_file(results, sys.argv[1])


if __name__ == "__main__":
    main()
