"""Runs inside Blender (`blender --python inspector.py -- FOLDER`): says what is really there, and how long the window stood still.

It answers one question at a time: `ask.json` in the folder names a function of `ANSWERS` and its arguments, `answer-N.json` is the
answer. It reads the scene by Blender's own data, not by the extension's functions, so that it can contradict them; only the state of
jobs is taken from the extension's session.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import bpy

# Blender does not look for modules beside the script that it is given.
sys.path.append(str(Path(__file__).parent))

from watching import COLLECTION_PREFIX, TICK_SECONDS, OwnCode, Watch, is_head

QUESTION_SECONDS = 0.02
VIEW_SAMPLES = 2


WATCH = Watch()
OWN_CODE = OwnCode()


def view_area() -> bpy.types.Area:
    """The first 3D viewport."""
    return next(area for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")


def view_region(kind: str = "WINDOW") -> bpy.types.Region:
    """One of its regions."""
    return next(region for region in view_area().regions if region.type == kind)


def in_viewport(kind: str = "WINDOW") -> contextlib.AbstractContextManager:
    """Context as if the mouse were in that region."""
    window = bpy.context.window_manager.windows[0]
    return bpy.context.temp_override(window=window, screen=window.screen, area=view_area(), region=view_region(kind))


class FollowMouse(bpy.types.Operator):
    """Notes where the mouse is, and passes everything on"""

    bl_idname = "window_test.follow"
    bl_label = "Follow the Mouse"

    mouse = (-1, -1)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        """Begins."""
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, _context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Sees every event before the buttons do."""
        FollowMouse.mouse = event.mouse_x, event.mouse_y
        return {"PASS_THROUGH"}


def layout() -> dict:
    """Sizes in pixels, from the window's bottom left corner."""
    window = bpy.context.window_manager.windows[0]
    area = view_area()
    regions = {region.type: [region.x, region.y, region.width, region.height] for region in area.regions}
    tab = view_region("UI").active_panel_category
    return {
        "window": [window.x, window.y, window.width, window.height],
        "view": [area.x, area.y, area.width, area.height],
        "regions": regions,
        "tab": tab,
        "ui_scale": bpy.context.preferences.system.ui_scale,
        "areas": [area.type for area in window.screen.areas],
        "perspective": area.spaces.active.region_3d.view_perspective,
        "processor_seconds": time.process_time(),
        "windows": len(bpy.context.window_manager.windows),
    }


def hovered() -> dict:
    """The button under the mouse: operator as Python would call it, or the property it shows; both "" where there is none.

    `mouse` is where Blender has last seen the mouse: while it draws, moves have to wait, and the answer is about an earlier place.
    """
    manager = bpy.context.window_manager
    kept, manager.clipboard = manager.clipboard, ""
    with in_viewport("UI"):
        shown = getattr(bpy.context, "property", None)
        if bpy.ops.ui.copy_python_command_button.poll():
            bpy.ops.ui.copy_python_command_button()
    operator, manager.clipboard = manager.clipboard, kept
    return {
        "mouse": FollowMouse.mouse,
        "operator": operator,
        "property": shown[1] if shown else "",
        "owner": repr(shown[0]) if shown else "",
    }


def copy(text: str) -> None:
    """Puts text into the clipboard."""
    bpy.context.window_manager.clipboard = text


def show_tab(category: str) -> str:
    """Turns the sidebar to that tab, and says which one it shows."""
    view_region("UI").active_panel_category = category
    return view_region("UI").active_panel_category


def scene() -> dict:
    """What the extension made, and what of it the scene uses."""
    made = [collection for collection in bpy.data.collections if collection.name.startswith(COLLECTION_PREFIX)]
    current = bpy.context.window_manager.windows[0].scene
    return {
        "collections": {collection.name: sorted(item.name for item in collection.all_objects) for collection in made},
        "heads": [_describe(item) for item in bpy.data.objects if is_head(item)],
        "objects": len(current.objects),
        "camera": current.camera.name if current.camera else "",
        "world": current.world.name if current.world else "",
        "render_size": [current.render.resolution_x, current.render.resolution_y],
        "images": {image.name: _describe_image(image) for image in bpy.data.images if image.source != "VIEWER"},
        "actions_to_undo": bpy.ops.ed.undo.poll(),
    }


