"""The folder of prepared faces.

    prepared.json        what the crops have in common: format, model, detector, sizes, frame (`FolderDescription`)
    index.jsonl          a line a photo (`PhotoRecord`), written after its crops: what it names is there and whole
    crops/ab/ab…-0.jpg   stored crop of face 0 of the photo whose sha256 is ab…
    crops/ab/ab…-0.png   its true mask, 1 bit, where there is one
    bad.jsonl            a line a photo that could not be used: {"photo", "code", "reason", "remedy", "fingerprint"}

Lines are only ever added, so a run that is killed at any moment loses the photos in work and nothing else; a torn last line is cut
off by the next run. A later line of the same photo replaces an earlier one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from focus_backend.errors import ConfigError, OutputError
from focus_backend.photo_paths import printable
from train.data.photos import SPLITS, Split

DESCRIPTION, INDEX, BAD, CROPS = "prepared.json", "index.jsonl", "bad.jsonl", "crops"
FORMAT_VERSION = 1
PREPARE = "prepare the photos with `focus-backend train prepare`"
_Point = tuple[float, float]


class FolderDescription(BaseModel):
    """What all crops of a folder have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["focus-prepared-faces"] = "focus-prepared-faces"
    version: int = FORMAT_VERSION
    model: str
    model_sha256: str
    detector: str
    detector_version: str
    # Pixels a side of the crop that training sees, and of the stored one around it.
    size: int = Field(ge=16, le=4096)
    stored: int = Field(ge=16, le=8192)
    # Of the frame, mm in model space.
    centre: tuple[float, float, float]
    five_points: tuple[tuple[float, float, float], ...]
    all_faces: bool = False


class FaceRecord(BaseModel):
    """One face."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Pixels of the stored crop.
    landmarks: tuple[_Point, ...] = Field(min_length=68, max_length=68)
    # Affine map of the stored crop's pixels to photo pixels, row by row.
    to_photo: tuple[float, float, float, float, float, float]
    score: float
    has_mask: bool


class PhotoRecord(BaseModel):
    """One photo whose faces are prepared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Path below the source's folder.
    photo: str
    # Changes with size or date of the photo's files.
    fingerprint: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    # Of the files of its mask; empty without.
    mask_sha256: str = Field(pattern="^([0-9a-f]{64})?$")
    split: Split
    tags: tuple[str, ...] = ()
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    faces: tuple[FaceRecord, ...]

    def files(self, folder: Path) -> list[Path]:
        """Everything that belongs to the photo."""
        crops = [crop_path(folder, self.sha256, number) for number in range(len(self.faces))]
        return crops + [mask_path(folder, self.sha256, number) for number, face in enumerate(self.faces) if face.has_mask]


def crop_path(folder: Path, sha256: str, number: int) -> Path:
    """The stored crop of a face of the photo with that hash."""
    return folder / CROPS / sha256[:2] / f"{sha256}-{number}.jpg"


def mask_path(folder: Path, sha256: str, number: int) -> Path:
    """The mask of that face."""
    return crop_path(folder, sha256, number).with_suffix(".png")


def read_description(folder: Path) -> FolderDescription:
    """What is in a prepared folder.

    Raises:
        ConfigError: it is not one, or of another version.
    """
    where = printable(str(folder))
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
    except OSError:
        raise ConfigError(f"{where} holds no prepared faces", PREPARE) from None
    except ValueError:
        text = ""
    try:
        found = FolderDescription.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{where}/{DESCRIPTION} is damaged ({_first_line(error)})", PREPARE + " into a new folder") from None
    if found.version != FORMAT_VERSION:
        raise ConfigError(f"{where} was prepared in version {found.version} of the format, not {FORMAT_VERSION}", PREPARE + " again")
    return found


def read_index(folder: Path) -> dict[str, PhotoRecord]:
    """The photos of a prepared folder by name, the last line of each.

    Raises:
        ConfigError: a line is damaged; a torn last one is not.
    """
    found: dict[str, PhotoRecord] = {}
    for number, line in enumerate(whole_lines(folder / INDEX), 1):
        try:
            record = PhotoRecord.model_validate_json(line)
        except ValidationError as error:
            problem = f"line {number} of {printable(str(folder / INDEX))} is damaged ({_first_line(error)})"
            raise ConfigError(problem, "delete that line and prepare the photos again") from None
        found[record.photo] = record
    return found


def distinct_photos(index: dict[str, PhotoRecord]) -> list[PhotoRecord]:
    """Each photo once, sorted by name; one that is also in test or val under another name is not for training."""
    kept: dict[str, PhotoRecord] = {}
    for record in sorted(index.values(), key=lambda record: (-SPLITS.index(record.split), record.photo)):
        kept.setdefault(record.sha256, record)
    return sorted(kept.values(), key=lambda record: record.photo)


def whole_lines(path: Path) -> Iterator[str]:
    """The lines of a journal, a torn last one left out; nothing when there is no file."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and line.strip():
                    yield line.decode("utf-8", "replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{printable(str(path))} cannot be read: {error.strerror or error}", "check the disk") from None


def append_line(path: Path, document: dict[str, Any]) -> None:
    """Adds a line in one write.

    Raises:
        OutputError: it cannot be written.
    """
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
    with writing(path), path.open("ab", buffering=0) as file:
        file.write(line.encode())


def cut_torn_line(path: Path) -> None:
    """Takes away what a killed run left of a line.

    Raises:
        OutputError: the file cannot be changed.
    """
    if not path.exists():
        return
    with writing(path), path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """File-system errors as one clear line."""
    try:
        yield
    except OSError as error:
        where = printable(str(path))
        raise OutputError(f"{where} cannot be written: {error.strerror or error}", "check the disk, or choose another folder") from error


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
