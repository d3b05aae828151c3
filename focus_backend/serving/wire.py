"""The messages between FOCUS clients and servers, and their bytes. docs/protocol.md describes them for other languages.

A message is a list of frames: a header in JSON, then one frame of raw bytes for each array the header lists. Nothing is
ever unpickled. This file needs the standard library only: Blender's add-on ships a copy of it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

PROTOCOL = 1
# Raw arrays are little-endian and in C order.
ITEM_BYTES = {"uint8": 1, "int32": 4, "int64": 8, "uint32": 4, "float32": 4, "float64": 8}
# Python's buffer formats; a C long has four bytes on Windows and eight elsewhere, so the width is taken from the item.
_FORMAT_KINDS = {"?": "uint", **dict.fromkeys("BIL", "uint"), **dict.fromkeys("ilq", "int"), **dict.fromkeys("fd", "float")}
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SECRET = re.compile(r"[!-~]{0,256}")
# Parts between slashes never start with a dot, so that a name is safe as a relative path.
_ARRAY_NAME = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_MOST_DIMENSIONS = 4
# Beyond these JavaScript, and every reader that takes JSON's numbers for doubles, would read another number.
_LARGEST_INTEGER = 2**53 - 1
# The largest double in full has 309 digits. Python takes time quadratic in the digits of longer ones.
_LONGEST_NUMBER = 400


class WireError(Exception):
    """Bytes that are no message of this protocol, or a message that its limits forbid.

    Attributes:
        code: "malformed", "version", "unknown-type" or "too-large".
        problem: one line.
        remedy: one line.
        message_id: of the message, where it could be read; "" otherwise.
    """

    def __init__(self, code: str, problem: str, remedy: str = "", message_id: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.code = code
        self.problem = problem
        self.remedy = remedy
        self.message_id = message_id


@dataclass(frozen=True)
class WireLimits:
    """What is refused before it is looked into.

    Attributes:
        header_bytes: of the JSON header.
        frames: of one message, header included.
        frame_bytes: of one frame.
        total_bytes: of one message.
    """

    header_bytes: int = 2**16
    frames: int = 8
    frame_bytes: int = 64 * 2**20
    total_bytes: int = 64 * 2**20 + 2**16


# A result brings several pictures and meshes of many faces.
ANSWER_LIMITS = WireLimits(header_bytes=16 * 2**20, frames=1024, frame_bytes=256 * 2**20, total_bytes=2**30)


@dataclass(frozen=True)
class Array:
    """A raw array: little-endian, C order.

    Attributes:
        dtype: a key of `ITEM_BYTES`.
        shape: at most four dimensions; none for a single number.
        data: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of(cls, source: Any) -> Array:
        """The array in anything with a contiguous buffer: bytes, a numpy array, an `array.array`. Not copied.

        Raises:
            ValueError: its items are of a type that is not in `ITEM_BYTES` or big-endian, it is not contiguous, or its shape is too large.
            TypeError: it has no buffer.
        """
        view = memoryview(source)
        shape = tuple(view.shape or ())
        dtype = f"{_FORMAT_KINDS.get(view.format.lstrip('@'))}{8 * view.itemsize}"
        if dtype not in ITEM_BYTES or (view.itemsize > 1 and sys.byteorder != "little"):
            raise ValueError(f"an array with items {view.format!r} cannot be sent")
        if not _is_shape(shape):
            raise ValueError(f"an array of shape {shape} cannot be sent")
        return cls(dtype, shape, _flat(view))


@dataclass(frozen=True)
class Landmarks:
    """A user's own landmarks by name, (x, y) in pixels of the upright file; docs/landmarks.md lists the names."""

    points: dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """How a photo is to be reconstructed. None leaves the choice to the server.

    Attributes:
        method: one of those the server's `Welcome` lists.
        misfit: take the misfit prior off, where the weights have one.
        faces: how many, largest first; None for all that the server admits.
        texture_size: textures are scaled down to so many pixels a side; None leaves them as they are.
        landmarks: of the one face wanted, instead of a detector's.
    """

    method: str | None = None
    misfit: bool = True
    faces: int | None = None
    texture_size: int | None = None
    landmarks: Landmarks | None = None


