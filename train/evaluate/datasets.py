"""Photos with ground truth, in every layout that is understood. See docs/evaluation.md."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from focus_backend.photo_paths import PHOTO_SUFFIXES, printable
from train.data.ar import MaskedPhotos
from train.data.celebamask import MASKS as CELEBA_MASKS
from train.data.celebamask import CelebAMaskHQ
from train.data.index import DESCRIPTION, crop_path, mask_path, read_index
from train.data.photos import MaskFiles, SourcePhoto
from train.evaluate.errors import EvaluationError
from train.evaluate.meshes import LANDMARK_SUFFIXES, MESH_SUFFIXES

Layout = Literal["table", "now", "celebamask", "prepared", "photos+masks", "masks"]
TABLE = "photos.csv"
TABLE_COLUMNS = ("subject", "kind", "photo", "mask", "yaw")
NOW_LISTS = {"val": "imagepathsvalidation.txt", "test": "imagepathstest.txt"}
SUBSETS = ("train", "val", "test", "all")
NOW_PHOTOS, NOW_SCANS, NOW_LANDMARKS = "iphone_pictures", "scans", ("scans_lmks_onlypp", "scans_lmks")
MASK_SUFFIXES = (".png", ".bmp", ".jpg")


@dataclass(frozen=True)
class EvaluationPhoto:
    """A photo and what is known of it; a path that is None is not part of the layout, one that is given may still be missing.

    Attributes:
        name: unique in its set: the stem, or the path below the photos' folder without its ending.
        photo: the file.
        subject: who it shows; empty where that is unknown.
        kind: the subset it belongs to, such as "glasses".
        yaw: of the head, degrees, positive to the subject's left; None where that is unknown.
        mask: ground truth; one file alone may be grey: 255 visible face, 128 not judged, 0 other.
        scan: the subject's neutral scan, mm.
        landmarks: the scan's seven NoW landmarks.
    """

    name: str
    photo: Path
    subject: str = ""
    kind: str = "all"
    yaw: float | None = None
    mask: MaskFiles | None = None
    scan: Path | None = None
    landmarks: Path | None = None


@dataclass(frozen=True)
class EvaluationSet:
    """The photos of a folder with ground truth."""

    folder: Path
    layout: Layout
    photos: tuple[EvaluationPhoto, ...]


def read_set(folder: Path, subset: str | None = None) -> EvaluationSet:
    """The photos of a dataset, whatever its layout.

    Args:
        folder: holds `photos.csv` (ours), `iphone_pictures` (NoW), `CelebAMask-HQ-mask-anno`, `prepared.json`, `photos` and `masks`,
            or is a folder of masks.
        subset: "train", "val", "test" or "all" where the layout has such; without, "val" of NoW, whose test scans are secret, "test" of
            CelebAMask-HQ, and all of the others.

    Raises:
        EvaluationError: no such folder, no known layout, or no photo in it.
        ConfigError: the layout is known but incomplete.
    """
    if not folder.is_dir():
        raise EvaluationError(f"there is no folder {_name(folder)}", "give the folder of a dataset")
    if subset is not None and subset not in SUBSETS:
        raise EvaluationError(f"there is no subset {subset!r}", f"give one of: {', '.join(SUBSETS)}")
    layout = _layout(folder)
    if layout == "table":
        photos = _read_table(folder)
    elif layout == "now":
        photos = _read_now(_now_root(folder) or folder, folder, subset or "val")
    elif layout == "celebamask":
        photos = _read_celebamask(folder, subset or "test")
    elif layout == "prepared":
        photos = _read_prepared(folder, subset or "all")
    else:
        photos = _read_photos_and_masks(folder) if layout == "photos+masks" else _read_masks(folder)
    if not photos:
        remedy = "give a folder with photos.csv, with iphone_pictures and scans (NoW), or with masks"
        raise EvaluationError(f"{_name(folder)} holds no photo with ground truth", remedy)
    _check_names(folder, photos)
    return EvaluationSet(folder, layout, tuple(photos))


def _check_names(folder: Path, photos: list[EvaluationPhoto]) -> None:
    seen: set[str] = set()
    for photo in photos:
        if photo.name in seen:
            raise EvaluationError(f"{_name(folder)} has two photos of the name {printable(photo.name)}", "give each its own name")
        seen.add(photo.name)


def _layout(folder: Path) -> Layout:
    if (folder / TABLE).is_file():
        return "table"
    if _now_root(folder) is not None:
        return "now"
    if (folder / CELEBA_MASKS).is_dir():
        return "celebamask"
    if (folder / DESCRIPTION).is_file():
        return "prepared"
    return "photos+masks" if (folder / "photos").is_dir() and (folder / "masks").is_dir() else "masks"


def _read_table(folder: Path) -> list[EvaluationPhoto]:
    """Our layout: photos.csv with photos/, masks/ and scans/; a head line is optional, a photo may lack a scan or a mask."""
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].lstrip().startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{_name(folder / TABLE)} cannot be read ({error})", "check the file") from error
    columns: tuple[str, ...] = TABLE_COLUMNS
    if rows and "photo" in [cell.strip().lower() for cell in rows[0]]:
        columns, rows = tuple(cell.strip().lower() for cell in rows[0]), rows[1:]
    return [_table_row(folder, dict(zip(columns, row, strict=False)), number) for number, row in enumerate(rows, 1)]


def _table_row(folder: Path, row: dict[str, str], number: int) -> EvaluationPhoto:
    photo, subject, mask = (row.get(key, "").strip() for key in ("photo", "subject", "mask"))
    try:
        yaw = float(row["yaw"]) if row.get("yaw", "").strip() else None
    except ValueError:
        raise EvaluationError(f"{_name(folder / TABLE)}, photo {number}: {row['yaw']!r} is no angle", "give yaw in degrees") from None
    if not photo:
        raise EvaluationError(f"{_name(folder / TABLE)}, photo {number} has no file name", "give subject,kind,photo,mask,yaw on each line")
    scans = folder / "scans"
    return EvaluationPhoto(
        name=Path(photo).stem,
        photo=folder / "photos" / photo,
        subject=subject,
        kind=row.get("kind", "").strip() or "all",
        yaw=yaw,
        mask=MaskFiles((folder / "masks" / mask,)) if mask else None,
        scan=_one_of(scans, subject, MESH_SUFFIXES) if subject and scans.is_dir() else None,
        landmarks=_one_of(scans, subject, LANDMARK_SUFFIXES) if subject and scans.is_dir() else None,
    )


def _one_of(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path:
    """The file with one of these endings; the first of them, which is then missing, where there is none."""
    found = [folder / f"{stem}{suffix}" for suffix in suffixes if (folder / f"{stem}{suffix}").is_file()]
    return found[0] if found else folder / f"{stem}{suffixes[0]}"


def _now_root(folder: Path) -> Path | None:
    """The folder that holds `iphone_pictures`: the one given, or its `final_release_version` as the archive unpacks."""
    candidates = (folder, folder / "final_release_version", folder / "NoW_Dataset" / "final_release_version")
    return next((c for c in candidates if (c / NOW_PHOTOS).is_dir()), None)


def _read_now(root: Path, folder: Path, subset: str) -> list[EvaluationPhoto]:
    """The challenge's layout: subject/challenge/photo below iphone_pictures, one scan and one file of picked points a subject."""
    photos = []
    for entry in _now_list(root, folder, subset):
        parts = [part for part in entry.replace("\\", "/").split("/") if part]
        if len(parts) < 3 or ".." in parts:
            raise EvaluationError(
                f"{entry!r} in the list of NoW photos is not subject/challenge/photo", "use the list that came with the set"
            )
        subject, challenge, file = parts[-3:]
        scan = _only_file((_beside(root, folder, NOW_SCANS) or root / NOW_SCANS) / subject, MESH_SUFFIXES)
        points = next((found for name in NOW_LANDMARKS if (found := _beside(root, folder, name)) is not None), root / NOW_LANDMARKS[0])
        landmarks = _only_file(points / subject, LANDMARK_SUFFIXES)
        name = f"{subject}/{challenge}/{Path(file).stem}"
        photo = root / NOW_PHOTOS / subject / challenge / file
        photos.append(EvaluationPhoto(name, photo, subject, challenge, None, None, scan, landmarks))
    return photos


