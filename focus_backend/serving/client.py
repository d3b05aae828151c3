"""A synchronous client of a FOCUS server."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from focus_backend.errors import PhotoError, ProtocolError, ServerError
from focus_backend.serving import wire
from focus_backend.serving.connection import Call, Connection
from focus_backend.serving.credentials import Credentials, find_credentials

if TYPE_CHECKING:
    import numpy as np

# A path or text: a file. Bytes, or a flat buffer of them: what such a file holds.
# Any buffer of uint8 [height width 3]: upright sRGB pixels.
Photo: TypeAlias = Any
# Stage in words, fraction from 0 to 1, and the preview (uint8 [height width 3], sRGB) where one was asked for.
ProgressCallback: TypeAlias = Callable[[str, float, wire.Array | None], object]
# Of a server whose limits are not known yet: those it has are applied before the photo is sent.
_MOST_FILE_BYTES = 256 * 2**20
DEFAULT_OPTIONS = wire.Options()
DEFAULT_PARTS = ("geometry", "texture", "masks")


@dataclass(frozen=True)
class ReconstructionResult:
    """The faces of a photo.

    Attributes:
        message: the answer: faces with their documents, model, parts, seconds.
        arrays: by name (docs/protocol.md lists them); their data are views of the bytes that came.
    """

    message: wire.Result
    arrays: Mapping[str, wire.Array]

    def files(self, face: int = 0) -> dict[str, bytes]:
        """The files of one face by name, as a local run would have written them; asks for the part "files".

        Raises:
            ProtocolError: a name leads out of a folder.
        """
        start = f"face{face}/files/"
        found = {name[len(start) :]: array for name, array in self.arrays.items() if name.startswith(start)}
        for name in found:
            if not name or "/" in name or name.startswith("."):
                raise ProtocolError(f"the server sent a file named {name!r}", "do not trust it")
        return {name: bytes(array.data) for name, array in found.items()}

    def numpy(self, name: str) -> np.ndarray:
        """An array as numpy sees it, read-only, without a copy where its place in memory allows.

        Raises:
            ServerError: there is no such array.
        """
        import numpy as np

        if name not in self.arrays:
            raise ServerError(f"the result has no array {name!r}", "ask for the part that holds it, or for another face")
        array = self.arrays[name]
        values = np.frombuffer(array.data, np.dtype(array.dtype).newbyteorder("<")).reshape(array.shape)
        if not values.flags.aligned:
            values = values.copy()
        values.flags.writeable = False
        return values


class PendingResult:
    """A reconstruction under way; may be used from any thread."""

    def __init__(self, client: object, connection: Connection, call: Call, progress: ProgressCallback | None) -> None:
        # A client that nobody else holds must live as long as its requests.
        self._client = client
        self._connection = connection
        self._call = call
        self._progress = progress

    @property
    def id(self) -> str:
        """What the server calls the request."""
        return self._call.id

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._call.is_done

    def cancel(self) -> bool:
        """Gives the request up, here and at the server: `result` raises `CancelledError`. False when it had ended already."""
        return self._connection.cancel(self._call)

    def result(self, timeout: float | None = None) -> ReconstructionResult:
        """Waits for the end. `progress` is called in the thread that waits here; what it raises cancels the request.

        Args:
            timeout: seconds; the request goes on when they have passed.

        Raises:
            TimeoutError: it has not ended yet.
            FocusError: it ended with this.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            is_done = self._call.is_done
            self._show_updates()
            if is_done:
                return result_of(self._call)
            if not self._call.wait(None if end is None else max(0.0, end - time.monotonic())):
                raise TimeoutError(f"the reconstruction has not ended within {timeout:g} s")

    def _show_updates(self) -> None:
        for update in self._call.take_updates():
            if self._progress is None or self._call.is_cancelled:
                continue
            try:
                self._progress(update.stage, update.fraction, update.preview)
            except BaseException:
                self.cancel()
                raise


