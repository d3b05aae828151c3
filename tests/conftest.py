"""Shared parts: a small but whole face model, and a reconstruction with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus_backend.morphable.face_model import FaceModel, SurfacePoints

ARKIT_EXPRESSIONS = 52
# Constants of `fitting`: rounds, and sides of crops in pixels.
BRIEF_FIT = {
    **dict.fromkeys(("TRIAL_HELD_ROUNDS", "TRIAL_ROUNDS", "COARSE_ROUNDS", "FINE_ROUNDS"), 1),
    "COARSE": 64,
    "FINE": 80,
    "MASK": 112,
}
_COLUMNS, _ROWS = 16, 11
_RADII = np.array([70.0, 105.0, 90.0])

# Most time is spent in these files. They come first, so that no process begins with one when the others are done.
_LONG_FILES = (
    "tests/blender_addon/test_in_blenders.py",
    "tests/reconstruction/test_fitting.py",
    "tests/reconstruction/test_reconstructor.py",
    "tests/train/test_trainer.py",
    "tests/train/data/test_prepare.py",
    "tests/test_export_meshes.py",
    "tests/commands/test_server_end_to_end.py",
    "tests/blender_addon/test_session_real.py",
    "tests/train/test_recognition.py",
    "tests/train/test_prepared_training.py",
    "tests/landmarks/test_calibration.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first, all others in their order after them."""
    places = {name: place for place, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def _ellipsoid() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Head-sized ellipsoid: vertices (mm, origin between the eyes), quads (poles padded), their UV with a seam at the back."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, _ROWS)[1:-1]
    longitude = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    ring = np.stack(np.meshgrid(longitude, latitude), -1).reshape(-1, 2)
    across, up = ring[:, 0], ring[:, 1]
    directions = np.stack([np.cos(up) * np.sin(across), np.sin(up), np.cos(up) * np.cos(across)], 1)
    directions = np.concatenate([directions, [[0, -1, 0], [0, 1, 0]]])
    vertices = directions * _RADII - [0, 0, _RADII[2]]
    u, v = np.meshgrid(np.arange(_COLUMNS + 1) / _COLUMNS, np.arange(_ROWS) / (_ROWS - 1))
    uv = 0.02 + 0.96 * np.stack([u, v], -1).reshape(-1, 2)
    quads, quad_uv = [], []
    for row in range(_ROWS - 2):
        for column in range(_COLUMNS):
            following = (column + 1) % _COLUMNS
            # UV rows count the poles too, and have one more column where the seam closes.
            low, high = (row + 1) * (_COLUMNS + 1) + column, (row + 2) * (_COLUMNS + 1) + column
            if row < _ROWS - 3:
                here, above = row * _COLUMNS, (row + 1) * _COLUMNS
                quads.append([here + column, here + following, above + following, above + column])
                quad_uv.append([low, low + 1, high + 1, high])
            if row == 0:
                quads.append([following, column, len(vertices) - 2, -1])
                quad_uv.append([low + 1, low, column, -1])
            if row == _ROWS - 3:
                quads.append([row * _COLUMNS + column, row * _COLUMNS + following, len(vertices) - 1, -1])
                quad_uv.append([low, low + 1, high, -1])
    return vertices, np.array(quads), uv, np.array(quad_uv)


def _points_towards(model_vertices: torch.Tensor, triangles: torch.Tensor, targets: torch.Tensor, names: list[str]) -> SurfacePoints:
    """Centres of the triangles nearest to `targets` in x and y, on the front."""
    centres = model_vertices[triangles].mean(1)
    flat = torch.cdist(targets, centres[:, :2]) + 1000.0 * (centres[:, 2] < -_RADII[2])
    return SurfacePoints(tuple(names), flat.argmin(1), torch.full((len(targets), 3), 1 / 3))


def make_tiny_model(shapes: int = 5, expressions: int = ARKIT_EXPRESSIONS, albedos: int = 4, texture_size: int = 32) -> FaceModel:
    """A face model of some 150 vertices with smooth random bases; everything a real one has, nothing to wait for."""
    random = torch.Generator().manual_seed(0)
    vertices, quads, uv, quad_uv = _ellipsoid()
    mean = torch.tensor(vertices, dtype=torch.float32)
    waves = torch.sin(mean / 40 + 1)
    texels = torch.arange(texture_size**2)
    rows, columns = texels // texture_size, texels % texture_size
    albedo_waves = torch.stack([torch.sin(rows / 5), torch.cos(columns / 7), torch.sin((rows + columns) / 9)], -1)
    model = FaceModel(
        name="tiny",
        mean_shape=mean,
        shape_basis=waves @ torch.randn(shapes, 3, 3, generator=random),
        expression_basis=waves @ torch.randn(expressions, 3, 3, generator=random) * 0.5,
        expression_scale=torch.linspace(0.1, 0.3, expressions),
        expression_names=tuple(f"expression{i:02d}" for i in range(expressions)),
        quads=torch.tensor(quads),
        quad_uv=torch.tensor(quad_uv),
        uv=torch.tensor(uv, dtype=torch.float32),
        quad_in_face=mean[torch.tensor(quads).clamp(min=0)][:, :, 2].mean(1) > -60,
        texture_size=texture_size,
        texels=texels,
        albedo_mean=torch.tensor([0.45, 0.27, 0.19]).expand(len(texels), 3).clone(),
        albedo_basis=0.02 * albedo_waves * torch.randn(albedos, 1, 3, generator=random),
        landmarks68=SurfacePoints((), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3)),
        now_landmarks=SurfacePoints((), torch.zeros(0, dtype=torch.long), torch.zeros(0, 3)),
        metadata={"sha256": "0" * 64, "source": "tests"},
    )
    return _with_landmarks(model)


