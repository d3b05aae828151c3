"""Photos worked on in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from focus_backend.commands.photo_work import BatchError, PhotoResult
from focus_backend.landmarks.detector import Detection
from focus_backend.landmarks.user_points import landmarks_in
from focus_backend.photo import Photo, read_photo
from focus_backend.progress import Progress


@runtime_checkable
class FaceReconstructor(Protocol):
    """The part of `Reconstructor` that a batch needs."""

    def reconstruct(
        self, photo: Photo, *, landmarks: Detection | None = None, max_faces: int | None = None, progress: Progress | None = None
    ) -> list[Any]:
        """The faces of the photo, largest first."""
        ...


@dataclass(frozen=True)
class LocalFace:
    """A face that was reconstructed here; its files are made when they are asked for, one face at a time."""

    reconstruction: Any
    texture_size: int | None

    @property
    def face_index(self) -> int:
        """0 for the largest of the photo."""
        return self.reconstruction.face_index

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about it."""
        return self.reconstruction.warnings

    def files(self) -> Mapping[str, bytes]:
        """Content of every file of its folder, by name.

        Raises:
            FitError: the result is not finite.
        """
        from focus_backend.export.bundle import reconstruction_files, with_texture_size

        return reconstruction_files(with_texture_size(self.reconstruction, self.texture_size))


class LocalWork:
    """Works on one photo at a time, with a reconstructor that is loaded for the first photo that can be read.

    Args:
        load: gives the reconstructor.
        max_faces: how many faces of a photo, largest first; None for all.
        landmarks: the user's own, replacing detection, in pixels of the upright file.
        texture_size: textures are made no larger than this; None leaves them as they are.
    """

    window = 1

    def __init__(
        self,
        load: Callable[[], FaceReconstructor],
        max_faces: int | None = None,
        landmarks: Detection | None = None,
        texture_size: int | None = None,
    ) -> None:
        self._load = load
        self._reconstructor: FaceReconstructor | None = None
        self._max_faces = max_faces
        self._landmarks = landmarks
        self._texture_size = texture_size

    def start(self, path: Path, progress: Progress | None) -> LocalPhoto:
        """Nothing is done before the photo is to be finished."""
        return LocalPhoto(self, path, progress)

    def close(self) -> None:
        """Nothing is under way between photos."""

    def reconstruct(self, path: Path, progress: Progress | None) -> PhotoResult:
        """The faces of the photo at `path`."""
        photo = read_photo(path)
        landmarks = landmarks_in(photo, self._landmarks) if self._landmarks is not None else None
        faces = self._loaded().reconstruct(photo, landmarks=landmarks, max_faces=self._max_faces, progress=progress)
        return PhotoResult([LocalFace(face, self._texture_size) for face in faces], photo.sha256)

    def _loaded(self) -> FaceReconstructor:
        if self._reconstructor is None:
            try:
                self._reconstructor = self._load()
            except Exception as error:
                raise BatchError(error) from error
        return self._reconstructor


@dataclass(frozen=True)
class LocalPhoto:
    """A photo whose turn it is."""

    work: LocalWork
    path: Path
    progress: Progress | None

    def finish(self) -> PhotoResult:
        """Does all the work.

        Raises:
            BatchError: the reconstructor cannot be loaded.
            Exception: this photo failed.
        """
        return self.work.reconstruct(self.path, self.progress)