class Client:
    """A client of one server, for any number of threads at once.

    It connects with the first call, and again after the server went away; everything under way then ends with
    `ConnectionLostError`, and nothing is sent twice unless `retries` asks for it. A thread of its own owns the socket; after a
    fork, make a client in each process: one that came through the fork refuses to work, and closing it does nothing there.

    Args:
        credentials: from `credentials.find_credentials`.
        timeout: seconds without any sign of the server before it counts as lost, more than the largest photo or answer needs on
            the line; None for 10 over loopback and 60 elsewhere.
        find: asked for credentials when it connects anew, for a restarted server has another port and key; None to
            use the same again.
    """

    def __init__(self, credentials: Credentials, *, timeout: float | None = None, find: Callable[[], Credentials] | None = None) -> None:
        self._connection = Connection(credentials, timeout, find)
        # Also when it is forgotten, and at the end of the program: the server should not work for nobody.
        self._close = weakref.finalize(self, self._connection.close)

    @classmethod
    def connect(cls, server: str | Path = "auto", key: Path | None = None, *, timeout: float | None = None) -> Client:
        """A client that has greeted its server.

        Args:
            server: "auto" for the newest of this user, a ready file, a key file or tcp://HOST:PORT.
            key: a key file, for a server elsewhere.
            timeout: as for the class.

        Raises:
            ServerError: there is no such server.
            RefusedError: it does not let this client in.
            ConnectionLostError: nobody answers.
            ProtocolError: it speaks another version.
        """
        client = cls(find_credentials(server, key), timeout=timeout, find=lambda: find_credentials(server, key))
        try:
            client.hello()
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is under way and ends the connection; may be called twice."""
        self._close()

    def hello(self) -> wire.Welcome:
        """Who the server is and what it admits."""
        return self._ask(wire.Hello(client_software())).body

    def status(self, prometheus: bool = False) -> wire.StatusReport:
        """How the server is; with Prometheus text where asked for."""
        return self._ask(wire.Status(prometheus)).body

    def ping(self) -> float:
        """Seconds until the server has answered."""
        start = time.monotonic()
        self._ask(wire.Ping())
        return time.monotonic() - start

    def shutdown(self, grace: float | None = None) -> None:
        """Asks the server to end; its owner only.

        Args:
            grace: seconds that running work may go on; None for the server's own.
        """
        self._ask(wire.Shutdown(grace))

    def submit(
        self,
        photo: Photo,
        *,
        name: str | None = None,
        options: wire.Options = DEFAULT_OPTIONS,
        parts: Sequence[str] = DEFAULT_PARTS,
        deadline: float | None = None,
        progress: ProgressCallback | None = None,
        preview_side: int = 0,
        retries: int = 0,
    ) -> PendingResult:
        """Sends a photo and does not wait.

        Args:
            photo: a file (path or text), its content (bytes), or upright sRGB pixels (a buffer of uint8 [height width 3]).
            name: what messages and `result.json` call it; a file's own by default.
            options: how it is to be reconstructed.
            parts: which arrays are wanted.
            deadline: seconds after which an answer is of no use, waiting included.
            progress: called while somebody waits in `PendingResult.result`, in that thread; stages that passed
                before are told first.
            preview_side: longest side of previews, pixels; 0 for none.
            retries: how often it is sent again after the connection was lost.

        Raises:
            PhotoError: the photo cannot be read or is no photo. What the server's limits forbid is raised by `result`.
        """
        arrays = photo_arrays(photo, self._connection.limits)
        body = request_body(photo, name, options, parts, deadline, progress is not None, preview_side)
        call = Call(body, arrays, retries)
        self._connection.start(call)
        return PendingResult(self, self._connection, call, progress)

    def reconstruct(
        self,
        photo: Photo,
        *,
        name: str | None = None,
        options: wire.Options = DEFAULT_OPTIONS,
        parts: Sequence[str] = DEFAULT_PARTS,
        deadline: float | None = None,
        progress: ProgressCallback | None = None,
        preview_side: int = 0,
        retries: int = 0,
    ) -> ReconstructionResult:
        """Sends a photo and waits for its faces; arguments and errors as for `submit`.

        Ctrl-C while it waits, and whatever `progress` raises, cancels the request at the server.
        """
        pending = self.submit(
            photo,
            name=name,
            options=options,
            parts=parts,
            deadline=deadline,
            progress=progress,
            preview_side=preview_side,
            retries=retries,
        )
        try:
            return pending.result()
        except BaseException:
            pending.cancel()
            raise

    def _ask(self, body: Any) -> wire.Message:
        call = Call(body)
        self._connection.start(call)
        try:
            call.wait()
        except BaseException:
            self._connection.cancel(call)
            raise
        return call.answer()


def client_software() -> str:
    """This client's name and version, as servers see it."""
    from focus_backend import __version__

    return f"focus-backend {__version__}"


