"""CelebAMask-HQ in its official layout: photos, a mask a part of the face, and the split of CelebA."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from focus_backend.errors import ConfigError
from focus_backend.photo_paths import printable
from train.data.photos import MaskFiles, SourcePhoto, Split, photo_files

PHOTOS, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING, PARTITION = "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"
FACE_PARTS = ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "u_lip", "l_lip", "mouth")
# What lies over the face, or takes pixels that the skin's mask also claims.
OTHER_PARTS = ("eye_g", "hat", "hair", "ear_r", "neck", "neck_l", "cloth")
_OCCLUDERS = ("eye_g", "hat")
_CODES: dict[str, Split] = {"0": "train", "1": "val", "2": "test"}


@dataclass(frozen=True)
class CelebAMaskHQ:
    """The data set as it is unpacked: `CelebA-HQ-img/<id>.jpg` and `CelebAMask-HQ-mask-anno/<k>/<id>_<part>.png`.

    Face is the union of skin, nose, eyes, brows, lips and mouth without glasses, hat, hair, earrings, neck and cloth. With
    `list_eval_partition.txt` of CelebA beside the data set's own `CelebA-HQ-to-CelebA-mapping.txt` the split is that of CelebA (24,183
    train, 2,993 val and 2,824 test); without it, ids that end in 8 are val, in 9 test, all others train. Glasses and hats become tags.
    """

    root: Path
    kind: str = "celebamask"

    def photos(self) -> list[SourcePhoto]:
        """All photos, sorted by name.

        Raises:
            ConfigError: a folder or all photos are missing, no photo has a mask, or a list cannot be read.
        """
        where = printable(str(self.root))
        for folder in (PHOTOS, MASKS):
            if not (self.root / folder).is_dir():
                raise ConfigError(f"{where} has no folder {folder}", "give the folder CelebAMask-HQ as it was unpacked")
        photos = {int(path.stem): path for path in photo_files(self.root / PHOTOS) if path.stem.isdecimal()}
        if not photos:
            raise ConfigError(f"no photos <id>.jpg in {where}/{PHOTOS}", "unpack the data set again")
        parts = _parts(self.root / MASKS)
        if not parts.keys() & photos.keys():
            raise ConfigError(f"no masks <id>_<part>.png of the photos in {where}/{MASKS}", "unpack the data set again")
        splits = _splits(self.root, photos)
        found = [_photo(self.root, path, splits[number], parts.get(number, {})) for number, path in photos.items()]
        return sorted(found, key=lambda photo: photo.name)


def _photo(root: Path, path: Path, split: Split, parts: dict[str, Path]) -> SourcePhoto:
    face, other = (tuple(parts[part] for part in names if part in parts) for names in (FACE_PARTS, OTHER_PARTS))
    mask = MaskFiles(face, other) if face else None
    return SourcePhoto(path.relative_to(root).as_posix(), path, split, mask, tuple(part for part in _OCCLUDERS if part in parts))


def _parts(folder: Path) -> dict[int, dict[str, Path]]:
    """Masks by id and part."""
    found: dict[int, dict[str, Path]] = defaultdict(dict)
    for path in photo_files(folder):
        number, _, part = path.stem.partition("_")
        if number.isdecimal():
            found[int(number)][part] = path
    return found


def _splits(root: Path, photos: dict[int, Path]) -> dict[int, Split]:
    """The split of each id."""
    if not (root / PARTITION).is_file():
        return {number: _split_by_id(number) for number in photos}
    if not (root / MAPPING).is_file():
        raise ConfigError(f"{printable(str(root))} has {PARTITION} but no {MAPPING}", "put the mapping there, or take the partition away")
    partition = {row[0]: row[1] for row in _rows(root / PARTITION, 2)}
    original = {int(row[0]): row[2] for row in _rows(root / MAPPING, 3) if row[0].isdecimal()}
    try:
        return {number: _CODES[partition[original[number]]] for number in photos}
    except KeyError as error:
        lists = f"{MAPPING} and {PARTITION}"
        raise ConfigError(f"{lists} do not tell the split of a photo ({printable(str(error))})", "fetch both lists again") from error


def _split_by_id(number: int) -> Split:
    """Where CelebA's own split is not at hand."""
    return "val" if number % 10 == 8 else "test" if number % 10 == 9 else "train"


def _rows(path: Path, columns: int) -> list[list[str]]:
    """The words of the lines that have at least `columns` of them."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{printable(str(path))} cannot be read", "fetch the list again") from error
    return [row for row in rows if len(row) >= columns]