def _with_landmarks(model: FaceModel) -> FaceModel:
    """The 7 NoW points where a face has them, and 68 points spread over its front."""
    seven = torch.tensor([[-45.0, 0], [-15, 0], [15, 0], [45, 0], [0, -40], [-25, -65], [25, -65]])
    names = ["right_eye_outer", "right_eye_inner", "left_eye_inner", "left_eye_outer", "nose_bottom", "mouth_right", "mouth_left"]
    spread = torch.stack([50 * torch.cos(torch.arange(68) * 0.7), -30 + 60 * torch.sin(torch.arange(68) * 0.3)], 1)
    values = dict(vars(model))
    values.pop("triangles", None)
    triangles = model.triangles
    values["now_landmarks"] = _points_towards(model.mean_shape, triangles, seven, names)
    values["landmarks68"] = _points_towards(model.mean_shape, triangles, spread, [f"landmark{i:02d}" for i in range(68)])
    values = {name: values[name] for name in FaceModel.__dataclass_fields__}
    return FaceModel(**values)


@pytest.fixture(scope="session")
def tiny_model() -> FaceModel:
    """A face model of some 150 vertices with 52 expressions."""
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_reconstruction(tiny_model: FaceModel):
    """A reconstruction with the tiny model, its pictures drawn by plain geometry."""
    return make_reconstruction(tiny_model)


def make_reconstruction(model: FaceModel, name: str = "portrait.jpg", size: tuple[int, int] = (240, 200), seed: int = 1):
    """A consistent reconstruction of random coefficients; `size` is height, width."""
    # Late, so that tests of single modules start without the whole package.
    from focus_backend.reconstruction.result import Reconstruction
    from focus_backend.rendering.camera import Camera

    random = torch.Generator().manual_seed(seed)
    height, width = size
    shape, expression, albedo = (torch.randn(n, generator=random) for n in (model.shape_size, model.expression_size, model.albedo_size))
    camera = Camera(
        torch.eye(3), torch.tensor([0.0, 0.0, -600.0]), torch.tensor(500.0), torch.tensor([width / 2, height / 2]), width, height
    )
    rows, columns = np.mgrid[:height, :width] + 0.5
    face = ((columns - width / 2) / (0.3 * width)) ** 2 + ((rows - height / 2) / (0.35 * height)) ** 2 < 1
    photo = np.stack([columns / width, rows / height, np.full_like(rows, 0.5)], -1) * 255
    neutral = model.decode_shape(shape)
    texture = (model.decode_albedo(albedo).clamp(0, 1) ** (1 / 2.2) * 255).byte().numpy()
    return Reconstruction(
        model=model,
        photo_name=name,
        photo=photo.astype(np.uint8),
        face_index=0,
        shape=shape,
        expression=expression,
        albedo=albedo,
        lighting=torch.randn(9, 3, generator=random),
        camera=camera,
        landmarks={
            "detector": "user",
            "points": camera.project(model.landmarks68.on(neutral, model.triangles)),
            "names": list(model.landmarks68.names),
        },
        neutral_vertices=neutral,
        albedo_texture=texture,
        texture=255 - texture,
        face_mask=face & (rows < 0.7 * height),
        outlier_mask=face & (rows >= 0.7 * height),
        rendering=np.full((height, width, 3), (200, 150, 130), np.uint8),
        timings={"landmarks": 0.01, "fit": 2.5},
        detector="user",
    )


@pytest.fixture
def brief_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit does everything once that it does in rounds, on small crops: all of its code in a fraction of the time."""
    from focus_backend.reconstruction import fitting

    for name, value in BRIEF_FIT.items():
        monkeypatch.setattr(fitting, name, value)


class PlainReconstructor:
    """Stands in for the fit where a test is about files and batches: faces come from the file name, coefficients from a seed.

    `three_faces.jpg` has three faces, a name with `nobody` has none and a name with `crash` is a bug of ours.
    """

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        self.seen: list[str] = []
        self.landmarks = None

    def reconstruct(self, photo, *, landmarks=None, max_faces=None, progress=None):
        """One reconstruction a face, on the photo's own pixels."""
        import dataclasses

        from focus_backend.errors import NoFaceError

        self.seen.append(photo.name)
        self.landmarks = landmarks
        if progress is not None:
            progress("fit", 0.5)
        if "nobody" in photo.name:
            raise NoFaceError(f"no face in {photo.name}", "give landmarks with --landmarks-file")
        if "crash" in photo.name:
            raise ZeroDivisionError("a bug")
        faces = 3 if "three_faces" in photo.name else 1
        made = [make_reconstruction(self.model, photo.name, photo.pixels.shape[:2], seed) for seed in range(faces)]
        source = {"photo_sha256": photo.sha256, "original_size": photo.original_size, "warnings": photo.warnings}
        return [dataclasses.replace(face, photo=photo.pixels, face_index=i, **source) for i, face in enumerate(made)][:max_faces]


@pytest.fixture
def plain_reconstructor(tiny_model: FaceModel) -> PlainReconstructor:
    """A reconstructor without a fit."""
    return PlainReconstructor(tiny_model)