@dataclass(frozen=True)
class Limits:
    """What a server admits; a client that keeps to it is never refused for size.

    Attributes:
        header_bytes: of a request's header.
        frames: of a request, header included.
        frame_bytes: of one frame.
        total_bytes: of a request.
        pixels: of a photo, width times height.
        side: longest side of a photo, pixels.
        faces: of one photo; smaller faces are left out.
        requests_in_flight: of one client.
        queue: requests waiting, of all clients.
        queue_bytes: of all waiting and running requests.
        deadline_seconds: the longest a request may take, waiting included.
        preview_side: longest side of a preview, pixels.
        texture_size: largest texture, pixels a side.
    """

    header_bytes: int
    frames: int
    frame_bytes: int
    total_bytes: int
    pixels: int
    side: int
    faces: int
    requests_in_flight: int
    queue: int
    queue_bytes: int
    deadline_seconds: float
    preview_side: int
    texture_size: int


@dataclass(frozen=True)
class ModelInfo:
    """A face model that the server holds.

    Attributes:
        name: such as "anny".
        sha256: of its content; results of one hash share topology, so a client may keep the part "model".
        vertices: how many.
        expressions: names of the expressions, in the order of the part "model".
    """

    name: str
    sha256: str
    vertices: int
    expressions: list[str]


@dataclass(frozen=True)
class Face:
    """One face of a result; its arrays are named `face<index>/...`.

    Attributes:
        index: 0 for the largest.
        warnings: what the user should know.
        document: what `result.json` holds: theta, camera, lighting, landmarks, versions (docs/results.md).
    """

    index: int
    warnings: list[str]
    document: dict[str, Any]


@dataclass(frozen=True)
class Hello:
    """Asks who the server is. Answered with `Welcome`.

    Attributes:
        software: the client's name and version.
    """

    kind: ClassVar[str] = "hello"
    software: str = ""


@dataclass(frozen=True)
class Reconstruct:
    """Asks for the faces of a photo. Answered with `Accepted`, then `Progress` any number of times, then `Result` or `Error`.

    The photo is the array "photo" (uint8 [bytes], an image file as it is) or "pixels" (uint8 [height width 3], upright RGB in sRGB).

    Attributes:
        name: what messages and `result.json` call the photo; never logged.
        options: how.
        parts: which arrays are wanted, of those the server's `Welcome` lists.
        deadline_seconds: after which an answer is of no use, counted from arrival; None for the server's longest.
        progress: whether `Progress` is wanted.
        preview_side: longest side of previews in pixels; 0 for none.
    """

    kind: ClassVar[str] = "reconstruct"
    name: str = "photo"
    options: Options = Options()
    parts: list[str] = field(default_factory=lambda: ["geometry", "texture", "masks"])
    deadline_seconds: float | None = None
    progress: bool = True
    preview_side: int = 0


@dataclass(frozen=True)
class Cancel:
    """Asks to give up a request of the same client. Answered with `Done`; the request itself with the `Error` "cancelled".

    Attributes:
        target: id of the request.
    """

    kind: ClassVar[str] = "cancel"
    target: str


@dataclass(frozen=True)
class Ping:
    """Asks whether the server is alive. Answered with `Pong`. A client that waits for an answer sends one every few seconds."""

    kind: ClassVar[str] = "ping"


@dataclass(frozen=True)
class Status:
    """Asks how the server is. Answered with `StatusReport`.

    Attributes:
        prometheus: whether the report is wanted as Prometheus text, too.
    """

    kind: ClassVar[str] = "status"
    prometheus: bool = False


@dataclass(frozen=True)
class Shutdown:
    """Asks the server to end; its owner only, over loopback. Answered with `Done`.

    Attributes:
        grace_seconds: how long running work may go on; None for the server's own.
    """

    kind: ClassVar[str] = "shutdown"
    grace_seconds: float | None = None


@dataclass(frozen=True)
class Welcome:
    """Who the server is.

    Attributes:
        software: its name and version.
        protocols: the versions it speaks.
        limits: what it admits.
        models: face models it holds; the first is used. Empty until its first worker is ready.
        methods: for `Options.method`; the first is the default. Empty until its first worker is ready.
        parts: for `Reconstruct.parts`.
        device: where the networks run.
        workers: how many there are.
        workers_ready: how many of them have everything loaded.
        is_owner: whether this connection may ask for `Shutdown`.
    """

    kind: ClassVar[str] = "welcome"
    software: str
    protocols: list[int]
    limits: Limits
    models: list[ModelInfo]
    methods: list[str]
    parts: list[str]
    device: str
    workers: int
    workers_ready: int
    is_owner: bool


