"""From vertices, albedo, lighting and camera to a picture of the face (the decoder's last step in FOCUS.md)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.rendering.antialias import antialias
from focus_backend.rendering.camera import Camera
from focus_backend.rendering.execution import Execution, is_compiled
from focus_backend.rendering.normals import vertex_normals
from focus_backend.rendering.rasterize import Backend, barycentric_coordinates, rasterize
from focus_backend.rendering.shading import shade_pixels
from focus_backend.rendering.topology import MeshTopology, Region


@dataclass(frozen=True)
class Rendering:
    """A batch of rendered faces. Every map but `image` is zero, and `triangle_ids` -1, where `mask` is false.

    Attributes:
        image: sRGB-encoded, not clamped; the background, or black, outside the mask, blended with the face at its edges when antialiased.
        mask: pixels whose centre shows the region.
        albedo: linear RGB.
        normals: unit, camera space.
        triangle_ids: index into the mesh's triangles.
        barycentric: perspective-correct weights of that triangle's corners.
        depth: -z in camera space, mm.
    """

    image: Float[Tensor, "b h w 3"]
    mask: Bool[Tensor, "b h w"]
    albedo: Float[Tensor, "b h w 3"]
    normals: Float[Tensor, "b h w 3"]
    triangle_ids: Int[Tensor, "b h w"]
    barycentric: Float[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]


@dataclass(frozen=True)
class VisibleSurface:
    """What is seen at each pixel, without gradients: -1 and 0 outside the region.

    Attributes:
        triangle_ids: index into the mesh's triangles.
        barycentric: perspective-correct weights of that triangle's corners.
    """

    triangle_ids: Int[Tensor, "b h w"]
    barycentric: Float[Tensor, "b h w 3"]

    @property
    def mask(self) -> Bool[Tensor, "b h w"]:
        """Pixels whose centre shows the region."""
        return self.triangle_ids >= 0


def render(
    model: FaceModel,
    vertices: Float[Tensor, "b v 3"],
    albedo: Float[Tensor, "b rows columns 3"],
    lighting: Float[Tensor, "b 9 3"],
    camera: Camera,
    *,
    region: Region = "face",
    background: Float[Tensor, "b h w 3"] | None = None,
    antialiased: bool = True,
    backend: Backend = "auto",
    execution: Execution = "auto",
) -> Rendering:
    """Render faces; differentiable in vertices, albedo, lighting, camera and background.

    The whole head hides what is behind it; only the region is shown. Parts that are not in front of the camera are not drawn, and nothing
    is raised for them: use `Camera.project` to find out. How edges get gradients is told in `rendering/antialias.py`; without `antialiased`
    the image has none there.

    Args:
        model: gives triangles, texture coordinates and the face region.
        vertices: model space, mm.
        albedo: linear RGB texture, row 0 at the top.
        lighting: spherical-harmonics coefficients x RGB, camera space.
        camera: one, or one for each image.
        region: "face", or "head" to show the whole mesh.
        background: sRGB picture behind the face; black without.
        antialiased: blend silhouettes.
        backend: of `rasterize`.
        execution: of all else: compiled for the CPU, or dense torch, by which nothing on CUDA waits for the device.
    """
    topology = MeshTopology.of(model, region)
    return render_mesh(topology, vertices, albedo, lighting, camera, background, antialiased, backend, execution)


def render_mesh(
    topology: MeshTopology,
    vertices: Float[Tensor, "b v 3"],
    albedo: Float[Tensor, "b rows columns 3"],
    lighting: Float[Tensor, "b 9 3"],
    camera: Camera,
    background: Float[Tensor, "b h w 3"] | None = None,
    antialiased: bool = True,
    backend: Backend = "auto",
    execution: Execution = "auto",
) -> Rendering:
    """`render` for any mesh with texture coordinates; its vertices in the frame that the camera calls model space."""
    batch = len(vertices)
    camera = camera.batched(batch)
    in_camera = camera.to_camera_space(vertices)
    points = camera.to_screen(in_camera)
    head_ids = rasterize(points, topology.triangles, camera.height, camera.width, cull_backfaces=True, backend=backend)
    ids = show_region(head_ids, topology, execution)
    normals = vertex_normals(in_camera, topology.triangles, execution)
    albedo = albedo.expand(batch, -1, -1, -1)
    shaded = shade_pixels(points, normals, albedo, lighting.expand(batch, -1, -1), ids, topology, execution)
    mask = ids >= 0
    image = shaded.image
    if background is not None:
        image = torch.where(mask[..., None], image, background)
    if antialiased:
        image = antialias(image, points, head_ids, topology, execution)
    return Rendering(image, mask, shaded.albedo, shaded.normals, ids, shaded.barycentric, shaded.depth)


def show_region(ids: Int[Tensor, "b h w"], topology: MeshTopology, execution: Execution = "auto") -> Int[Tensor, "b h w"]:
    """The ids, -1 where the triangle is not of the region."""
    if is_compiled(ids, execution):
        from focus_backend.rendering.kernels_raster import keep_region

        shown = torch.empty_like(ids)
        keep_region(ids.numpy(), topology.in_region.numpy(), shown.numpy())
        return shown
    # The extra last entry is what -1 looks up.
    is_shown = torch.cat([topology.in_region, topology.in_region.new_zeros(1)])
    return torch.where(is_shown[ids], ids, -1)


@torch.no_grad()
def rasterize_model(
    model: FaceModel,
    vertices: Float[Tensor, "b v 3"],
    camera: Camera,
    *,
    region: Region = "face",
    backend: Backend = "auto",
) -> VisibleSurface:
    """Triangle and barycentric coordinates seen at each pixel, as `render` has them, quickly and without gradients.

    Args:
        model: gives triangles and the face region.
        vertices: model space, mm.
        camera: one, or one for each image.
        region: "face", or "head" for the whole mesh.
        backend: of `rasterize`.
    """
    topology = MeshTopology.of(model, region)
    camera = camera.batched(len(vertices))
    points = camera.to_screen(camera.to_camera_space(vertices))
    ids = rasterize(points, topology.triangles, camera.height, camera.width, cull_backfaces=True, backend=backend)
    ids = show_region(ids, topology)
    return VisibleSurface(ids, locate(points, topology.triangles, ids))


def locate(points: Float[Tensor, "b v 3"], triangles: Int[Tensor, "f 3"], ids: Int[Tensor, "b h w"]) -> Float[Tensor, "b h w 3"]:
    """`barycentric_coordinates` without gradients: compiled on the CPU, torch elsewhere."""
    if points.device.type != "cpu":
        return barycentric_coordinates(points.detach(), triangles, ids)
    from focus_backend.rendering.kernels_shading import locate_kernel

    barycentric = points.new_zeros(*ids.shape, 3)
    arrays = (points.detach().contiguous(), triangles.int().contiguous(), ids.contiguous())
    locate_kernel(*(value.numpy() for value in arrays), barycentric.numpy())
    return barycentric
