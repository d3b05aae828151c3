"""The files that the NoW challenge takes: a mesh and seven landmarks a photo, under the photo's own path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from focus_backend.errors import FocusError
from train.evaluate.datasets import read_set
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import Mesh
from train.evaluate.results import Failure, ResultIndex, read_neutral
from train.evaluate.tables import write_file


@dataclass(frozen=True)
class Submission:
    """What was written, and which photos have no result; the challenge takes complete submissions only."""

    folder: Path
    written: tuple[str, ...]
    failed: tuple[Failure, ...]


def write_submission(dataset: Path, results: Path, out: Path, *, subset: str | None = None) -> Submission:
    """Write `out/<subject>/<challenge>/<photo>.obj` and `.txt` for every photo of the challenge.

    The mesh is the neutral one in millimetres, in triangles and without texture; the text has the seven landmarks, one a line, in the
    order right eye outer and inner, left eye inner and outer, nose bottom, right and left mouth corner.

    Args:
        dataset: the NoW folder, which names the photos; scans are not needed.
        results: what `focus-backend reconstruct` wrote for them.
        out: a folder for the files.
        subset: "val" or "test"; without, "test".

    Raises:
        EvaluationError: not the layout of NoW, no results.
        OutputError: the files cannot be written.
    """
    photos = read_set(dataset, subset or "test")
    if photos.layout != "now":
        raise EvaluationError(f"{dataset} is not laid out as the NoW set", "give the folder with iphone_pictures")
    index = ResultIndex(results)
    written, failed = [], []
    for photo in photos.photos:
        folder = index.find(photo)
        if folder is None:
            failed.append(Failure(photo.name, "no result of this photo"))
            continue
        try:
            mesh, landmarks = read_neutral(folder)
            if not len(mesh.triangles):
                raise EvaluationError("the mesh has no faces")
        except FocusError as error:
            failed.append(Failure(photo.name, error.problem))
            continue
        write_file(out / f"{photo.name}.obj", triangle_obj(mesh))
        write_file(out / f"{photo.name}.txt", landmark_text(landmarks))
        written.append(photo.name)
    return Submission(out, tuple(written), tuple(failed))


def triangle_obj(mesh: Mesh) -> str:
    """An OBJ file of points and triangles alone, which every reader understands."""
    points = "".join(f"v {x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in mesh.vertices.tolist())
    return points + "".join(f"f {a} {b} {c}\n" for a, b, c in (mesh.triangles + 1).tolist())


def landmark_text(landmarks: Float[np.ndarray, "7 3"]) -> str:
    """One point a line."""
    return "".join(f"{x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in landmarks.tolist())