def result_of(call: Call) -> ReconstructionResult:
    """The result of a call that has ended.

    Raises:
        FocusError: it ended with this.
    """
    message = call.answer()
    return ReconstructionResult(message.body, message.arrays)


def request_body(
    photo: Photo,
    name: str | None,
    options: wire.Options,
    parts: Sequence[str],
    deadline: float | None,
    progress: bool,
    preview_side: int,
) -> wire.Reconstruct:
    """The request for a photo, without its bytes."""
    named = name if name is not None else Path(photo).name if isinstance(photo, (str, os.PathLike)) else "photo"
    return wire.Reconstruct(named, options, list(parts), deadline, progress, preview_side)


def photo_arrays(photo: Photo, limits: wire.Limits | None) -> dict[str, wire.Array]:
    """The bytes of a photo as a request carries them; memory that others may write to is copied.

    Raises:
        PhotoError: it cannot be read, or is neither a file, bytes nor uint8 pixels.
    """
    if isinstance(photo, (str, os.PathLike)):
        return {"photo": _file_array(Path(photo), limits.frame_bytes if limits is not None else _MOST_FILE_BYTES)}
    try:
        array = wire.Array.of(_contiguous(photo))
    except (TypeError, ValueError):
        raise PhotoError("the photo is neither a file, bytes nor an array of pixels", "give uint8 [height width 3]") from None
    if array.dtype != "uint8" or len(array.shape) not in (1, 3) or (len(array.shape) == 3 and array.shape[2] != 3):
        raise PhotoError(f"the photo is an array of {array.dtype} {list(array.shape)}", "give uint8 [height width 3]")
    if 0 in array.shape:
        raise PhotoError("the photo is empty", "give a JPEG, PNG, WebP, AVIF or TIFF photo, or pixels")
    data = array.data if isinstance(photo, bytes) else bytes(array.data)
    return {"photo" if len(array.shape) == 1 else "pixels": wire.Array("uint8", array.shape, data)}


def _contiguous(photo: Any) -> Any:
    """The photo; a copy in C order of a strided view, such as a BGR picture turned round with `[..., ::-1]`."""
    view = memoryview(photo)
    if view.c_contiguous or view.format != "B":
        return photo
    return memoryview(view.tobytes()).cast("B", tuple(view.shape or ()))


def _file_array(path: Path, most_bytes: int) -> wire.Array:
    try:
        # A pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            raise PhotoError(f"{path.name} is not a regular file", "give a photo file")
        size = path.stat().st_size
        if size > most_bytes:
            problem = f"{path.name} has {size / 2**20:.0f} MB, more than the {most_bytes / 2**20:.0f} MB admitted"
            raise PhotoError(problem, "save it as JPEG or scale it down")
        data = path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(f"{path.name} does not exist", f"check the path {str(path)!r}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its path is not valid"
        raise PhotoError(f"{path.name} cannot be read: {reason}", "check the path and its permissions") from None
    if not data:
        raise PhotoError(f"{path.name} is empty", "give a JPEG, PNG, WebP, AVIF or TIFF photo")
    return wire.Array("uint8", (len(data),), data)
