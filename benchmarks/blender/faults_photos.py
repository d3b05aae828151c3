"""Photos that are no good, too large, or lie in difficult places."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from benchmarks.blender.faults_stage import Case, Seen, Stage, expect_failure, next_photo, words
from scripts.window_test.pictures import write_faceless_photo
from scripts.window_test.screen import WindowTestError

STRANGE = "Fotos für Zoë 写真 😀 'quoted'"
TWELVE_MEGAPIXELS, HUNDRED_MEGAPIXELS = (4000, 3000), (10000, 10000)
MEGABYTE = 2**20


def no_face(stage: Stage) -> Seen:
    """A picture of a meadow."""
    return _fails(stage, write_faceless_photo(stage.new_folder("photos") / "meadow.png"), "no face was found")


def missing(stage: Stage) -> Seen:
    """A path where nothing is."""
    return _fails(stage, stage.folder / "moved.jpg", "is missing")


def empty(stage: Stage) -> Seen:
    """A file without a byte."""
    photo = stage.new_folder("photos") / "empty.jpg"
    photo.touch()
    return _fails(stage, photo, "is empty")


def text(stage: Stage) -> Seen:
    """Text that is called a photo."""
    photo = stage.new_folder("photos") / "notes.jpg"
    photo.write_text("This is no photo.\n" * 100)
    return _fails(stage, photo, "is not an image we can read")


def truncated(stage: Stage) -> Seen:
    """The first half of a JPEG."""
    data = stage.photo.read_bytes()
    photo = stage.new_folder("photos") / "half.jpg"
    photo.write_bytes(data[: len(data) // 2])
    return _fails(stage, photo, "damaged")


def folder(stage: Stage) -> Seen:
    """A folder that is called a photo."""
    made = stage.new_folder("photos") / "holiday.jpg"
    made.mkdir()
    return _fails(stage, made, "is a folder")


def twelve_megapixels(stage: Stage) -> Seen:
    """A photo as telephones make them."""
    return _works(stage, _enlarged(stage, TWELVE_MEGAPIXELS), "as any photo: the head comes")


def hundred_megapixels(stage: Stage) -> Seen:
    """More pixels than the backend admits."""
    return _fails(stage, _enlarged(stage, HUNDRED_MEGAPIXELS), "megapixels")


def too_many_bytes(stage: Stage) -> Seen:
    """A file larger than the backend admits."""
    photo = stage.new_folder("photos") / "large.tif"
    photo.write_bytes(stage.photo.read_bytes() + bytes(80 * MEGABYTE))
    return _fails(stage, photo, "the backend admits")


def strange_photo_path(stage: Stage) -> Seen:
    """Letters of several scripts, spaces and quotes in the photo's path and name."""
    photo = stage.new_folder(STRANGE) / f"{STRANGE}.jpg"
    shutil.copy(stage.photo, photo)
    return _works(stage, photo, "as any photo: the head comes")


def read_only_photo(stage: Stage) -> Seen:
    """A photo on a read-only disk."""
    photos = stage.new_folder("photos")
    shutil.copy(stage.photo, photos / "locked.jpg")
    mount = [words("mount", "--bind", photos, photos), words("mount", "-o", "remount,ro,bind", photos)]
    with stage.opened(stage.setting(before=mount)) as blender:
        took = blender.good_photo(photos / "locked.jpg")
        return Seen("as any photo: the head comes", took, next_photo(blender, stage.photo))


def _fails(stage: Stage, photo: Path, *fragments: str) -> Seen:
    blender, before = stage.ordinary, stage.ordinary.ask("heads")
    told = expect_failure(blender, photo, *fragments)
    if photo.name not in told[0]:
        raise WindowTestError(f"the panel does not name {photo.name}: {told[0]}")
    if blender.ask("heads") != before:
        raise WindowTestError("the scene is not as it was")
    return Seen(*told, next_photo(blender, stage.photo))


def _works(stage: Stage, photo: Path, words_for_it: str) -> Seen:
    blender = stage.ordinary
    # So that the time is that of the photo, not of a backend that has to start.
    next_photo(blender, stage.photo)
    count = len(blender.ask("heads"))
    took = blender.good_photo(photo)
    if len(blender.ask("heads")) < count or blender.look()["panel"] is not None:
        raise WindowTestError(f"no further head, or an error: {blender.look()['panel']}")
    return Seen(words_for_it, took, next_photo(blender, stage.photo))


def _enlarged(stage: Stage, size: tuple[int, int]) -> Path:
    """The good photo on a canvas of that size, as high as that is."""
    path = stage.new_folder("photos") / f"{size[0] * size[1] // 10**6} megapixels.jpg"
    with Image.open(stage.photo) as photo:
        height = size[1]
        width = photo.width * height // photo.height
        canvas = Image.new("RGB", size, "gray")
        canvas.paste(photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), ((size[0] - width) // 2, 0))
    canvas.save(path, quality=90)
    return path


PHOTO_CASES: dict[str, Case] = {
    "photo without a face": no_face,
    "photo missing": missing,
    "photo is empty": empty,
    "photo is text": text,
    "photo is half a JPEG": truncated,
    "photo is a folder": folder,
    "photo of 12 megapixels": twelve_megapixels,
    "photo of 100 megapixels": hundred_megapixels,
    "photo file of 80 MB": too_many_bytes,
    "Unicode, spaces, quotes in the photo's path": strange_photo_path,
    "photo on a read-only disk": read_only_photo,
}
