"""Prepared photos as a source of training faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from focus_backend.errors import ConfigError, PhotoError
from focus_backend.networks.frame import CropFrame
from focus_backend.photo_paths import printable
from train.data.augment import AugmentConfig, Views, inside_photo, resample, stored_size
from train.data.batch import FaceBatch
from train.data.index import FolderDescription, PhotoRecord, crop_path, distinct_photos, mask_path, read_description, read_index
from train.data.photos import SPLITS

# Frames nearer than this are the same, mm.
_SAME_FRAME = 0.01
# First words of the keys of the random streams.
_ORDER, _AUGMENT = 1, 2
_MOST_THREADS = 8


class PreparedFaces:
    """The faces of a prepared folder, each epoch in a new order, moved at random.

    Position `(step * world + rank) * size + i` of an endless list of epochs is face `i` of a batch: ranks share the work, and what
    a batch holds depends on the seed and the position alone. Files are decoded ahead by threads; moving is done on `device`.
    """

    def __init__(
        self,
        folder: Path,
        frame: CropFrame,
        *,
        split: str = "train",
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        augment: AugmentConfig | None = None,
        device: torch.device | str = "cpu",
        needs_mask: bool = False,
        threads: int | None = None,
        prefetch: int = 2,
    ) -> None:
        """Reads the folder's index.

        Args:
            folder: written by `prepare`.
            frame: the crops' frame that training uses.
            split: which faces: train, val or test.
            seed: of order and augmentation.
            rank: of this process among `world`.
            world: number of processes.
            augment: how crops are moved; None leaves them in the middle.
            device: where batches come to be.
            needs_mask: leave out faces without a true mask.
            threads: that decode files, some 1,500 a second each; by default one a processor, no more than eight.
            prefetch: steps decoded ahead.

        Raises:
            ConfigError: the folder is not prepared, is damaged, was prepared for another model or size, lacks the margin for `augment`,
                or has no such faces.
        """
        self._folder, self._device, self._augment = folder, torch.device(device), augment
        self._seed, self._rank, self._world = seed, rank, world
        self._description = read_description(folder)
        _check_frame(folder, self._description, frame)
        if augment is not None and stored_size(frame.size, augment) > self._description.stored:
            raise ConfigError(
                f"{printable(str(folder))} was prepared with a margin too small for this augmentation", "augment less, as FOCUS does"
            )
        records = [r for r in distinct_photos(read_index(folder)) if r.split == split]
        self._faces = [(r, n) for r in records for n, face in enumerate(r.faces) if face.has_mask or not needs_mask]
        if not self._faces:
            raise _no_faces(folder, split, needs_mask)
        self.has_masks = all(record.faces[number].has_mask for record, number in self._faces)
        self._landmarks, self._to_photo, self._photo_size = _tables(self._faces)
        self._order = lru_cache(maxsize=4)(self._new_order)
        self._decoders = ThreadPoolExecutor(threads or min(os.cpu_count() or 1, _MOST_THREADS), "decode")
        # Steps are put together one after the other, so that the next one needed is ready first.
        self._assembler = ThreadPoolExecutor(1, "assemble")
        self._prefetch = prefetch
        self._ahead: dict[tuple[int, int], Future[Tensor]] = {}

    def __len__(self) -> int:
        """Faces in an epoch."""
        return len(self._faces)

    @property
    def records(self) -> list[tuple[PhotoRecord, int]]:
        """The photo's record and the face's number in it of each face, in the order of `indices`."""
        return list(self._faces)

    def batch(self, step: int, size: int) -> FaceBatch:
        """The faces of one step; see `FaceSource`.

        Raises:
            PhotoError: a stored crop is missing or damaged.
        """
        indices = self.indices(step, size)
        pixels = self._decoded(step, size).to(self._device, non_blocking=True)
        stored, crop = self._description.stored, self._description.size
        views = Views.plain(size, crop, stored)
        if self._augment is not None:
            views = Views.random(self._draws(self._positions(step, size)), self._augment, crop, stored)
        chosen = torch.from_numpy(indices)
        to_photo = self._send(views.to_photo(self._to_photo[chosen]).float())
        moved = resample(pixels.permute(0, 3, 1, 2).float(), self._send(views.to_stored.float()), crop) / 255
        landmarks = self._send(views.landmarks(self._landmarks[chosen]))
        return FaceBatch(
            image=moved[:, :3],
            landmarks=landmarks,
            landmark_weight=torch.ones(size, device=self._device),
            inside=inside_photo(to_photo, self._send(self._photo_size[chosen]), crop),
            mask=(moved[:, 3] >= 0.5).float() if self.has_masks else None,
            detected=landmarks,
        )

    def indices(self, step: int, size: int) -> Int[np.ndarray, "size"]:
        """Which faces a step shows."""
        epochs, places = np.divmod(self._positions(step, size), len(self._faces))
        return np.array([self._order(int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)])

    def close(self) -> None:
        """Ends the threads."""
        self._assembler.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    def _positions(self, step: int, size: int) -> Int[np.ndarray, "size"]:
        return (step * self._world + self._rank) * size + np.arange(size)

    def _new_order(self, epoch: int) -> Int[np.ndarray, "faces"]:
        return np.random.default_rng([_ORDER, self._seed, epoch]).permutation(len(self._faces))

    def _draws(self, positions: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b 5"]:
        """Five numbers in [0, 1) for each position."""
        return np.stack([np.random.default_rng([_AUGMENT, self._seed, int(position)]).random(5) for position in positions])

    def _decoded(self, step: int, size: int) -> UInt8[Tensor, "b n n channels"]:
        """The stored crops of a step, masks as a fourth channel; starts on the following steps."""
        wanted = [(step + ahead, size) for ahead in range(self._prefetch + 1)]
        # A jump to another step leaves work behind that nobody asks for any more.
        for key in self._ahead.keys() - set(wanted):
            self._ahead.pop(key).cancel()
        for key in wanted:
            if key not in self._ahead:
                self._ahead[key] = self._assembler.submit(self._assemble, self.indices(*key))
        return self._ahead.pop(wanted[0]).result()

    def _assemble(self, indices: Int[np.ndarray, "b"]) -> UInt8[Tensor, "b n n channels"]:
        """Stored crops as one tensor, in memory that a GPU copies from without waiting."""
        stored, channels = self._description.stored, 3 + self.has_masks
        shape = (len(indices), stored, stored, channels)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        # The list makes a decoder's error come out.
        list(self._decoders.map(self._decode, indices.tolist(), pixels.numpy()))
        return pixels

    def _decode(self, index: int, pixels: UInt8[np.ndarray, "n n channels"]) -> None:
        """Writes one stored crop into `pixels`."""
        record, number = self._faces[index]
        shape = pixels.shape[:2]
        pixels[:, :, :3] = _read_picture(crop_path(self._folder, record.sha256, number), cv2.IMREAD_COLOR, (*shape, 3))[:, :, ::-1]
        if self.has_masks:
            pixels[:, :, 3] = _read_picture(mask_path(self._folder, record.sha256, number), cv2.IMREAD_GRAYSCALE, shape)

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting for it."""
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _read_picture(path: Path, flags: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    try:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    except (OSError, cv2.error):
        pixels = None
    if pixels is None or pixels.shape != shape:
        raise PhotoError(f"{printable(str(path))} is missing or damaged", "delete it and run `focus-backend train prepare` again")
    return pixels


def _tables(
    faces: Sequence[tuple[PhotoRecord, int]],
) -> tuple[Float[Tensor, "faces 68 2"], Float[Tensor, "faces 2 3"], Float[Tensor, "faces 2"]]:
    """Landmarks (stored pixels), maps of stored pixels to the photo's, and the photos' widths and heights."""
    landmarks = torch.tensor([record.faces[number].landmarks for record, number in faces])
    to_photo = torch.tensor([record.faces[number].to_photo for record, number in faces], dtype=torch.float64).unflatten(1, (2, 3))
    return landmarks, to_photo, torch.tensor([(float(record.width), float(record.height)) for record, _ in faces])


def _check_frame(folder: Path, found: FolderDescription, frame: CropFrame) -> None:
    where, remedy = (
        printable(str(folder)),
        "prepare the photos again into another folder, or choose the model and size they were prepared for",
    )
    if found.size != frame.size:
        raise ConfigError(f"{where} was prepared for crops of {found.size} pixels, not {frame.size}", remedy)
    wanted = torch.cat([frame.centre[None], frame.five_points]).double().cpu()
    stored = torch.tensor([found.centre, *found.five_points], dtype=torch.float64)
    if stored.shape != wanted.shape or float((stored - wanted).abs().max()) > _SAME_FRAME:
        raise ConfigError(f"{where} was prepared for the face model {printable(found.model)!r}, whose frame is another", remedy)


def _no_faces(folder: Path, split: str, needs_mask: bool) -> ConfigError:
    faces = dict.fromkeys(SPLITS, 0)
    for record in distinct_photos(read_index(folder)):
        faces[record.split] += len(record.faces)
    there = ", ".join(f"{count} {name}" for name, count in faces.items())
    kind = f"{split} faces with a mask" if needs_mask else f"{split} faces"
    return ConfigError(f"{printable(str(folder))} has no {kind} (it has {there})", "prepare more photos, or choose another split")