def _now_list(root: Path, folder: Path, subset: str) -> list[str]:
    """The subset's photos: from its list, or all photos of the subjects that have a scan where no list came with the set."""
    found = _beside(root, folder, NOW_LISTS[subset]) if subset in NOW_LISTS else None
    if found is not None:
        return [line.strip() for line in found.read_text(encoding="utf-8").splitlines() if line.strip()]
    scans = _beside(root, folder, NOW_SCANS)
    photos = sorted(p for p in (root / NOW_PHOTOS).glob("*/*/*") if p.suffix.lower() in PHOTO_SUFFIXES)
    return [p.relative_to(root / NOW_PHOTOS).as_posix() for p in photos if scans is None or (scans / p.parts[-3]).is_dir()]


def _beside(root: Path, folder: Path, name: str) -> Path | None:
    """Scans, landmarks and lists are separate downloads, unpacked into the set's folder or beside it."""
    places = (root, folder, root.parent, folder.parent)
    return next((place / name for place in places if (place / name).exists()), None)


def _only_file(folder: Path, suffixes: tuple[str, ...]) -> Path | None:
    """The first file with one of these endings; None for the test set, whose scans are not given out."""
    if not folder.is_dir():
        return None
    return next((path for suffix in suffixes for path in sorted(folder.glob(f"*{suffix}"))), None)