@dataclass(frozen=True)
class Accepted:
    """The request waits. Sent again every 2 s while it waits, and when it was sent twice.

    Attributes:
        ahead: how many requests will be started before it; 0 when it is next or was started.
    """

    kind: ClassVar[str] = "accepted"
    ahead: int


@dataclass(frozen=True)
class Progress:
    """How far a request is; with the array "preview" (uint8 [height width 3], sRGB) where one was asked for.

    Attributes:
        stage: in words.
        fraction: 0 to 1; never goes back, except when a worker died and the request is tried again.
    """

    kind: ClassVar[str] = "progress"
    stage: str
    fraction: float


@dataclass(frozen=True)
class Result:
    """The faces of a photo, largest first, with the arrays of the parts that were asked for (docs/protocol.md lists them).

    Attributes:
        faces: at least one.
        model: the face model they are faces of.
        parts: those that were asked for.
        seconds: that the work took, waiting not included.
    """

    kind: ClassVar[str] = "result"
    faces: list[Face]
    model: ModelInfo
    parts: list[str]
    seconds: float


@dataclass(frozen=True)
class Error:
    """The request failed; nothing more follows for its id.

    Attributes:
        code: for programs; docs/protocol.md lists them.
        problem: what was wrong, one line.
        remedy: what to do about it, one line, may be empty.
        ahead: with code "busy", how many requests the server holds.
    """

    kind: ClassVar[str] = "error"
    code: str
    problem: str
    remedy: str = ""
    ahead: int | None = None


@dataclass(frozen=True)
class Done:
    """A `Cancel` or `Shutdown` was carried out.

    Attributes:
        found: whether there was such a request to cancel.
    """

    kind: ClassVar[str] = "done"
    found: bool = True


@dataclass(frozen=True)
class Pong:
    """The server is alive."""

    kind: ClassVar[str] = "pong"


@dataclass(frozen=True)
class WorkerReport:
    """How one worker is.

    Attributes:
        pid: its process.
        state: "starting", "idle", "busy" or "lost".
        requests: that it has answered.
        memory_bytes: resident.
    """

    pid: int
    state: str
    requests: int
    memory_bytes: int


@dataclass(frozen=True)
class StatusReport:
    """How the server is.

    Attributes:
        uptime_seconds: since it was started.
        queued: requests waiting.
        running: requests being worked on.
        clients: connections heard of lately.
        answered: requests that got a result.
        failed: requests that got an error, by its code.
        requests_per_second: over the last minute.
        latency_seconds: "p50", "p95" and "p99" of the last requests, from arrival to answer.
        work_seconds: the same without the waiting.
        worker_restarts: workers that died and were replaced.
        memory_bytes: resident, of the server process without its workers.
        handles: open files and sockets of the server process.
        workers: each.
        prometheus: the same as Prometheus text, where it was asked for.
    """

    kind: ClassVar[str] = "status-report"
    uptime_seconds: float
    queued: int
    running: int
    clients: int
    answered: int
    failed: dict[str, int]
    requests_per_second: float
    latency_seconds: dict[str, float]
    work_seconds: dict[str, float]
    worker_restarts: int
    memory_bytes: int
    handles: int
    workers: list[WorkerReport]
    prometheus: str = ""


REQUESTS: tuple[type, ...] = (Hello, Reconstruct, Cancel, Ping, Status, Shutdown)
ANSWERS: tuple[type, ...] = (Welcome, Accepted, Progress, Result, Error, Done, Pong, StatusReport)


@dataclass(frozen=True)
class Message:
    """A message with what goes around it.

    Attributes:
        id: chosen by the client for each request, never twice; answers carry the id of their request.
        body: one of `REQUESTS` or `ANSWERS`.
        arrays: by name.
        secret: from the ready file; requests over loopback carry it. Left out of `repr`, for messages may be logged.
    """

    id: str
    body: Any
    arrays: Mapping[str, Array] = field(default_factory=dict)
    secret: str = field(default="", repr=False)


