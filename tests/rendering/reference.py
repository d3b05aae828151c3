"""Slow float64 truths for the renderer, and small meshes. Ray casting in camera space: another way than that of the code under test."""

from __future__ import annotations

import math

import numpy as np
import torch

from focus_backend.rendering import Camera, MeshTopology, ambient_lighting, rotation_from_axis_angle

# Corners (x px, y px, depth) of triangles that are not drawn: behind the camera, not finite, without area, or outside the picture.
BAD_TRIANGLES = [
    [[0.0, 0.0, -1.0], [40.0, 0.0, 2.0], [0.0, 40.0, 2.0]],
    [[0.0, 0.0, 0.0], [40.0, 0.0, 2.0], [0.0, 40.0, 2.0]],
    [[math.nan, 0.0, 2.0], [40.0, 0.0, 2.0], [0.0, 40.0, 2.0]],
    [[0.0, 0.0, math.nan], [40.0, 0.0, 2.0], [0.0, 40.0, 2.0]],
    [[math.inf, 0.0, 2.0], [40.0, -math.inf, 2.0], [0.0, 40.0, 2.0]],
    [[0.0, 0.0, math.inf], [40.0, 0.0, 2.0], [0.0, 40.0, 2.0]],
    [[0.0, 0.0, 2.0], [20.0, 20.0, 2.0], [40.0, 40.0, 2.0]],
    [[3.0, 3.0, 2.0]] * 3,
    [[100.0, 100.0, 2.0], [140.0, 100.0, 2.0], [100.0, 140.0, 2.0]],
    [[-1e30, -1e30, 2.0], [-1e30, -2e30, 2.0], [-2e30, -1e30, 2.0]],
]


def cast_rays(in_camera, triangles, camera, cull_backfaces=False):
    """Nearest triangle, barycentric coordinates and depth at each pixel of one image, intersecting each ray with each triangle."""
    height, width = camera.height, camera.width
    focal, (cx, cy) = float(camera.focal_length), camera.principal_point.tolist()
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(columns - cx) / focal, -(rows - cy) / focal, -np.ones_like(rows)], axis=-1)
    ids, depth = np.full((height, width), -1), np.full((height, width), np.inf)
    barycentric = np.zeros((height, width, 3))
    vertices = in_camera.double().numpy()
    for index, triangle in enumerate(np.asarray(triangles)):
        corners = vertices[triangle]
        volume = np.linalg.det(corners)
        # With the camera at the origin, the outside is seen where the corners' triple product is negative.
        if not np.isfinite(volume) or (corners[:, 2] >= 0).any() or volume == 0 or (cull_backfaces and volume > 0):
            continue
        weights = rays @ np.linalg.inv(corners)
        total = weights.sum(-1)
        is_hit = (weights >= 0).all(-1) & (1 / total < depth)
        ids[is_hit], depth[is_hit] = index, 1 / total[is_hit]
        barycentric[is_hit] = weights[is_hit] / total[is_hit, None]
    return ids, barycentric, np.where(ids >= 0, depth, 0)


def real_harmonics(x, y, z):
    """Textbook orthonormal real spherical harmonics, l = 0..2, m = -l..l."""
    a, b = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / math.pi)
    return [
        math.sqrt(1 / (4 * math.pi)),
        a * y,
        a * z,
        a * x,
        b / 2 * x * y,
        b / 2 * y * z,
        math.sqrt(5 / math.pi) / 4 * (3 * z * z - 1),
        b / 2 * x * z,
        b / 4 * (x * x - y * y),
    ]


def color_at(uv, normal, texture, lighting):
    """sRGB of one surface point; the texture is a [rows columns 3] array with row 0 at the top."""
    rows, columns = texture.shape[:2]
    x = min(max(uv[0] * columns - 0.5, 0), columns - 1)
    y = min(max((1 - uv[1]) * rows - 0.5, 0), rows - 1)
    albedo = np.zeros(3)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
            if weight > 0:
                albedo += weight * texture[row, column]
    linear = albedo * (np.array(real_harmonics(*normal)) @ lighting)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def vertex_normals(vertices, triangles):
    """Area-weighted unit normals, triangle by triangle."""
    sums = np.zeros_like(vertices)
    for a, b, c in np.asarray(triangles):
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        sums[[a, b, c]] += normal
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def render(topology, vertices, texture, lighting, camera):
    """Image of one mesh without antialiasing, pixel by pixel."""
    in_camera = camera.to_camera_space(vertices)
    ids, barycentric, _ = cast_rays(in_camera, topology.triangles, camera, cull_backfaces=True)
    normals = vertex_normals(in_camera.numpy(), topology.triangles)
    image = np.zeros((camera.height, camera.width, 3))
    for row, column in zip(*np.nonzero(ids >= 0), strict=True):
        triangle, weights = ids[row, column], barycentric[row, column]
        if not topology.in_region[triangle]:
            continue
        normal = weights @ normals[topology.triangles[triangle].numpy()]
        uv = weights @ topology.uv[triangle].double().numpy()
        image[row, column] = color_at(uv, normal / np.linalg.norm(normal), texture.numpy(), lighting.numpy())
    return image


