"""Finished results: which folder belongs to which photo, and what is read of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from focus_backend.export.folder import RESULT_FILE, read_result
from focus_backend.export.names import safe_name
from focus_backend.photo_paths import photo_hash, printable
from train.data.photos import MaskFiles
from train.evaluate.datasets import EvaluationPhoto
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import Mesh, check_landmarks, read_mesh


@dataclass(frozen=True)
class Failure:
    """A photo that has no usable result; it counts as a failure of the method and is named."""

    photo: str
    reason: str


@dataclass(frozen=True)
class _Found:
    folder: Path
    sha256: str
    face_index: int


class ResultIndex:
    """All results below a folder, found by the photo's bytes, or by name where the photo is not at hand.

    Raises:
        EvaluationError: there is no folder, or no result in it.
    """

    def __init__(self, results: Path) -> None:
        if not results.is_dir():
            raise EvaluationError(f"there is no folder {printable(str(results))}", "give the folder that `focus-backend reconstruct` wrote")
        results = results.resolve()
        self.root = results
        found = [_described(path.parent) for path in sorted(results.rglob(RESULT_FILE))]
        if not found:
            remedy = "give the folder that `focus-backend reconstruct` wrote"
            raise EvaluationError(f"{printable(str(results))} holds no result", remedy)
        # The largest face of a photo is the one that the photo is about.
        found.sort(key=lambda result: (result.face_index, str(result.folder)))
        self._by_hash: dict[str, list[_Found]] = {}
        self._by_name: dict[str, list[Path]] = {}
        for result in found:
            if result.sha256:
                self._by_hash.setdefault(result.sha256, []).append(result)
            self._by_name.setdefault(result.folder.relative_to(results).as_posix(), []).append(result.folder)

    def find(self, photo: EvaluationPhoto) -> Path | None:
        """The photo's result; None where there is none.

        Raises:
            EvaluationError: there are two, in different folders, so that nobody could say which is meant.
        """
        digest = photo_hash(photo.photo) if photo.photo.is_file() else None
        parts = photo.name.split("/")
        names = (photo.name, "/".join([*parts[:-1], safe_name(parts[-1])]), safe_name(parts[-1]))
        if digest is not None and digest in self._by_hash:
            return self._only_one(self._by_hash[digest], names)
        for name in names:
            folders = self._by_name.get(name, [])
            if folders and (digest is None or not self._is_other(folders[0], digest)):
                return folders[0]
        return None

    def _only_one(self, found: list[_Found], names: tuple[str, ...]) -> Path:
        """The result with the photo's name among those with its bytes, or the first: photos of one run may be copies of each other."""
        folders = [result.folder for result in found if result.face_index == found[0].face_index]
        if len({folder.parent for folder in folders}) > 1:
            first, second = (printable(str(folder)) for folder in folders[:2])
            raise EvaluationError(f"{first} and {second} are results of one photo", "give the folder of one run")
        return next((folder for folder in folders if folder.relative_to(self.root).as_posix() in names), folders[0])

    def _is_other(self, folder: Path, digest: str) -> bool:
        """Whether the result says that it is of a photo with other bytes: an older version, or another photo of that name."""
        document = read_result(folder) or {}
        source = document.get("photo")
        return isinstance(source, dict) and bool(source.get("sha256")) and source["sha256"] != digest


def _described(folder: Path) -> _Found:
    document = read_result(folder) or {}
    source = document.get("photo")
    sha256 = source.get("sha256") if isinstance(source, dict) else None
    index = document.get("face_index")
    return _Found(folder, sha256 if isinstance(sha256, str) else "", index if isinstance(index, int) else 0)


def read_document(folder: Path) -> dict[str, Any]:
    """`result.json` of a result.

    Raises:
        EvaluationError: it is missing or damaged.
    """
    document = read_result(folder)
    if document is None:
        raise EvaluationError(f"{printable(str(folder / RESULT_FILE))} is missing or damaged", "reconstruct the photo again")
    return document


def read_neutral(folder: Path) -> tuple[Mesh, Float[np.ndarray, "7 3"]]:
    """The neutral mesh and its seven NoW landmarks, model space.

    Raises:
        EvaluationError: one of them is missing or damaged.
    """
    document = read_document(folder)
    try:
        points = np.array(document["now_landmarks"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        problem = f"{printable(str(folder / RESULT_FILE))} has no now_landmarks"
        raise EvaluationError(problem, "reconstruct the photo again") from None
    return read_mesh(folder / "neutral.obj"), check_landmarks(points, printable(str(folder / RESULT_FILE)))


def read_masks(folder: Path) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """Face and outlier mask at photo size; together they are the rendered region.

    Raises:
        EvaluationError: one is missing or damaged, or they have different sizes.
    """
    face, outlier = (read_grey(folder / name) > 127 for name in ("face_mask.png", "outlier_mask.png"))
    if face.shape != outlier.shape:
        raise EvaluationError(f"the masks in {printable(str(folder))} differ in size", "reconstruct the photo again")
    return face, outlier


def read_grey(path: Path) -> UInt8[np.ndarray, "height width"]:
    """A picture as grey values.

    Raises:
        EvaluationError: it is missing or damaged.
    """
    # Not cv2.imread, which takes no other names than the system's code page has.
    try:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        raise EvaluationError(f"the picture {printable(str(path))} cannot be read", "check the file") from error
    if picture is None:
        raise EvaluationError(f"the picture {printable(str(path))} is damaged", "get or make it again")
    return picture


def read_truth(mask: MaskFiles, shape: tuple[int, ...]) -> UInt8[np.ndarray, "height width"]:
    """A ground-truth mask of three values: 255 visible face, 128 not judged, 0 other.

    Args:
        mask: one file alone may have all three values, others are black and white; values between go to the nearest.
        shape: height and width the photo has in the result; a mask of another size is scaled to it.

    Raises:
        EvaluationError: a file is missing or damaged, or of other proportions than the photo.
    """
    face = [_scaled(path, shape) for path in mask.face]
    if not mask.other and len(face) == 1:
        return np.where(face[0] > 191, 255, np.where(face[0] > 64, 128, 0)).astype(np.uint8)
    is_face = np.any([part > 127 for part in face], axis=0)
    for path in mask.other:
        is_face &= _scaled(path, shape) <= 127
    return is_face.astype(np.uint8) * 255


def _scaled(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "height width"]:
    values = read_grey(path)
    height, width = shape[:2]
    # A pixel's rounding is no other shape.
    if abs(values.shape[0] * width - values.shape[1] * height) > max(*values.shape, height, width):
        raise EvaluationError(f"the mask {printable(str(path))} has other proportions than its photo", "give masks of whole photos")
    return values if values.shape == (height, width) else cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