def pack(message: Message) -> list[bytes | memoryview]:
    """The frames of a message. Data of arrays are not copied.

    Raises:
        ValueError: the id, the secret, an array's name, type or size is not allowed, a number is not finite, or JSON cannot say it.
    """
    if not _IDENTIFIER.fullmatch(message.id):
        raise ValueError(f"{message.id!r} is no id")
    if not _SECRET.fullmatch(message.secret):
        raise ValueError("a secret is up to 256 visible ASCII characters")
    header: dict[str, Any] = {"focus": PROTOCOL, "type": message.body.kind, "id": message.id}
    if message.secret:
        header["secret"] = message.secret
    header["body"] = message.body
    header["arrays"] = [{"name": name, "dtype": array.dtype, "shape": list(array.shape)} for name, array in message.arrays.items()]
    data = [_data_to_send(name, array) for name, array in message.arrays.items()]
    try:
        # ASCII, so that even half a surrogate in a file name can be sent.
        encoded = json.dumps(header, default=_fields, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"JSON cannot say this message: {error}") from None
    return [encoded, *data]


def unpack(frames: Sequence[Any], allowed: Iterable[type], limits: WireLimits | None = None) -> Message:
    """The message in frames. Fields that are not known are left out; data of arrays are views of the frames.

    Args:
        frames: as they came: bytes, memoryviews, `zmq.Frame`s, anything with a contiguous buffer.
        allowed: bodies that are expected: `REQUESTS` or `ANSWERS`.
        limits: what to refuse; `WireLimits()` by default.

    Raises:
        WireError: they are no message, of another version or kind, or too large.
    """
    views = [_flat(memoryview(frame)) for frame in frames]
    _check_sizes([view.nbytes for view in views], limits or WireLimits())
    header = _read_header(bytes(views[0]))
    message_id = header.get("id")
    if not isinstance(message_id, str) or not _IDENTIFIER.fullmatch(message_id):
        message_id = ""
    try:
        # First of all, for another version may have another idea of everything else.
        _check_version(header)
        if not message_id:
            raise WireError("malformed", "the message has no id", "send 1 to 64 letters, digits or any of _.:- as id")
        body = _read_body(header, allowed)
        secret = _read_secret(header)
        arrays = _read_arrays(header.get("arrays", []), views[1:])
    except WireError as error:
        error.message_id = message_id
        raise
    return Message(message_id, body, arrays, secret)


def _flat(view: memoryview) -> memoryview:
    """The view's bytes.

    Raises:
        ValueError: they do not lie one after the other.
    """
    if not view.c_contiguous:
        raise ValueError("an array that is not contiguous cannot be sent")
    # A view without items has a zero in its shape, which cast refuses.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _data_to_send(name: str, array: Array) -> bytes | memoryview:
    if not _ARRAY_NAME.fullmatch(name):
        raise ValueError(f"an array cannot be called {name!r}")
    data = array.data if isinstance(array.data, bytes) else _flat(memoryview(array.data))
    if array.dtype not in ITEM_BYTES or not _is_shape(array.shape) or _array_bytes(array.dtype, array.shape) != len(data):
        raise ValueError(f"array {name} of {array.dtype} {array.shape} cannot be sent with {len(data)} bytes")
    return data


