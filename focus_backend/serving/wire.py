"""The messages between FOCUS clients and servers, and their bytes. docs/protocol.md describes them for other languages.

A message is a list of frames: a header in JSON, then one frame of raw bytes for each array the header lists. Nothing is
ever unpickled. This file needs the standard library only: Blender's add-on ships a copy of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

PROTOCOL = 1
# Raw arrays are little-endian and in C order.
ITEM_BYTES = {"uint8": 1, "int32": 4, "int64": 8, "uint32": 4, "float32": 4, "float64": 8}
_BUFFER_FORMATS = {"B": "uint8", "?": "uint8", "i": "int32", "I": "uint32", "q": "int64", "l": "int64", "f": "float32", "d": "float64"}
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_MOST_DIMENSIONS = 4


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

    header_bytes: int = 2**20
    frames: int = 8
    frame_bytes: int = 64 * 2**20
    total_bytes: int = 64 * 2**20 + 2**20


# A result brings several pictures and meshes of many faces.
ANSWER_LIMITS = WireLimits(header_bytes=16 * 2**20, frames=1024, frame_bytes=256 * 2**20, total_bytes=2**30)


@dataclass(frozen=True)
class Array:
    """A raw array: little-endian, C order.

    Attributes:
        dtype: a key of `ITEM_BYTES`.
        shape: at most four dimensions.
        data: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of(cls, source: Any) -> Array:
        """The array in anything with a contiguous buffer: bytes, a numpy array, an `array.array`.

        Raises:
            ValueError: its items are of a type that is not in `ITEM_BYTES`, or it is not contiguous.
        """
        view = memoryview(source)
        dtype = _BUFFER_FORMATS.get(view.format.lstrip("@=<"))
        if dtype is None or ITEM_BYTES[dtype] != view.itemsize or not view.c_contiguous:
            raise ValueError(f"an array with items {view.format!r} cannot be sent")
        # A view without items has a zero in its shape, which cast refuses.
        return cls(dtype, tuple(view.shape), view.cast("B") if view.nbytes else b"")


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
    """The request waits. Sent again when its place has changed, or when it was sent twice.

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
        secret: from the ready file; requests over loopback carry it.
    """

    id: str
    body: Any
    arrays: Mapping[str, Array] = field(default_factory=dict)
    secret: str = ""


def pack(message: Message) -> list[bytes | memoryview]:
    """The frames of a message.

    Raises:
        ValueError: the id, an array's name or size is not allowed, or a number is not finite.
    """
    if not _IDENTIFIER.fullmatch(message.id):
        raise ValueError(f"{message.id!r} is no id")
    header: dict[str, Any] = {"focus": PROTOCOL, "type": message.body.kind, "id": message.id}
    if message.secret:
        header["secret"] = message.secret
    header["body"] = dataclasses.asdict(message.body)
    header["arrays"] = [{"name": name, "dtype": a.dtype, "shape": list(a.shape)} for name, a in message.arrays.items()]
    for name, array in message.arrays.items():
        if not _ARRAY_NAME.fullmatch(name) or _array_bytes(array.dtype, array.shape) != memoryview(array.data).nbytes:
            raise ValueError(f"array {name!r} cannot be sent")
    # ASCII, so that even half a surrogate in a file name can be sent.
    encoded = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    return [encoded, *(array.data for array in message.arrays.values())]


def unpack(frames: Sequence[bytes | memoryview], allowed: Iterable[type], limits: WireLimits | None = None) -> Message:
    """The message in frames. Fields that are not known are left out; data of arrays are views of the frames.

    Args:
        frames: as they came.
        allowed: bodies that are expected: `REQUESTS` or `ANSWERS`.
        limits: what to refuse; `WireLimits()` by default.

    Raises:
        WireError: they are no message, of another version or kind, or too large.
    """
    limits = limits or WireLimits()
    _check_sizes(frames, limits)
    header = _read_header(bytes(frames[0]))
    message_id = header.get("id")
    if not isinstance(message_id, str) or not _IDENTIFIER.fullmatch(message_id):
        raise WireError("malformed", "the message has no id", "send 1 to 64 letters, digits or any of _.:- as id")
    try:
        _check_version(header)
        body = _read_body(header, allowed)
        secret = _checked(header.get("secret", ""), str, "secret")
        arrays = _read_arrays(header.get("arrays", []), frames[1:])
    except WireError as error:
        error.message_id = message_id
        raise
    return Message(message_id, body, arrays, secret)


