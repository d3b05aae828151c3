"""Runs inside Blender: how long its main thread was away, and when heads came."""

from __future__ import annotations

import os
import sys
import threading
import time
import types

import bpy

TICK_SECONDS = 0.005
ARKIT_KEYS = {"jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUp", "tongueOut"}
COLLECTION_PREFIX = "FOCUS "


class Watch:
    """How long Blender's main thread was away from its timers, and when heads came.

    Attributes:
        started: `time.monotonic()` of the last `reset`.
        gaps: seconds between two ticks, and when the first of them was.
        heads: when each head that came after `started` was first seen.
        turns_view: the 3D viewport is drawn anew at every tick.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts anew."""
        self.started = self.last = time.monotonic()
        self.gaps: list[tuple[float, float]] = []
        self.heads: dict[str, float] = {}
        self.known = {item.name for item in bpy.data.objects if is_head(item)}
        self.turns_view = False

    def tick(self) -> float:
        """Called by Blender every 5 ms, when it can."""
        now = time.monotonic()
        self.gaps.append((now - self.last, self.last))
        for name in (item.name for item in bpy.data.objects if item.name not in self.known and is_head(item)):
            self.heads.setdefault(name, now)
        if self.turns_view:
            _redraw_viewports()
        # What this function takes itself is no gap.
        self.last = time.monotonic()
        return TICK_SECONDS


def is_head(item: bpy.types.Object) -> bool:
    """A mesh of one of the extension's collections with ARKit's shape keys."""
    if item.type != "MESH" or not any(collection.name.startswith(COLLECTION_PREFIX) for collection in item.users_collection):
        return False
    keys = item.data.shape_keys
    return keys is not None and ARKIT_KEYS.issubset(keys.key_blocks.keys())


def _redraw_viewports() -> None:
    for area in bpy.context.window_manager.windows[0].screen.areas:
        if area.type == "VIEW_3D":
            area.tag_redraw()


class OwnCode:
    """How long Blender's main thread stays in the extension's own code: Python tells when its functions begin and return.

    Only functions of its `interface` package are listened to, through which everything enters, and only where none of them is below;
    drawing and everything else of Blender is not part of it. Before Python 3.12 there is nothing to listen to.

    Attributes:
        stays: seconds by the clock, seconds of the processor (a busy machine makes only the former longer), and the function.
    """

    def __init__(self) -> None:
        self.stays: list[tuple[float, float, str]] = []
        self.is_listening = False
        self._entered: tuple[object, float, float] | None = None

    def listen(self) -> None:
        """Begins anew."""
        self.stays.clear()
        if self.is_listening or not hasattr(sys, "monitoring"):
            return
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(sys.monitoring.PROFILER_ID, "window test")
        sys.monitoring.register_callback(sys.monitoring.PROFILER_ID, events.PY_START, self._enter)
        sys.monitoring.register_callback(sys.monitoring.PROFILER_ID, events.PY_RETURN, self._leave)
        for code in _own_code():
            sys.monitoring.set_local_events(sys.monitoring.PROFILER_ID, code, events.PY_START | events.PY_RETURN)
        self.is_listening = True

    def _enter(self, code: object, _offset: int) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not _is_below_own_code(sys._getframe(1)):
            self._entered = sys._getframe(1), time.monotonic(), time.thread_time()

    def _leave(self, code: object, _offset: int, _value: object) -> None:
        if self._entered and self._entered[0] is sys._getframe(1):
            self.stays.append((time.monotonic() - self._entered[1], time.thread_time() - self._entered[2], code.co_qualname))
            self._entered = None


def _own_code() -> list:
    """Code of all functions and methods of the extension's `interface` package."""
    modules = [module for name, module in sys.modules.items() if ".focus_face.interface" in name]
    owners = [vars(module) for module in modules]
    owners += [vars(kind) for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return [
        value.__code__ for owner in owners for value in owner.values() if isinstance(value, types.FunctionType) and _is_own(value.__code__)
    ]


def _is_own(code: types.CodeType) -> bool:
    return f"focus_face{os.sep}interface" in code.co_filename


def _is_below_own_code(frame: types.FrameType) -> bool:
    while frame := frame.f_back:
        if _is_own(frame.f_code):
            return True
    return False
