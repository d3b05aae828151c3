"""From one photo's files to the crops of its faces, landmarks and truth: what a worker of `prepare` does."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from focus_backend.errors import NoFaceError, PhotoError
from focus_backend.face_crop import crop_face
from focus_backend.landmarks.detector import Detection, LandmarkDetector
from focus_backend.landmarks.landmarks68 import Landmarks68
from focus_backend.networks.frame import CropFrame
from focus_backend.photo import Photo, PhotoLimits, read_photo
from train.data.photos import MaskFiles, SourcePhoto

JPEG_QUALITY = 95
# Photo pixels across a crop: a smaller face is more blur than face.
LEAST_SIDE = 64.0


@dataclass(frozen=True)
class CropSettings:
    """What the crops of a folder have in common; plain numbers, so that it can be sent to other processes.

    Attributes:
        size: pixels of the crop that training sees.
        stored: pixels of the crop that is kept, the same face in its middle.
        centre: of `CropFrame`, mm.
        five_points: of `CropFrame`, mm.
        landmarks68: from the detector's points.
        all_faces: not only the largest of a photo.
    """

    size: int
    stored: int
    centre: Float[np.ndarray, "3"]
    five_points: Float[np.ndarray, "5 3"]
    landmarks68: Landmarks68
    all_faces: bool = False

    def frame(self) -> CropFrame:
        """The frame that places the crops."""
        return CropFrame(self.size, torch.from_numpy(self.centre), torch.from_numpy(self.five_points))


@dataclass(frozen=True)
class FaceCut:
    """One face of a photo.

    Attributes:
        jpeg: the stored crop.
        mask_png: face is 255; None without truth.
        landmarks: the 68, pixels of the stored crop.
        to_photo: affine map of the stored crop's pixels to photo pixels.
        score: the detector's.
    """

    jpeg: bytes
    mask_png: bytes | None
    landmarks: Float[np.ndarray, "68 2"]
    to_photo: Float[np.ndarray, "2 3"]
    score: float


@dataclass(frozen=True)
class PhotoCut:
    """The faces of a photo, largest first, and the photo's width and height as it was read."""

    width: int
    height: int
    faces: tuple[FaceCut, ...]


@dataclass(frozen=True)
class PhotoBytes:
    """The files of a source's photo as they were read once, so that the hashes are of what is decoded.

    Attributes:
        sha256: of the photo.
        mask_sha256: of all pictures of its mask; empty without.
    """

    photo: bytes
    face: tuple[bytes, ...]
    other: tuple[bytes, ...]
    sha256: str
    mask_sha256: str

    @classmethod
    def read(cls, photo: SourcePhoto) -> PhotoBytes:
        """The files.

        Raises:
            PhotoError: one cannot be read.
        """
        mask = photo.mask or MaskFiles(())
        try:
            # Nothing beyond the limit is worth reading; decoding then refuses by size.
            limit = PhotoLimits().file_bytes + 1
            data, face, other = (tuple(_read(path, limit) for path in paths) for paths in ((photo.path,), mask.face, mask.other))
        except OSError as error:
            raise PhotoError(f"{photo.name} cannot be read: {error.strerror or error}", "check the file and its mask") from None
        digest = hashlib.sha256()
        for kind, parts in (("face", face), ("other", other)):
            for part in parts:
                digest.update(f"{kind} {len(part)} ".encode() + part)
        return cls(data[0], face, other, hashlib.sha256(data[0]).hexdigest(), digest.hexdigest() if face else "")


def cut_photo(data: PhotoBytes, name: str, detector: LandmarkDetector, settings: CropSettings) -> PhotoCut:
    """Finds the faces of a photo and cuts them out.

    Raises:
        PhotoError: the photo or its mask cannot be used.
        NoFaceError: no face is found, or none that is large enough.
    """
    photo = read_photo(data.photo, name=name)
    truth = face_mask(data, photo) if data.face else None
    found = detector.detect(photo.pixels)
    if not found:
        raise NoFaceError(f"no face in {name}", "leave the photo out, or choose another detector with --landmarks")
    # The truth is about one face.
    wants_all = settings.all_faces and truth is None
    faces = [_cut_face(photo, truth, detection, settings) for detection in (found if wants_all else found[:1])]
    kept = tuple(face for face in faces if face is not None)
    if not kept:
        raise NoFaceError(f"the face in {name} spans fewer than {LEAST_SIDE:.0f} pixels", "give a larger version of the photo")
    return PhotoCut(photo.width, photo.height, kept)


def face_mask(data: PhotoBytes, photo: Photo) -> Bool[np.ndarray, "height width"]:
    """What is face, in the photo's pixels.

    Raises:
        PhotoError: a picture of the mask cannot be read, or has other proportions than the photo.
    """
    face = np.zeros((photo.height, photo.width), bool)
    for parts, is_face in ((data.face, True), (data.other, False)):
        for part in parts:
            face[_mask_picture(part, photo)] = is_face
    return face


def encode_jpeg(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A JPEG with colour at full resolution: skin's colour carries the light."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def encode_mask(mask: Bool[np.ndarray, "height width"]) -> bytes:
    """A PNG of one bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _mask_picture(data: bytes, photo: Photo) -> Bool[np.ndarray, "height width"]:
    """What is white in a picture of a mask, at the photo's size."""
    picture = read_photo(data, name=f"the mask of {photo.name}")
    if abs(picture.width * photo.height - picture.height * photo.width) > 0.01 * picture.width * photo.height:
        sizes = f"{picture.width} x {picture.height} pixels, the photo {photo.width} x {photo.height}"
        raise PhotoError(f"the mask of {photo.name} has {sizes}", "give a mask of the photo's proportions")
    white = picture.pixels.max(-1)
    # Masks of 0 and 1 are as good as those of 0 and 255.
    white = np.where(white > white.max() / 2, np.uint8(255), np.uint8(0))
    if white.shape != photo.pixels.shape[:2]:
        white = cv2.resize(white, (photo.width, photo.height), interpolation=cv2.INTER_LINEAR)
    return white >= 128


def _cut_face(photo: Photo, truth: Bool[np.ndarray, "height width"] | None, detection: Detection, settings: CropSettings) -> FaceCut | None:
    """The stored crop of a face; None when it is too small."""
    place = settings.frame().place(detection.five_points)
    if place.side < LEAST_SIDE:
        return None
    where = (place.centre, place.side * settings.stored / settings.size, settings.stored, place.angle)
    crop = crop_face(photo.pixels, *where)
    landmarks = crop.to_crop(settings.landmarks68(detection.points))
    mask = None if truth is None else encode_mask(_cut_mask(truth, where))
    return FaceCut(encode_jpeg(crop.pixels), mask, landmarks, crop.crop_to_photo, detection.score)


def _cut_mask(truth: Bool[np.ndarray, "height width"], where: tuple[tuple[float, float], float, int, float]) -> Bool[np.ndarray, "n n"]:
    """Crop pixels of which at least half is face."""
    white = np.repeat(truth[:, :, None].astype(np.uint8) * 255, 3, -1)
    return crop_face(white, *where).pixels[:, :, 0] >= 128