def _check_sizes(frames: Sequence[bytes | memoryview], limits: WireLimits) -> None:
    if not frames:
        raise WireError("malformed", "the message has no frames", "send a header in JSON first")
    if len(frames) > limits.frames:
        raise WireError("too-large", f"the message has {len(frames)} frames, more than {limits.frames}")
    sizes = [memoryview(frame).nbytes for frame in frames]
    if sizes[0] > limits.header_bytes:
        raise WireError("too-large", f"the header has {sizes[0]} bytes, more than {limits.header_bytes}")
    if max(sizes) > limits.frame_bytes:
        raise WireError("too-large", f"a frame has {max(sizes)} bytes, more than {limits.frame_bytes}")
    if sum(sizes) > limits.total_bytes:
        raise WireError("too-large", f"the message has {sum(sizes)} bytes, more than {limits.total_bytes}")


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise WireError("malformed", "the header is not JSON", "send a JSON object in UTF-8 as the first frame") from None
    if not isinstance(header, dict):
        raise WireError("malformed", "the header is no JSON object", "send a JSON object in UTF-8 as the first frame")
    return header


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check_version(header: Mapping[str, Any]) -> None:
    version = header.get("focus")
    if isinstance(version, bool) or not isinstance(version, int):
        raise WireError("malformed", 'the header has no protocol version "focus"', f"send {PROTOCOL}")
    if version != PROTOCOL:
        raise WireError(
            "version", f"protocol {version} is not spoken here, but {PROTOCOL}", "use a client and a server of the same FOCUS version"
        )


def _read_body(header: Mapping[str, Any], allowed: Iterable[type]) -> Any:
    kind = header.get("type")
    known = {body.kind: body for body in allowed}  # type: ignore[attr-defined]
    if not isinstance(kind, str) or kind not in known:
        shown = kind[:40] if isinstance(kind, str) else "none"
        raise WireError("unknown-type", f"there is no message of type {shown!r} here", f"send one of {', '.join(known)}")
    return _checked(header.get("body", {}), known[kind], kind)


def _read_arrays(listed: Any, frames: Sequence[bytes | memoryview]) -> dict[str, Array]:
    if not isinstance(listed, list) or len(listed) != len(frames):
        raise WireError("malformed", f"{len(frames)} frames follow the header, but it lists others", 'list each in "arrays", in order')
    arrays: dict[str, Array] = {}
    for entry, frame in zip(listed, frames, strict=True):
        name, dtype, shape = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "dtype", "shape"))
        if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name) or name in arrays:
            raise WireError("malformed", "an array has no name of its own", "name it with letters, digits or any of _./-")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES or not _is_shape(shape):
            raise WireError("malformed", f"array {name} has no type and shape", f"send one of {', '.join(ITEM_BYTES)} and up to four sizes")
        view = memoryview(frame)
        if _array_bytes(dtype, shape) != view.nbytes:
            raise WireError("malformed", f"array {name} has {view.nbytes} bytes, which is not its type times its shape")
        arrays[name] = Array(dtype, tuple(shape), view)
    return arrays


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        return False
    return all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40 for size in shape)


def _array_bytes(dtype: str, shape: Sequence[int]) -> int:
    return ITEM_BYTES[dtype] * math.prod(shape)


def _checked(value: Any, annotation: Any, name: str) -> Any:
    """`value` as what `annotation` says: a plain type, list, dict with text keys, union or one of our dataclasses.

    Raises:
        WireError: it is something else.
    """
    if annotation is Any:
        return value
    if dataclasses.is_dataclass(annotation):
        return _dataclass_of(value, annotation, name)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _checked(value, next(a for a in arguments if a is not type(None)), name)
    if origin is list and isinstance(value, list):
        return [_checked(item, arguments[0], name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(item, arguments[1], name) for key, item in value.items()}
    if annotation is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    # JSON's 1e999 is no constant, but infinite all the same.
    if isinstance(annotation, type) and type(value) is annotation and (annotation is not float or math.isfinite(value)):
        return value
    raise WireError("malformed", f"{name} is not {_words(annotation)}")


def _dataclass_of(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise WireError("malformed", f"{name} is no JSON object")
    annotations = typing.get_type_hints(kind)
    given = {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            given[entry.name] = _checked(value[entry.name], annotations[entry.name], f"{name}.{entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise WireError("malformed", f"{name}.{entry.name} is missing")
    return kind(**given)


def _words(annotation: Any) -> str:
    plain = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
    return plain.get(annotation) or {list: "a list", dict: "a JSON object"}.get(typing.get_origin(annotation), "what it should be")
