"""Camera, lighting and a differentiable renderer for CPU and CUDA."""

from focus_backend.rendering.camera import Camera, axis_angle_from_rotation, rotation_from_axis_angle
from focus_backend.rendering.lighting import ambient_lighting, decode_srgb, encode_srgb, shade, spherical_harmonics
from focus_backend.rendering.rasterize import barycentric_coordinates, rasterize
from focus_backend.rendering.renderer import Rendering, VisibleSurface, rasterize_model, render, render_mesh
from focus_backend.rendering.topology import MeshTopology

__all__ = [
    "Camera",
    "MeshTopology",
    "Rendering",
    "VisibleSurface",
    "ambient_lighting",
    "axis_angle_from_rotation",
    "barycentric_coordinates",
    "decode_srgb",
    "encode_srgb",
    "rasterize",
    "rasterize_model",
    "render",
    "render_mesh",
    "rotation_from_axis_angle",
    "shade",
    "spherical_harmonics",
]
