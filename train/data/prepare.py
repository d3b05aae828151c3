"""Photos to stored crops, landmarks and masks, once, before training: `focus-backend train prepare`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from focus_backend.errors import ConfigError, FocusError, NoFaceError, OutputError, PhotoError
from focus_backend.files import write_whole
from focus_backend.landmarks import DEFAULT_DETECTOR, LandmarkDetector, create_detector
from focus_backend.landmarks.calibration_store import calibration_for
from focus_backend.landmarks.landmarks68 import Landmarks68
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.frame import CropFrame
from focus_backend.photo_paths import printable
from train.data import index
from train.data.augment import stored_size
from train.data.crops import CropSettings
from train.data.index import FolderDescription, PhotoRecord
from train.data.photos import PhotoSource, SourcePhoto
from train.data.workers import Answer, Job, answers

# A photo that failed so fails again as long as its files are the same.
_LASTING = (PhotoError.code, NoFaceError.code)


@dataclass(frozen=True)
class PhotoReport:
    """How one photo ended.

    Attributes:
        photo: its name in the source.
        number, total: it is the `number`-th of all photos of the source.
        faces: prepared from it.
        error: why it could not be used.
    """

    photo: str
    number: int
    total: int
    faces: int = 0
    error: FocusError | None = None


@dataclass
class PrepareSummary:
    """What a run has done.

    Attributes:
        photos: in the source.
        done: prepared by this run.
        known: prepared before.
        bad: that could not be used, now or before.
        faces: of each split, in the whole folder, each photo once.
        seconds: the run took.
    """

    photos: int
    done: int = 0
    known: int = 0
    bad: int = 0
    faces: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def prepare(
    source: PhotoSource,
    out: Path,
    model: FaceModel,
    detector_name: str = DEFAULT_DETECTOR,
    *,
    size: int = 224,
    workers: int = 1,
    resume: bool = True,
    all_faces: bool = False,
    report: Callable[[PhotoReport], None] = lambda report: None,
) -> PrepareSummary:
    """Cuts out the faces of a source's photos; the layout of `out` is told in `train.data.index`.

    A photo that cannot be used is noted in `bad.jsonl` and the rest is done. A run that was stopped, however, goes on where it was.

    Args:
        source: the photos.
        out: folder for the crops.
        model: face model whose frame and landmarks are meant.
        detector_name: of the landmark detector.
        size: pixels of the crops that training sees; more around them are kept for the augmentations.
        workers: processes; 1 works in this one.
        resume: go on with what is in `out`; else start over.
        all_faces: of a photo, not only its largest; with masks it is always the largest.
        report: is told of each photo that was worked on.

    Raises:
        ConfigError: the source is empty or laid out otherwise, or `out` was prepared for something else.
        NoFaceError: no photo of the source has a face that can be used.
        OutputError: `out` cannot be written, or holds other files.
        LandmarkError, MissingDependencyError: the detector cannot be used.
    """
    started = time.perf_counter()
    photos = source.photos()
    detector = create_detector(detector_name)
    settings = crop_settings(model, detector, size, all_faces)
    folder = _Folder.opened(out, describe(model, detector, settings), resume)
    summary = PrepareSummary(len(photos))
    todo = []
    for photo in photos:
        status = folder.status(photo)
        summary.known += status == "known"
        summary.bad += status == "bad"
        todo += [photo] if status == "new" else []
    job = Job(settings, detector_name, out, frozenset(folder.by_content))
    for photo, answer in answers(todo, job, workers):
        folder.add(photo, answer)
        summary.bad += answer.error is not None
        summary.known += answer.is_known
        summary.done += answer.error is None and not answer.is_known
        number = summary.bad + summary.known + summary.done
        report(PhotoReport(photo.name, number, len(photos), 0 if answer.faces is None else len(answer.faces), answer.error))
    summary.faces = dict(Counter(record.split for record in index.distinct_photos(folder.index) for _ in record.faces))
    summary.seconds = time.perf_counter() - started
    if not summary.faces:
        where = printable(str(source.root))
        raise NoFaceError(f"none of the {len(photos)} photos in {where} can be used", f"see the reasons in {out / index.BAD}")
    return summary


def crop_settings(model: FaceModel, detector: LandmarkDetector, size: int, all_faces: bool = False) -> CropSettings:
    """What the crops of a model have in common.

    Raises:
        LandmarkError: the detector's points have no place on the model.
    """
    frame = CropFrame.of(model.to("cpu"), size)
    landmarks68 = Landmarks68.of(model, calibration_for(model, detector))
    centre, five = (tensor.double().numpy() for tensor in (frame.centre, frame.five_points))
    return CropSettings(size, stored_size(size), centre, five, landmarks68, all_faces)


def describe(model: FaceModel, detector: LandmarkDetector, settings: CropSettings) -> FolderDescription:
    """The description of a folder of such crops."""
    return FolderDescription(
        model=model.name,
        model_sha256=model.metadata.get("sha256", ""),
        detector=detector.name,
        detector_version=detector.version,
        size=settings.size,
        stored=settings.stored,
        centre=_rounded(settings.centre),
        five_points=tuple(_rounded(point) for point in settings.five_points),
        all_faces=settings.all_faces,
    )


def _rounded(point: np.ndarray) -> tuple[float, float, float]:
    # Micrometres, so that another machine's last bits are no other frame.
    x, y, z = (round(float(value), 3) for value in point)
    return x, y, z


@dataclass
class _Folder:
    """A prepared folder that is being written.

    Attributes:
        path: of the folder.
        index: records by the photo's name.
        bad: fingerprints of photos that cannot be used, by name.
        by_content: by hashes of photo and mask, records of earlier runs whose files are all there.
    """

    path: Path
    index: dict[str, PhotoRecord]
    bad: dict[str, str]
    by_content: dict[tuple[str, str], PhotoRecord]

    @classmethod
    def opened(cls, path: Path, description: FolderDescription, resume: bool) -> _Folder:
        """The folder with what it has already; made where there is none."""
        is_new = not (path / index.DESCRIPTION).exists()
        if is_new:
            _check_empty(path)
        elif resume:
            _check_same(path, index.read_description(path), description)
        else:
            _clear(path)
        if is_new or not resume:
            write_whole(path / index.DESCRIPTION, description.model_dump_json(indent=1).encode())
        for name in (index.INDEX, index.BAD):
            index.cut_torn_line(path / name)
        _remove_leftovers(path)
        found = index.read_index(path)
        whole = {(r.sha256, r.mask_sha256): r for r in found.values() if all(file.is_file() for file in r.files(path))}
        return cls(path, found, _read_bad(path), whole)

    def status(self, photo: SourcePhoto) -> str:
        """Whether a photo is "new", "known" or "bad" already; its split and tags are brought up to date."""
        name, mark = printable(photo.name), fingerprint(photo)
        if self.bad.get(name) == mark:
            return "bad"
        record = self.index.get(name)
        if record is None or record.fingerprint != mark or (record.sha256, record.mask_sha256) not in self.by_content:
            return "new"
        if (record.split, record.tags) != (photo.split, photo.tags):
            self._append(record.model_copy(update={"split": photo.split, "tags": photo.tags}))
        return "known"

    def add(self, photo: SourcePhoto, answer: Answer) -> None:
        """Notes how a photo ended."""
        name, mark = printable(photo.name), fingerprint(photo)
        if answer.error is not None:
            error = answer.error
            line = {"photo": name, "code": error.code, "reason": error.problem, "remedy": error.remedy, "fingerprint": mark}
            index.append_line(self.path / index.BAD, line)
            self.bad[name] = mark
            return
        common: dict[str, Any] = {"photo": name, "fingerprint": mark, "split": photo.split, "tags": photo.tags}
        if answer.faces is None:
            self._append(self.by_content[answer.sha256, answer.mask_sha256].model_copy(update=common))
            return
        hashes: dict[str, Any] = {"sha256": answer.sha256, "mask_sha256": answer.mask_sha256}
        self._append(PhotoRecord(**common, **hashes, width=answer.width, height=answer.height, faces=answer.faces))

    def _append(self, record: PhotoRecord) -> None:
        index.append_line(self.path / index.INDEX, record.model_dump())
        self.index[record.photo] = record


def fingerprint(photo: SourcePhoto) -> str:
    """Size and date of a photo's files, those of its mask included; changes when one is replaced."""
    parts = [_size_and_date(path) for path in (photo.path, *(photo.mask.files if photo.mask else ()))]
    head = f"{parts[0][0]}-{parts[0][1]}"
    return head if len(parts) == 1 else f"{head}-{len(parts)}-{sum(size for size, _ in parts)}-{max(date for _, date in parts)}"


