"""Photos worked on by a server: several are on their way at once, so that none of its workers waits for us."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from focus_backend.commands.photo_work import BatchError, PhotoResult
from focus_backend.errors import (
    BusyError,
    ClosingError,
    ConfigError,
    ConnectionLostError,
    FocusError,
    ProtocolError,
    RefusedError,
    ServerError,
)
from focus_backend.export.folder import RESULT_FILE, RESULT_FILES
from focus_backend.photo import read_photo_file
from focus_backend.photo_paths import photo_name
from focus_backend.progress import Progress
from focus_backend.serving import wire
from focus_backend.serving.client import Client, PendingResult, ProgressCallback, ReconstructionResult
from focus_backend.serving.session import one_line

_PARTS = ("files",)
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_SECONDS_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True)
class ServerFace:
    """A face as the server sent it."""

    face_index: int
    warnings: tuple[str, ...]
    content: Mapping[str, bytes]

    def files(self) -> Mapping[str, bytes]:
        """Content of every file of its folder, by name."""
        return self.content


class ServerWork:
    """Sends photos to a server and takes their files.

    A lost connection costs the photo whose turn it is; the next one tries once to connect anew.

    Args:
        connect: makes the connection, which has to find the server anew where it was lost.
        options: for every photo.
        note: tells the user what goes on besides results.
        patience: seconds for which a lost server is looked for, as somebody may be starting it again.
    """

    window = 1

    def __init__(
        self,
        connect: Callable[[], Client],
        options: wire.Options,
        note: Callable[[str], None],
        patience: float = 10.0,
    ) -> None:
        self._connect = connect
        self._options = options
        self._note = note
        self._patience = patience
        self._client: Client | None = None
        self._is_told_busy = False
        self._most_faces = 0
        self.is_connected = False
        # Counts the connections that were lost: a photo of an older one is sent again, and not blamed for the loss.
        self.losses = 0

    def start(self, path: Path, progress: Progress | None) -> ServerPhoto:
        """Read the photo's file and send it.

        Raises:
            PhotoError: missing, unreadable, empty or too large.
            BatchError: there is no such server, or it does not let us in.
        """
        data = read_photo_file(path)
        if self._client is None:
            self.reconnect()
        photo = ServerPhoto(self, photo_name(path), data, progress)
        photo.submit()
        return photo

    def submit(self, name: str, data: bytes, progress: ProgressCallback | None) -> PendingResult:
        """Send a photo.

        Raises:
            ConnectionLostError: there is no connection.
        """
        if self._client is None or not self.is_connected:
            raise ConnectionLostError("the connection to the server was lost", "start the server again")
        return self._client.submit(data, name=name, options=self._options, parts=_PARTS, progress=progress)

    def lost(self) -> None:
        """The connection is of no use any more."""
        self.losses += 1
        self.is_connected = False

    def reconnect(self) -> None:
        """Connect, unless another photo has done so since the loss.

        Raises:
            BatchError: there is no such server, or it does not let us in or lacks the method.
        """
        if self.is_connected:
            return
        try:
            welcome = self._greet()
            _check_method(self._options.method, welcome.methods)
        except FocusError as error:
            raise BatchError(error) from error
        self.is_connected = True
        self._most_faces = welcome.limits.faces
        self.window = max(1, min(2 * welcome.workers, welcome.limits.requests_in_flight))

    def _greet(self) -> wire.Welcome:
        if self._client is None:
            self._client = self._connect()
            return self._client.hello()
        self._note("the server is gone; looking for it again")
        latest = time.monotonic() + self._patience
        while True:
            try:
                return self._client.hello()
            except ServerError as error:
                if not _is_loss(error) or time.monotonic() >= latest:
                    raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def wait(self, error: BusyError, seconds: float) -> None:
        """Let a busy server get on with its work; the user is told once, until it has answered again."""
        if not self._is_told_busy:
            self._note(f"{error.problem}; waiting until it takes more")
        self._is_told_busy = True
        time.sleep(seconds)

    def note_cut(self, name: str, faces: int) -> None:
        """Tell the user where the server's limit may have left faces out."""
        wanted = self._options.faces
        if faces == self._most_faces and (wanted is None or wanted > faces):
            self._note(f"{name}: this server gives {faces} faces of a photo at most; smaller ones are left out")

    def answered(self) -> None:
        """The server has done something for us."""
        self._is_told_busy = False

    def close(self) -> None:
        """Cancel what is under way at the server, and leave it."""
        self.is_connected = False
        if self._client is not None:
            self._client.close()


