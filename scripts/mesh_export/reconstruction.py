"""Photos to the bytes of a server's answer: by a reconstructor in a process of its own, or by a server."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .arguments import Arguments
from .outcome import Failure, PhotoFailedError
from .scene import parts_for
from .worker_process import BatchStoppedError, Work, WorkerProcess

if TYPE_CHECKING:
    from focus_backend.serving.client import Client, ReconstructionResult

Frames = list[bytes]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_RETRIES = 2


class Source(Protocol):
    """Whoever turns a photo into an answer."""

    def answer(self, photo: Path) -> Frames:
        """The frames of a `Result` with the arrays that the scene needs.

        Raises:
            PhotoFailedError, FocusError: this photo failed.
            BatchStoppedError: so will all others.
        """
        ...

    def stop(self) -> None:
        """Gives up what is under way."""
        ...


class LocalSource:
    """A reconstructor in a process of its own."""

    def __init__(self, arguments: Arguments) -> None:
        self._worker = WorkerProcess(prepare_reconstructor, arguments, "reconstruction")

    def answer(self, photo: Path) -> Frames:
        return self._worker.call(str(photo))

    def stop(self) -> None:
        self._worker.stop()


def prepare_reconstructor(arguments: Arguments) -> Work:
    """Loads networks and face model, which takes seconds; the work gives the frames of a photo's answer.

    Raises:
        FocusError: something cannot be loaded.
    """
    from focus_backend.reconstruction.loading import use_threads

    use_threads(1)
    from focus_backend.export.bundle import with_texture_size
    from focus_backend.photo import read_photo
    from focus_backend.progress import quiet
    from focus_backend.reconstruction.reconstructor import Reconstructor
    from focus_backend.serving import wire
    from focus_backend.serving.parts import ModelParts, arrays_of

    reconstructor = Reconstructor.load(method=arguments.method, misfit=arguments.misfit, **dict(arguments.local))
    model = reconstructor.model
    model_parts = ModelParts(model)
    info = wire.ModelInfo(model.name, str(model.metadata.get("sha256", "")), len(model.mean_shape), list(model.expression_names))

    def answer(path: str) -> Frames:
        since = time.monotonic()
        photo = read_photo(Path(path))
        faces = reconstructor.reconstruct(photo, max_faces=arguments.faces)
        scaled = [with_texture_size(face, arguments.texture_size) for face in faces]
        parts = parts_for(arguments, _shows_upright(Path(path)))
        documents = [wire.Face(place, list(face.warnings), face.to_document()) for place, face in enumerate(scaled)]
        result = wire.Result(documents, info, parts, time.monotonic() - since)
        return frames_of(result, arrays_of(scaled, parts, model_parts, quiet))

    return answer


class ServerSource:
    """A server; any number of threads may ask at once."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._is_stopped = threading.Event()

    def answer(self, photo: Path) -> Frames:
        client, pause = self._connected(), _FIRST_PAUSE
        while not self._is_stopped.is_set():
            frames = self._frames(client, photo)
            if frames is not None:
                return frames
            self._is_stopped.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise PhotoFailedError(Failure("cancelled", "the batch was stopped"))

    def _frames(self, client: Client, photo: Path) -> Frames | None:
        """The answer; None from a server that holds as many requests as it admits."""
        from focus_backend.errors import BusyError, ClosingError, RefusedError

        try:
            result = self._ask(client, photo)
        except BusyError:
            return None
        except (ClosingError, RefusedError) as error:
            raise BatchStoppedError(Failure(error.code, error.problem, error.remedy)) from error
        return frames_of(result.message, dict(result.arrays))

    def stop(self) -> None:
        self._is_stopped.set()
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _connected(self) -> Client:
        """The client, once it has greeted its server.

        Raises:
            BatchStoppedError: there is no such server, it does not let us in, or it lacks the method.
        """
        from focus_backend.errors import FocusError
        from focus_backend.serving.client import Client

        wanted = self._arguments
        with self._lock:
            if self._client is None:
                try:
                    self._client = Client.connect(wanted.server or "auto", wanted.key)
                    methods = self._client.hello().methods
                except FocusError as error:
                    raise BatchStoppedError(Failure(error.code, error.problem, error.remedy)) from error
                if methods and wanted.method not in ("auto", *methods):
                    raise BatchStoppedError(
                        Failure("config", f"the server has no method {wanted.method!r}", f"it has {', '.join(methods)}")
                    )
            return self._client

    def _ask(self, client: Client, photo: Path) -> ReconstructionResult:
        from focus_backend.serving import wire

        wanted = self._arguments
        options = wire.Options(None if wanted.method == "auto" else wanted.method, wanted.misfit, wanted.faces, wanted.texture_size)
        parts = parts_for(wanted, _shows_upright(photo))
        return client.reconstruct(photo, options=options, parts=parts, retries=_RETRIES)


def frames_of(result: object, arrays: dict[str, object]) -> Frames:
    """An answer as bytes, which go from process to process."""
    from focus_backend.serving import wire

    return [bytes(frame) for frame in wire.pack(wire.Message("batch", result, arrays))]  # type: ignore[arg-type]


def _shows_upright(photo: Path) -> bool:
    """Whether Blender shows the file as the reconstruction sees it; a file that cannot be read is told elsewhere."""
    from blender_addon.planning.photo_file import shows_upright

    try:
        return shows_upright(photo.read_bytes(), photo)
    except OSError:
        return True