def _size_and_date(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _check_empty(path: Path) -> None:
    """Nothing is mixed with files that are not ours."""
    with index.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        foreign = sorted(name for name in os.listdir(path) if not name.startswith("."))
    if foreign:
        raise OutputError(f"{printable(str(path))} holds other files, such as {printable(foreign[0])}", "choose another folder")


def _check_same(path: Path, found: FolderDescription, wanted: FolderDescription) -> None:
    if found == wanted:
        return
    different = [name for name in FolderDescription.model_fields if getattr(found, name) != getattr(wanted, name)]
    name = different[0]
    values = f"{name} {getattr(found, name)}, not {getattr(wanted, name)}"
    raise ConfigError(f"{printable(str(path))} was prepared for {values}", "choose another folder, or start over without resuming")


def _clear(path: Path) -> None:
    """Takes away what an earlier run has written, the description last: without it the rest would be foreign."""
    with index.writing(path):
        for name in (index.INDEX, index.BAD):
            (path / name).unlink(missing_ok=True)
        if (path / index.CROPS).is_dir():
            shutil.rmtree(path / index.CROPS)


def _remove_leftovers(path: Path) -> None:
    """Half-written files of a run that was killed."""
    for file in (*path.glob(".prepared.json.*"), *(path / index.CROPS).glob("*/.*")):
        file.unlink(missing_ok=True)


def _read_bad(path: Path) -> dict[str, str]:
    """Fingerprints of photos that need not be tried again; the list is cut down to these."""
    kept: dict[str, dict] = {}
    for line in index.whole_lines(path / index.BAD):
        # A damaged line costs nothing but another try.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            document = json.loads(line)
            if document["code"] in _LASTING and document["fingerprint"]:
                kept[document["photo"]] = document
    _write_bad(path, kept.values())
    return {name: document["fingerprint"] for name, document in kept.items()}


def _write_bad(path: Path, documents: Iterable[dict]) -> None:
    text = "".join(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n" for document in documents)
    if text or (path / index.BAD).exists():
        write_whole(path / index.BAD, text.encode())