def _describe(head: bpy.types.Object) -> dict:
    """A head: counts, size in metres, keys that are not at 0, and where the photo's camera sees it."""
    keys = head.data.shape_keys.key_blocks
    camera = next((child for child in head.children if child.type == "CAMERA"), None)
    return {
        "name": head.name,
        "vertices": len(head.data.vertices),
        "quads": sum(len(polygon.vertices) == 4 for polygon in head.data.polygons),
        "dimensions": list(head.dimensions),
        "keys": len(keys) - 1,
        "raised": {key.name: key.value for key in keys[1:] if key.value},
        "materials": [slot.material.name for slot in head.material_slots if slot.material],
        "uv_layers": len(head.data.uv_layers),
        "in_camera": _bounds_in_camera(head, camera) if camera else [],
        "in_sight": _first_in_sight(head, camera) if camera else "",
        "properties": len(head.keys()),
        "is_selected": head.select_get(),
    }


def _first_in_sight(head: bpy.types.Object, camera: bpy.types.Object) -> str:
    """Name of what the camera meets first on its way to the head's origin, or behind it: the origin lies inside."""
    current = bpy.context.window_manager.windows[0].scene
    eye = camera.matrix_world.translation
    _, _, _, _, met, _ = current.ray_cast(bpy.context.evaluated_depsgraph_get(), eye, head.matrix_world.translation - eye)
    return met.name if met else ""


def _describe_image(image: bpy.types.Image) -> list:
    return [*image.size, image.colorspace_settings.name, image.has_data]


def _bounds_in_camera(head: bpy.types.Object, camera: bpy.types.Object) -> list[float]:
    """Left, right, bottom, top of the head, 0 to 1 over the camera's frame."""
    from bpy_extras.object_utils import world_to_camera_view

    current = bpy.context.window_manager.windows[0].scene
    shown = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
    seen = [world_to_camera_view(current, camera, shown.matrix_world @ vertex.co) for vertex in shown.data.vertices]
    across, up = [point.x for point in seen], [point.y for point in seen]
    return [min(across), max(across), min(up), max(up)]


def session() -> dict:
    """Jobs, backend, photos and the error box as the extension has them; the list of jobs is empty before the first photo."""
    runtime = next(module for name, module in sys.modules.items() if name.endswith("focus_face.interface.runtime"))
    running = runtime.running()
    return {
        "jobs": [_describe_job(job) for job in running.session.jobs] if running.session else [],
        "light": running.status.light,
        "text": running.status.text,
        "error": _describe_error(runtime.shown_error()),
        "photos": running.photos,
    }


def _describe_job(job: object) -> dict:
    described = {name: getattr(job, name) for name in ("number", "state", "stage", "fraction", "seconds")}
    return {**described, "error": _describe_error(job.error), "has_preview": job.preview is not None}


def _describe_error(error: object) -> dict | None:
    return None if error is None else {"problem": error.problem, "remedy": error.remedy, "code": error.code}


def watch(turns_view: bool = False) -> None:
    """Starts measuring anew; on request with the viewport drawn again at every tick, to tell drawing from the rest."""
    WATCH.reset()
    OWN_CODE.listen()
    WATCH.turns_view = turns_view


def watched() -> dict:
    """Since `watch`: gaps between ticks beyond their 5 ms, longest first, and when each head was first seen
    (`time.monotonic()`); the longest stays in the extension's own code, by the processor's time, None where
    Python cannot tell."""
    gaps = sorted(((seconds - TICK_SECONDS, start) for seconds, start in WATCH.gaps), reverse=True)
    return {
        "seconds": time.monotonic() - WATCH.started,
        "ticks": len(gaps),
        "longest": [[max(0.0, seconds), start] for seconds, start in gaps[:20]],
        "heads": WATCH.heads,
        "own_code": sorted(OWN_CODE.stays, key=lambda stay: stay[1], reverse=True)[:10] if OWN_CODE.is_listening else None,
    }