def _fields(value: Any) -> dict[str, Any]:
    """What JSON is to say for one of our dataclasses."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}


def _check_sizes(sizes: Sequence[int], limits: WireLimits) -> None:
    if not sizes:
        raise WireError("malformed", "the message has no frames", "send a header in JSON first")
    for thing, size, most in (
        ("the message has {} frames", len(sizes), limits.frames),
        ("the header has {} bytes", sizes[0], limits.header_bytes),
        ("a frame has {} bytes", max(sizes), limits.frame_bytes),
        ("the message has {} bytes", sum(sizes), limits.total_bytes),
    ):
        if size > most:
            raise WireError("too-large", f"{thing.format(size)}, more than {most}", "keep to the limits in the server's welcome")


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_read_object,
            parse_int=_read_integer,
            parse_float=_read_float,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise WireError("malformed", "the header is not JSON", "send a JSON object in UTF-8 as the first frame") from None
    if not isinstance(header, dict):
        raise WireError("malformed", "the header is no JSON object", "send a JSON object in UTF-8 as the first frame")
    return header


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal keys they take, and would see two different messages.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a key twice")
    return members


def _read_integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(text)


def _read_float(text: str) -> float:
    # 1e999 is a JSON number, but infinite.
    if len(text) > _LONGEST_NUMBER or not math.isfinite(number := float(text)):
        raise ValueError("a number is too long or too large")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check_version(header: Mapping[str, Any]) -> None:
    version = header.get("focus")
    if type(version) is not int or not 0 <= version < 2**31:
        raise WireError("malformed", 'the header has no protocol version "focus"', f"send {PROTOCOL}")
    if version != PROTOCOL:
        raise WireError(
            "version", f"protocol {version} is not spoken here, but {PROTOCOL}", "use a client and a server of the same FOCUS version"
        )


def _read_body(header: Mapping[str, Any], allowed: Iterable[Any]) -> Any:
    kind = header.get("type")
    known = {body.kind: body for body in allowed}
    if not isinstance(kind, str) or kind not in known:
        shown = ascii(kind[:40]) if isinstance(kind, str) else "none"
        raise WireError("unknown-type", f"there is no message of type {shown} here", f"send one of {', '.join(known)}")
    return _checked(header.get("body", {}), known[kind], kind)


def _read_secret(header: Mapping[str, Any]) -> str:
    secret = header.get("secret", "")
    # ASCII only: comparing others in constant time is an error.
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        raise WireError("malformed", "the secret is no text", "send that of the ready file")
    return secret


def _read_arrays(listed: Any, frames: Sequence[memoryview]) -> dict[str, Array]:
    if not isinstance(listed, list) or len(listed) != len(frames):
        raise WireError("malformed", f"{len(frames)} frames follow the header, but it lists others", 'list each in "arrays", in order')
    arrays: dict[str, Array] = {}
    for entry, frame in zip(listed, frames, strict=True):
        given = entry if isinstance(entry, dict) else {}
        name, dtype, shape = given.get("name"), given.get("dtype"), given.get("shape")
        if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name) or name in arrays:
            raise WireError("malformed", "an array has no name of its own", "name it with letters, digits or any of _./-")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES or not isinstance(shape, list) or not _is_shape(shape):
            raise WireError("malformed", f"array {name} has no type and shape", f"send one of {', '.join(ITEM_BYTES)} and up to four sizes")
        if _array_bytes(dtype, shape) != frame.nbytes:
            raise WireError("malformed", f"array {name} has {frame.nbytes} bytes, which is not its type times its shape")
        arrays[name] = Array(dtype, tuple(shape), frame)
    return arrays


def _is_shape(shape: Sequence[Any]) -> bool:
    if len(shape) > _MOST_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        return False
    # A zero hides what numpy, which multiplies the others all the same, calls too big.
    return math.prod(size or 1 for size in shape) < 2**48


def _array_bytes(dtype: str, shape: Sequence[int]) -> int:
    return ITEM_BYTES[dtype] * math.prod(shape)


def _checked(value: Any, annotation: Any, name: str) -> Any:
    """`value` as what `annotation` says: a plain type, list, dict with text keys, one of these or None, or one of our dataclasses.

    Raises:
        WireError: it is something else.
    """
    if annotation is Any:
        return value
    if annotation in (str, bool):
        is_right = type(value) is annotation
    elif annotation is int:
        is_right = type(value) is int and abs(value) <= _LARGEST_INTEGER
    elif annotation is float:
        # Many languages write 5.0 as 5, and 1e20 with all its zeros.
        is_right = type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
        value = float(value) if is_right else value
    else:
        return _checked_compound(value, annotation, name)
    if not is_right:
        raise WireError("malformed", f"{name} is not {_words(annotation)}")
    return value


def _checked_compound(value: Any, annotation: Any, name: str) -> Any:
    if dataclasses.is_dataclass(annotation):
        return _dataclass_of(value, annotation, name)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(value, next(a for a in arguments if a is not type(None)), name)
    if origin is list and isinstance(value, list):
        return [_checked(item, arguments[0], name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(item, arguments[1], name) for key, item in value.items()}
    raise WireError("malformed", f"{name} is not {_words(annotation)}")


@functools.cache
def _annotations(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass_of(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise WireError("malformed", f"{name} is no JSON object")
    given = {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            given[entry.name] = _checked(value[entry.name], _annotations(kind)[entry.name], f"{name}.{entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise WireError("malformed", f"{name}.{entry.name} is missing")
    return kind(**given)


def _words(annotation: Any) -> str:
    plain = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
    return plain.get(annotation) or {list: "a list", dict: "a JSON object"}.get(typing.get_origin(annotation), "what it should be")
