"""Frames of ZeroMQ that pass through this process without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import zmq


def views(frames: Sequence[zmq.Frame]) -> list[memoryview]:
    """What received frames hold. Not `Frame.buffer`, which the frame keeps, so that both live until Python looks for cycles."""
    buffers: Sequence[Any] = frames
    return [memoryview(buffer) for buffer in buffers]


def whole_frames(frames: Iterable[Any]) -> list[Any]:
    """The frames to send, where one is a view of a received one that very frame: ZeroMQ then counts references only."""
    return [frame.obj if isinstance(frame, memoryview) and isinstance(frame.obj, zmq.Frame) else frame for frame in frames]