def view(perspective: str = "", shading: str = "", texture: bool = False) -> None:
    """Turns the viewport: "CAMERA" or "PERSP"; "SOLID", "MATERIAL" or "RENDERED"; solid with textures instead of grey."""
    space = view_area().spaces.active
    # Drawn by software, the usual 16 samples take minutes.
    bpy.context.window_manager.windows[0].scene.eevee.taa_samples = VIEW_SAMPLES
    if perspective:
        space.region_3d.view_perspective = perspective
    if shading:
        space.shading.type = shading
    if texture:
        space.shading.color_type = "TEXTURE"
    view_area().tag_redraw()


def frame(fit_camera: bool = False) -> None:
    """Brings the selected objects, or the camera's frame, to the size of the viewport."""
    with in_viewport():
        bpy.ops.view3d.view_center_camera() if fit_camera else bpy.ops.view3d.view_selected()


def is_drop_taken(path: str) -> bool:
    """Whether Blender would give a file that is dropped into the viewport to the extension's file handler."""
    return _drop_handler(path) is not None


def drop(path: str) -> list[str]:
    """Calls the operator of the file handler as Blender does after a drop: with folder and names."""
    handler = _drop_handler(path)
    family, name = handler.bl_import_operator.split(".")
    with in_viewport():
        folder, file = os.path.split(path)
        return sorted(getattr(getattr(bpy.ops, family), name)("INVOKE_DEFAULT", directory=folder + os.sep, files=[{"name": file}]))


def _drop_handler(path: str) -> type | None:
    suffix = os.path.splitext(path)[1].lower()
    for handler in bpy.types.FileHandler.__subclasses__():
        is_ours = getattr(handler, "bl_import_operator", "").startswith("focus_face.")
        with in_viewport():
            if is_ours and suffix in handler.bl_file_extensions.lower().split(";") and handler.poll_drop(bpy.context):
                return handler
    return None


def memory() -> dict:
    """Resident bytes of Blender and the number of its datablocks of every kind."""
    kinds = (name for name in dir(bpy.data) if isinstance(getattr(bpy.data, name), bpy.types.bpy_prop_collection))
    counts = {name: len(getattr(bpy.data, name)) for name in kinds}
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"resident": pages * os.sysconf("SC_PAGESIZE"), "datablocks": {name: count for name, count in counts.items() if count}}


def version() -> dict:
    """Of Blender, its Python and the extension."""
    return {"blender": bpy.app.version_string, "python": sys.version.split()[0], "operators": dir(bpy.ops.focus_face)}


def call(operator: str, arguments: dict, invokes: bool = True) -> list[str]:
    """Calls an operator of the extension in the viewport."""
    with in_viewport():
        return sorted(getattr(bpy.ops.focus_face, operator)("INVOKE_DEFAULT" if invokes else "EXEC_DEFAULT", **arguments))


def quit_soon() -> None:
    """After this answer has been written."""

    def leave() -> None:
        with in_viewport():
            bpy.ops.wm.quit_blender()

    bpy.app.timers.register(leave, first_interval=0.2)


_READING = (layout, hovered, scene, session, watched, is_drop_taken, memory, version)
_DOING = (copy, show_tab, watch, view, frame, drop, call, quit_soon)
ANSWERS = {answer.__name__: answer for answer in (*_READING, *_DOING)}


class Listener:
    """Looks for a question every 20 ms."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def follow(self) -> None:
        """Once the window stands."""
        bpy.utils.register_class(FollowMouse)
        with in_viewport():
            bpy.ops.window_test.follow("INVOKE_DEFAULT")
        bpy.app.timers.register(self.tick, persistent=True)

    def tick(self) -> float:
        """Answers the question that waits, if any; an exception is the answer too."""
        asked = self.folder / "ask.json"
        if asked.exists():
            question = json.loads(asked.read_text(encoding="utf-8"))
            asked.unlink()
            self._answer(question)
        return QUESTION_SECONDS

    def _answer(self, question: dict) -> None:
        try:
            content = {"answer": ANSWERS[question["name"]](**question["arguments"])}
        except Exception:
            content = {"exception": traceback.format_exc()}
        partial = self.folder / "answer.partial"
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self.folder / f"answer-{question['number']}.json")


if __name__ == "__main__":
    bpy.app.timers.register(WATCH.tick, persistent=True)
    bpy.app.timers.register(Listener(Path(sys.argv[sys.argv.index("--") + 1])).follow, first_interval=1.0)
