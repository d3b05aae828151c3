"""Runs inside Blender (`blender --python faults_player.py -- SOCKET`): does what it is told, and says what the panel shows.

Questions are lines of JSON on a Unix socket. Those of `WATCHING` are answered at once, by a thread, also while an operator holds the main
thread; those of `DOING` are carried out by the main thread, one after another. Without a window Blender ends with the connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import bpy

MODULE = "bl_ext.user_default.focus_face"
TICK_SECONDS = 0.02
SIDEBAR_WIDTH = 6000
QUESTIONS: queue.Queue[dict | None] = queue.Queue()


def ours(name: str) -> ModuleType:
    """A module of the extension as it is loaded now."""
    return sys.modules[f"{MODULE}.{name}"]


@contextlib.contextmanager
def viewport() -> Iterator[None]:
    """Context as if the mouse were in the first 3D viewport; nothing without a window."""
    windows = bpy.context.window_manager.windows
    if bpy.app.background or not windows:
        yield
        return
    area = next(area for area in windows[0].screen.areas if area.type == "VIEW_3D")
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=windows[0], screen=windows[0].screen, area=area, region=region):
        yield


def look() -> dict:
    """Jobs, the error box as the panel draws it, and the backend's line."""
    runtime = sys.modules.get(f"{MODULE}.interface.runtime")
    if runtime is None:
        return {"jobs": [], "panel": None, "light": "off", "text": "", "address": ""}
    now = runtime.running()
    jobs = list(now.session.jobs) if now.session is not None else []
    status = now.session.status if now.session is not None else now.status
    return {
        "jobs": [{name: getattr(job, name) for name in ("number", "state", "stage", "fraction", "seconds")} for job in jobs],
        "panel": _in_panel(runtime.shown_error()),
        "light": status.light,
        "text": status.text,
        "address": status.address,
    }


def _in_panel(error: Any) -> dict | None:
    if error is None:
        return None
    remedy = ours("interface.remedies").remedy_of(error)
    # The panel's own way to write them, for a sidebar of that many pixels.
    sidebar = SimpleNamespace(
        preferences=SimpleNamespace(system=SimpleNamespace(ui_scale=1.0)), region=SimpleNamespace(width=SIDEBAR_WIDTH)
    )
    lines = [" ".join(ours("interface.panel")._wrapped(text, sidebar)) for text in (error.problem, remedy) if text]
    return {"problem": error.problem, "remedy": remedy, "code": error.code, "shown": " / ".join(lines)}


def stand() -> dict:
    """Who is asked: number of the process, versions."""
    return {"pid": os.getpid(), "blender": bpy.app.version_string, "python": sys.version.split()[0], "operators": dir(bpy.ops.focus_face)}


def environment(values: dict) -> None:
    """Sets variables; those that are None are taken away."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def prefer(values: dict) -> None:
    """Sets the extension's preferences."""
    preferences = bpy.context.preferences.addons[MODULE].preferences
    for name, value in values.items():
        setattr(preferences, name, value)


def online(allowed: bool) -> bool:
    """Allows Blender to go online, or not; says whether it may."""
    bpy.context.preferences.system.use_online_access = allowed
    return bpy.app.online_access


def found_backend() -> str:
    """What the preferences' button finds; "" for nothing."""
    found = ours("connection.backend_process").find_backend(bpy.context.preferences.addons[MODULE].preferences.executable)
    return str(found or "")


def reconstruct(filepath: str, method: str) -> dict:
    """The operator; without a window it waits. Its errors are what it said."""
    try:
        with viewport():
            result = bpy.ops.focus_face.reconstruct("EXEC_DEFAULT", filepath=filepath, method=method, texture_size="512")
    except RuntimeError as error:
        return {"result": "CANCELLED", "said": str(error)}
    return {"result": min(result), "said": ""}


def press(operator: str) -> dict:
    """A button of the panel; its errors are what it said."""
    try:
        with viewport():
            return {"result": min(getattr(bpy.ops.focus_face, operator)("EXEC_DEFAULT")), "said": ""}
    except RuntimeError as error:
        return {"result": "CANCELLED", "said": str(error)}