def random_soup(seed, count=40, dtype=torch.float64):
    """Unconnected triangles around the origin, within 50 mm, and their texture coordinates."""
    generator = torch.Generator().manual_seed(seed)
    vertices = (torch.rand(3 * count, 3, generator=generator, dtype=torch.float64) - 0.5) * 100
    uv = torch.rand(count, 3, 2, generator=generator, dtype=torch.float64)
    return vertices.to(dtype), MeshTopology.build(torch.arange(3 * count).view(-1, 3), uv)


def sphere(rings=24, radius=40.0):
    """A closed sphere (mm) around the origin with texture coordinates, outside counter-clockwise."""
    sectors = 2 * rings
    polar, azimuth = torch.linspace(0, math.pi, rings + 1).double(), torch.arange(sectors).double() * (2 * math.pi / sectors)
    y, across = polar.cos()[:, None].expand(-1, sectors), polar.sin()[:, None]
    vertices = radius * torch.stack([across * azimuth.sin(), y, across * azimuth.cos()], dim=-1).view(-1, 3)
    index = torch.arange((rings + 1) * sectors).view(rings + 1, sectors)
    a, b = index[:-1], index[1:]
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    lower, upper = torch.stack([a, b, c], dim=-1)[:-1], torch.stack([a, c, d], dim=-1)[1:]
    triangles = torch.cat([lower.reshape(-1, 3), upper.reshape(-1, 3)])
    # All vertices of a pole become one, so that the surface is closed.
    triangles = torch.where(triangles < sectors, 0, torch.where(triangles >= rings * sectors, rings * sectors, triangles))
    uv = torch.stack([vertices[:, 0], vertices[:, 1]], dim=-1) / (2 * radius) + 0.5
    return vertices, MeshTopology.build(triangles, uv[triangles])


def bumpy_sheet(cells=4, size=100.0):
    """A wavy square facing +z around the origin, `size` mm wide, with texture coordinates."""
    grid = torch.linspace(-0.5, 0.5, cells + 1).double()
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    z = 0.1 * torch.sin(7 * x + 1) * torch.cos(5 * y)
    vertices = size * torch.stack([x, y, z], dim=-1).view(-1, 3)
    index = torch.arange((cells + 1) ** 2).view(cells + 1, cells + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    triangles = torch.cat([torch.stack([a, b, c], dim=-1).view(-1, 3), torch.stack([a, c, d], dim=-1).view(-1, 3)])
    uv = torch.stack([x, y], dim=-1).view(-1, 2) * 0.9 + 0.5
    return vertices, MeshTopology.build(triangles, uv[triangles])


def make_camera(width=32, height=24, focal=160.0, distance=200.0, turn=(0.2, -0.3, 0.1), dtype=torch.float64):
    """A camera that looks at the origin from `distance` mm; not square and not centred, so that a mixed-up axis shows."""
    return Camera(
        rotation_from_axis_angle(torch.tensor(turn, dtype=dtype)),
        torch.tensor([1.0, -2.0, -distance], dtype=dtype),
        torch.tensor(focal, dtype=dtype),
        torch.tensor([0.52 * width, 0.47 * height], dtype=dtype),
        width,
        height,
    )


def make_lighting(dtype=torch.float64):
    """Coloured light with every harmonic in it, bright enough that no shading is negative."""
    generator = torch.Generator().manual_seed(5)
    return (ambient_lighting(1.0, torch.float64) + 0.1 * torch.randn(9, 3, generator=generator, dtype=torch.float64)).to(dtype)


def make_texture(rows=7, columns=5, dtype=torch.float64):
    """A random albedo texture."""
    return torch.rand(rows, columns, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype) * 0.8 + 0.1