def _check_method(method: str | None, methods: Sequence[str]) -> None:
    """Whether the server has the method; before its workers are ready it tells none.

    Raises:
        ConfigError: it has not.
    """
    if method is not None and methods and method not in methods:
        raise ConfigError(f"the server has no method {method!r}", f"it has {', '.join(methods)}; leave --method out for the first")


class ServerPhoto:
    """A photo at the server.

    Args:
        work: sends it.
        name: of the photo.
        data: its file's bytes.
        progress: is told how far it is.
    """

    def __init__(self, work: ServerWork, name: str, data: bytes, progress: Progress | None) -> None:
        self._work = work
        self._name = name
        self._data = data
        self._progress = progress
        # The losses before it was sent; -1 where it was not.
        self._losses = -1
        self._answer: PendingResult | FocusError | None = None

    def submit(self) -> None:
        """Send the photo; what keeps it from being sent is told when its turn has come."""
        self._losses = self._work.losses if self._work.is_connected else -1
        try:
            self._answer = self._work.submit(self._name, self._data, self._told if self._progress is not None else None)
        except FocusError as error:
            self._answer = error

    def finish(self) -> PhotoResult:
        """Its faces, once the server has sent them.

        Raises:
            BatchError: the server is gone, or does not let us in any more.
            FocusError: this photo failed, or the server was lost while it was this photo's turn.
        """
        result = self._result()
        self._work.answered()
        if not result.message.faces:
            raise ProtocolError(f"the server's answer for {self._name} has no faces", "use a client and a server of the same FOCUS version")
        self._work.note_cut(self._name, len(result.message.faces))
        faces = [
            ServerFace(face.index, tuple(map(one_line, face.warnings)), _checked(dict(result.files(face.index)), self._name))
            for face in result.message.faces
        ]
        return PhotoResult(faces, hashlib.sha256(self._data).hexdigest(), result.message.seconds)

    def _result(self) -> ReconstructionResult:
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._wait()
            except BusyError as error:
                self._work.wait(error, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except (ClosingError, RefusedError) as error:
                raise BatchError(error) from error
            except ServerError as error:
                if not _is_loss(error):
                    raise
                if self._losses == self._work.losses:
                    self._work.lost()
                    raise
                self._work.reconnect()
            self.submit()

    def _wait(self) -> ReconstructionResult:
        if isinstance(self._answer, PendingResult):
            return self._answer.result()
        assert self._answer is not None  # a photo is sent when it is started
        raise self._answer

    def _told(self, stage: str, fraction: float, preview: wire.Array | None = None) -> None:
        if self._progress is not None:
            self._progress(stage, fraction)


def _is_loss(error: ServerError) -> bool:
    """Whether it says that there is no connection, or no server to connect to."""
    return isinstance(error, ConnectionLostError) or (type(error) is ServerError and error.code == ServerError.code)


def _checked(files: Mapping[str, bytes], name: str) -> Mapping[str, bytes]:
    """The files, if they are those of a result: a server may not name others, let alone paths.

    Raises:
        ProtocolError: they are not.
    """
    if RESULT_FILE not in files or not RESULT_FILES.issuperset(files):
        raise ProtocolError(
            f"the server's answer for {name} is not a result's files", "use a client and a server of the same FOCUS version"
        )
    return files
