"""The decoder: theta to a picture of the face in its crop (FOCUS.md, "Networks": 3DMM, posed mesh, differentiable rasterizer, shading)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.theta import Theta
from focus_backend.rendering import Camera, Rendering, render
from focus_backend.rendering.topology import Region


@dataclass(frozen=True)
class Decoded:
    """Faces of a theta.

    Attributes:
        vertices: model space, mm.
        albedo: linear RGB textures, row 0 at the top, not clamped.
        camera: of the crops.
        rendering: I_R and its region, channels last.
        landmarks: the 68 points, crop pixels.
    """

    vertices: Float[Tensor, "b v 3"]
    albedo: Float[Tensor, "b rows rows 3"]
    camera: Camera
    rendering: Rendering
    landmarks: Float[Tensor, "b 68 2"]


def decode(
    model: FaceModel,
    frame: CropFrame,
    theta: Theta,
    *,
    background: Float[Tensor, "b h w 3"] | None = None,
    antialiased: bool = True,
    region: Region = "face",
) -> Decoded:
    """Render faces in the crop's camera; differentiable in theta and background.

    Args:
        model: on theta's device.
        frame: of the crops.
        theta: the faces.
        background: sRGB picture behind the face; black without.
        antialiased: blend silhouettes, by which they get gradients.
        region: "face", or "head" to show the whole mesh.
    """
    vertices, albedo = model.decode(theta.shape, theta.expression, theta.albedo)
    camera = frame.camera(theta.rotation, theta.translation)
    rendering = render(model, vertices, albedo, theta.lighting, camera, region=region, background=background, antialiased=antialiased)
    return Decoded(vertices, albedo, camera, rendering, project_landmarks(model, vertices, camera))


def project_landmarks(model: FaceModel, vertices: Float[Tensor, "b v 3"], camera: Camera) -> Float[Tensor, "b 68 2"]:
    """The 68 points of faces in pixels; nothing is raised for points behind the camera."""
    points = camera.to_camera_space(model.landmarks68.on(vertices, model.triangles))
    return camera.to_screen(points)[..., :2]