def heads() -> list[dict]:
    """What the extension made that the scene shows: read from Blender's own data, so that it can contradict the extension."""
    scene = bpy.context.window_manager.windows[0].scene if bpy.context.window_manager.windows else bpy.context.scene
    found = [item for item in scene.objects if item.type == "MESH" and "focus_photo" in item]
    return [{"name": head.name, "vertices": len(head.data.vertices), "keys": len(head.data.shape_keys.key_blocks)} for head in found]


def folder() -> str:
    """Where the extension writes now."""
    return str(ours("interface.runtime").running().folder.path)


def switch(on: bool) -> bool:
    """Switches the extension on or off, as the preferences do; says whether its operators are there."""
    with viewport():
        (bpy.ops.preferences.addon_enable if on else bpy.ops.preferences.addon_disable)(module=MODULE)
    return "reconstruct" in dir(bpy.ops.focus_face)


def timers() -> bool:
    """Whether the extension's timer runs."""
    return bpy.app.timers.is_registered(ours("interface.timer").tick)


def save_file(filepath: str) -> None:
    """Saves a copy of the open file."""
    bpy.ops.wm.save_as_mainfile(filepath=filepath, copy=True)


def open_file(filepath: str) -> None:
    """Opens another file in the place of this one."""
    with viewport():
        bpy.ops.wm.open_mainfile(filepath=filepath)


def add_step(name: str) -> None:
    """An object and an undo step, as any action of the user leaves them."""
    with viewport():
        bpy.ops.object.empty_add()
        bpy.context.object.name = name
        bpy.ops.ed.undo_push(message=name)


def undo() -> list[str]:
    """One step back; names of all objects then."""
    with viewport():
        bpy.ops.ed.undo()
    return sorted(bpy.data.objects.keys())


def quit_blender() -> None:
    """After this answer."""
    if bpy.app.background:
        QUESTIONS.put(None)
        return

    def leave() -> None:
        with viewport():
            bpy.ops.wm.quit_blender()

    bpy.app.timers.register(leave, first_interval=0.1)


WATCHING = {answer.__name__: answer for answer in (look, stand)}
_DOING = (environment, prefer, online, found_backend, reconstruct, press, heads, folder, switch, timers)
_LEAVING = (save_file, open_file, add_step, undo, quit_blender)
DOING = {answer.__name__: answer for answer in (*_DOING, *_LEAVING)}


class Talk:
    """The connection to whoever asks.

    Args:
        path: of the socket.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Until the other side hangs up."""
        with self._socket.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                question = json.loads(line)
                if question["name"] in WATCHING:
                    self.answer(question)
                else:
                    QUESTIONS.put(question)
        QUESTIONS.put(None)

    def answer(self, question: dict) -> None:
        """An exception is an answer too."""
        try:
            content = {"answer": (WATCHING | DOING)[question["name"]](**question["arguments"])}
        except Exception:
            content = {"exception": traceback.format_exc()}
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall((json.dumps({**content, "number": question["number"]}) + "\n").encode())

    def play(self) -> None:
        """Without a window: until there is nothing more to do."""
        while (question := QUESTIONS.get()) is not None:
            self.answer(question)

    def tick(self) -> float:
        """With a window: one question at a time."""
        with contextlib.suppress(queue.Empty):
            question = QUESTIONS.get_nowait()
            if question is not None:
                self.answer(question)
        return TICK_SECONDS


def main() -> None:
    """Begins to listen."""
    bpy.context.preferences.view.show_splash = False
    talk = Talk(sys.argv[sys.argv.index("--") + 1])
    threading.Thread(target=talk.listen, name="player", daemon=True).start()
    if bpy.app.background:
        talk.play()
    else:
        bpy.app.timers.register(talk.tick, first_interval=0.5, persistent=True)


if __name__ == "__main__":
    main()
