"""What is looked at in a request before any work is done for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from focus_backend.errors import ConfigError, ProtocolError
from focus_backend.serving.config import LimitsConfig
from focus_backend.serving.wire import Array, Landmarks, Message, Options, Reconstruct

_LONGEST_NAME = 255
_SMALLEST_TEXTURE = 16


def admit(message: Message, limits: LimitsConfig, *, methods: Sequence[str], parts: Sequence[str]) -> Reconstruct:
    """The request in a message, within all limits.

    What may be less than was asked for (deadline, preview, faces) is brought within the limits.

    Args:
        message: with a `Reconstruct`.
        limits: of the server.
        methods: that the workers know; empty while that is not known.
        parts: the same.

    Raises:
        ProtocolError: the photo is missing or beyond the limits.
        ConfigError: an option is out of its range.
    """
    request: Reconstruct = message.body
    _check_photo(message.arrays, limits)
    if len(request.name) > _LONGEST_NAME:
        raise ProtocolError(f"the photo's name has {len(request.name)} characters", f"send at most {_LONGEST_NAME}")
    unknown = [part for part in request.parts if parts and part not in parts]
    if unknown:
        raise ConfigError(f"there is no part {_shown(unknown[0])}", f"ask for some of {', '.join(parts)}")
    if request.preview_side < 0:
        raise ConfigError(f"preview_side is {request.preview_side}", f"send 0 to {limits.preview_side}")
    return dataclasses.replace(
        request,
        options=_checked_options(request.options, limits, methods),
        deadline_seconds=_checked_deadline(request.deadline_seconds, limits),
        preview_side=min(request.preview_side, limits.preview_side),
    )


def _check_photo(arrays: Mapping[str, Array], limits: LimitsConfig) -> None:
    if len(arrays) != 1 or next(iter(arrays)) not in ("photo", "pixels"):
        raise ProtocolError("the request does not have one photo", 'send one array, "photo" (a file) or "pixels"')
    ((name, array),) = arrays.items()
    if name == "photo":
        if array.dtype != "uint8" or len(array.shape) != 1 or array.shape[0] == 0:
            raise ProtocolError('the array "photo" is no file', "send its bytes, as uint8 with one dimension")
        return
    if array.dtype != "uint8" or len(array.shape) != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ProtocolError('the array "pixels" is no picture', "send RGB as uint8 of height, width, 3")
    height, width = array.shape[:2]
    if max(height, width) > limits.side or height * width > limits.pixels:
        remedy = f"send at most {limits.pixels} pixels and {limits.side} a side"
        raise ProtocolError(f"the photo has {width} x {height} pixels", remedy)


def _checked_options(options: Options, limits: LimitsConfig, methods: Sequence[str]) -> Options:
    if options.method is not None and methods and options.method not in methods:
        raise ConfigError(f"there is no method {_shown(options.method)}", f"ask for one of {', '.join(methods)}")
    if options.faces is not None and options.faces < 1:
        raise ConfigError(f"{options.faces} faces are wanted", f"ask for 1 to {limits.faces}")
    size = options.texture_size
    if size is not None and not _SMALLEST_TEXTURE <= size <= limits.texture_size:
        raise ConfigError(f"texture_size is {size}", f"send {_SMALLEST_TEXTURE} to {limits.texture_size}")
    _check_landmarks(options.landmarks)
    faces = options.faces if options.faces is None else min(options.faces, limits.faces)
    return dataclasses.replace(options, faces=faces)


def _check_landmarks(landmarks: Landmarks | None) -> None:
    if landmarks is not None and any(len(point) != 2 for point in landmarks.points.values()):
        raise ProtocolError("a landmark is no point", "send two numbers for each, x and y in pixels")


def _checked_deadline(seconds: float | None, limits: LimitsConfig) -> float:
    if seconds is None:
        return limits.deadline_seconds
    if seconds <= 0:
        raise ConfigError(f"the deadline is {seconds:g} s", f"send more than 0, at most {limits.deadline_seconds:g}")
    return min(seconds, limits.deadline_seconds)


def _shown(text: str) -> str:
    """A client's text as one short line of ASCII."""
    return ascii(text[:40])
