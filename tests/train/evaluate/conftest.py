"""Small datasets and results on disk, with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from focus_backend.photo_paths import photo_hash
from train.evaluate.meshes import Mesh
from train.evaluate.submission import landmark_text, triangle_obj

SEVEN = np.array([[-45.0, 0, 0], [-15, 0, 5], [15, 0, 5], [45, 0, 0], [0, -40, 20], [-25, -65, 8], [25, -65, 8]])


def face_mesh(bend: float = 0.0, size: int = 25) -> Mesh:
    """A bumpy sheet around the seven landmarks; `bend` moves it by a wave of so many mm."""
    x, y = np.meshgrid(np.linspace(-100, 100, size), np.linspace(-120, 80, size))
    z = 40 - (x**2 + y**2) / 300 + 8 * np.sin(x / 17) * np.cos(y / 23) + 4 * np.sin(y / 11) + bend * np.sin(x / 9) * np.sin(y / 13)
    corner = np.arange(size * size).reshape(size, size)
    a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def write_photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (80, 64, 3), dtype=np.uint8))


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask.astype(np.uint8))


def write_scan(folder: Path, subject: str, mesh: Mesh) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{subject}.obj").write_text(triangle_obj(mesh))
    (folder / f"{subject}.lmk").write_text(landmark_text(SEVEN))


def write_result(folder: Path, photo: Path, mesh: Mesh, face: np.ndarray, outlier: np.ndarray, face_index: int = 0) -> None:
    """What an evaluation reads of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "photo": {"name": photo.name, "sha256": photo_hash(photo)},
        "face_index": face_index,
        "now_landmarks": SEVEN.tolist(),
        "camera": {"rotation": [[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]]},
    }
    (folder / "result.json").write_text(json.dumps(document))
    (folder / "neutral.obj").write_text(triangle_obj(mesh))
    write_mask(folder / "face_mask.png", face * 255)
    write_mask(folder / "outlier_mask.png", outlier * 255)
    cv2.imwrite(str(folder / "report.jpg"), np.full((40, 160, 3), 90, np.uint8))


def halves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, face and outlier mask of an 80 x 64 photo: the face is found but for its lower quarter."""
    truth = np.zeros((80, 64), np.uint8)
    truth[:60, 8:56] = 255
    region = np.zeros((80, 64), bool)
    region[:70, 8:56] = True
    face = region.copy()
    face[45:] = False
    return truth, face, region & ~face


def write_world(root: Path, bends: dict[str, float], yaws: tuple[float, ...] = (5.0, -50.0)) -> tuple[Path, Path]:
    """A dataset in our layout with two photos a subject, and results whose heads are bent by so many mm."""
    dataset, results = root / "set", root / "results"
    truth, face, outlier = halves()
    lines = []
    for number, (subject, bend) in enumerate(bends.items()):
        write_scan(dataset / "scans", subject, face_mesh())
        for place, yaw in enumerate(yaws):
            name, kind = f"{subject}_{place}", ("plain", "glasses")[place % 2]
            write_photo(dataset / "photos" / f"{name}.png", 10 * number + place)
            write_mask(dataset / "masks" / f"{name}.png", truth)
            write_result(results / name, dataset / "photos" / f"{name}.png", face_mesh(bend), face, outlier)
            lines.append(f"{subject},{kind},{name}.png,{name}.png,{yaw},0.0,50.0,none")
    (dataset / "photos.csv").write_text("\n".join(lines) + "\n")
    return dataset, results


@pytest.fixture
def worlds() -> SimpleNamespace:
    """The functions above: test files cannot import this one."""
    functions = (face_mesh, write_photo, write_mask, write_scan, write_result, halves, write_world)
    return SimpleNamespace(seven=SEVEN, **{function.__name__: function for function in functions})


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    """Two people; the second one's head is wrong by waves of 2 mm."""
    return write_world(tmp_path, {"ann": 0.0, "bob": 2.0})
