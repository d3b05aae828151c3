"""Compiled CPU kernels for vertex normals. Importing this module imports numba, so callers import it where they need it."""

from __future__ import annotations

from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def cross(ax, ay, az, bx, by, bz):
    """Cross product a x b."""
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@njit(**_OPTIONS)
def edge_vectors(vertices, a, b, c):
    """b - a and c - a, as six numbers."""
    ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
    return (
        vertices[b, 0] - ax,
        vertices[b, 1] - ay,
        vertices[b, 2] - az,
        vertices[c, 0] - ax,
        vertices[c, 1] - ay,
        vertices[c, 2] - az,
    )


@njit(**_OPTIONS)
def add3(target, index, x, y, z):
    """target[index] += (x, y, z)."""
    target[index, 0] += x
    target[index, 1] += y
    target[index, 2] += z


@njit(**_OPTIONS)
def normal_sums(vertices, triangles, sums):
    """Add the area-weighted normals of all triangles to sums [b v 3]."""
    for image in range(len(vertices)):
        # Views are made outside of the inner loop: each one costs an atomic reference count.
        positions, target = vertices[image], sums[image]
        for triangle in range(len(triangles)):
            a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
            ux, uy, uz, vx, vy, vz = edge_vectors(positions, a, b, c)
            x, y, z = cross(ux, uy, uz, vx, vy, vz)
            add3(target, a, x, y, z)
            add3(target, b, x, y, z)
            add3(target, c, x, y, z)


@njit(**_OPTIONS)
def normal_sums_backward(vertices, triangles, grad_sums, grad_vertices):
    """Add the gradient of `normal_sums` to grad_vertices [b v 3]."""
    for image in range(len(vertices)):
        positions, grad, target = vertices[image], grad_sums[image], grad_vertices[image]
        for triangle in range(len(triangles)):
            a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
            gx = grad[a, 0] + grad[b, 0] + grad[c, 0]
            gy = grad[a, 1] + grad[b, 1] + grad[c, 1]
            gz = grad[a, 2] + grad[b, 2] + grad[c, 2]
            ux, uy, uz, vx, vy, vz = edge_vectors(positions, a, b, c)
            # d(u x v) . g = du . (v x g) + dv . (g x u)
            bx, by, bz = cross(vx, vy, vz, gx, gy, gz)
            cx, cy, cz = cross(gx, gy, gz, ux, uy, uz)
            add3(target, b, bx, by, bz)
            add3(target, c, cx, cy, cz)
            add3(target, a, -bx - cx, -by - cy, -bz - cz)