def _read_celebamask(folder: Path, subset: str) -> list[EvaluationPhoto]:
    """CelebAMask-HQ; a photo with glasses or a hat is occluded."""
    photos = [p for p in CelebAMaskHQ(folder).photos() if p.mask is not None and subset in (p.split, "all")]
    return [_source_photo(p, "occluded" if p.tags else "unoccluded") for p in photos]


def _read_prepared(folder: Path, subset: str) -> list[EvaluationPhoto]:
    """The crops that `train prepare` made, judged as photos of their own."""
    photos = []
    for record in read_index(folder).values():
        kind = record.tags[0] if record.tags else "all"
        for number, face in enumerate(record.faces):
            crop, mask = (path(folder, record.sha256, number) for path in (crop_path, mask_path))
            if face.has_mask and subset in (record.split, "all"):
                photos.append(EvaluationPhoto(crop.stem, crop, kind=kind, mask=MaskFiles((mask,))))
    return photos


def _read_photos_and_masks(folder: Path) -> list[EvaluationPhoto]:
    """`photos` and `masks` with the same names; the kind is the subset of AR, or the folder a photo lies in."""
    return [_source_photo(p, p.tags[0] if p.tags else _folder_kind(Path(p.name).parts[1:])) for p in MaskedPhotos(folder).photos()]


def _source_photo(photo: SourcePhoto, kind: str) -> EvaluationPhoto:
    return EvaluationPhoto(Path(photo.name).with_suffix("").as_posix().partition("/")[2], photo.path, kind=kind, mask=photo.mask)


def _read_masks(folder: Path) -> list[EvaluationPhoto]:
    """Masks alone, named as the results; a folder between names the kind."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MASK_SUFFIXES and path.is_file())
    photos = []
    for path in found:
        below = path.relative_to(folder)
        stem = below.with_suffix("").as_posix()
        photos.append(EvaluationPhoto(stem, path.with_suffix(".jpg"), kind=_folder_kind(below.parts), mask=MaskFiles((path,))))
    return photos


def _folder_kind(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) > 1 else "all"


def _name(path: Path) -> str:
    return printable(str(path))
