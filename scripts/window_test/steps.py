"""What a user does, step by step, with a picture of each step and checks that what it shows is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .blender_window import BlenderWindow
from .checks import Checks
from .panel import Sidebar
from .processes import held_still, workers_of
from .screen import WindowTestError

TAB = "FOCUS"
BUTTON, CANCEL = "focus_face.reconstruct", "focus_face.cancel"
UNDER_WAY = ("waiting", "reading", "sent", "running", "planning")
# Software drawing beside a reconstruction on the same few cores.
JOB_SECONDS, STILL_SECONDS = 300.0, 90.0
# The inspector's own ticks take a part of a core.
IDLE_SHARE = 0.25
ARKIT_COUNT = 52
HEAD_SIZE = (0.12, 0.45)
# Of the processor, on the main thread, in one go.
LONGEST_STAY = 0.05


@dataclass
class Visit:
    """A Blender that is being tried.

    Attributes:
        window: the Blender.
        sidebar: its sidebar.
        out: folder for pictures.
        checks: what held and what did not.
        photo: with a face.
        faceless: without one.
    """

    window: BlenderWindow
    sidebar: Sidebar
    out: Path
    checks: Checks
    photo: Path
    faceless: Path

    def picture(self, name: str) -> None:
        """With the mouse out of the way."""
        self.sidebar.rest()
        self.window.screen.picture(self.out / f"{name}.png")

    def job(self) -> dict:
        """The newest; {} before the first."""
        return max(self.window.ask("session")["jobs"], key=lambda job: job["number"], default={})

    def heads(self) -> list[dict]:
        """Of the scene."""
        return self.window.ask("scene")["heads"]


def see_idle(visit: Visit) -> None:
    """Opens the sidebar, looks at the panel as it first comes, chooses the photo."""
    checks, sidebar = visit.checks, visit.sidebar
    checks.expect(sidebar.open(TAB), f"a click on the tab {TAB} shows the panel")
    visit.picture("1-first-sight")
    checks.expect(not visit.window.ask("session")["jobs"], "nothing is under way before anything was clicked")
    choose_photo(visit, visit.photo)
    visit.picture("2-idle")
    checks.expect(visit.window.ask("session")["photos"] == [str(visit.photo)], "the photo written into the field is the chosen one")
    checks.expect(visit.window.ask("session")["light"] in ("starting", "ready"), "choosing a photo starts the backend")
    checks.expect(sidebar.look_for(BUTTON), "the button is visible without scrolling")
    shown = sidebar.list_buttons()
    checks.measure("buttons of the panel", [button.operator or button.property for button in shown])


def reconstruct(visit: Visit) -> None:
    """Clicks the button, looks while it works, waits for the head."""
    window, checks = visit.window, visit.checks
    button = visit.sidebar.find(BUTTON)
    window.ask("watch")
    clicked = window.screen.click(button.x, button.y)
    visit.sidebar.rest()
    window.wait_for("the click starts a job", lambda: visit.job(), 20)
    _see_progress(visit)
    job = wait_for_end(visit)
    checks.expect(job["state"] == "finished", "the job ends well", job)
    seen = window.wait_for("the head comes into the scene", lambda: window.ask("watched")["heads"], 30)
    # The undo step and the panel come after the head.
    time.sleep(1.0)
    watched = window.ask("watched")
    checks.measure("seconds from click to head", min(seen.values()) - clicked, "s")
    checks.measure("longest time the main thread was away, drawing included", watched["longest"][0][0], "s")
    if watched["own_code"] is not None:
        checks.measure("longest stays in the extension's own code on the main thread", watched["own_code"][:3])
        held = watched["own_code"][0][1]
        checks.expect(held <= LONGEST_STAY, f"the extension never works more than {1000 * LONGEST_STAY:.0f} ms in one go", f"{held:.3f} s")


def _see_progress(visit: Visit) -> None:
    """A picture between two looks at the job that find it in the same stage, or at least under way."""
    window, checks = visit.window, visit.checks
    window.wait_for("the job makes progress", lambda: visit.job()["state"] not in UNDER_WAY or visit.job()["fraction"] > 0, JOB_SECONDS)
    before = visit.job()
    visit.picture("3-in-progress")
    after = visit.job()
    checks.expect(before["state"] in UNDER_WAY and after["state"] in UNDER_WAY, "the picture shows a job under way", (before, after))
    checks.expect(after["stage"] != "" and 0 <= after["fraction"] <= 1, "it has a stage and a fraction", after)


def wait_for_end(visit: Visit) -> dict:
    """The newest job when it has ended; WindowTestError where it does not."""
    visit.window.wait_for("the job ends", lambda: visit.job()["state"] not in UNDER_WAY, JOB_SECONDS)
    return visit.job()


def see_head(visit: Visit) -> None:
    """Looks at what landed: in numbers, and through the photo's camera."""
    checks, scene = visit.checks, visit.window.ask("scene")
    checks.expect(len(scene["collections"]) == 1, "one collection for the photo", scene["collections"])
    checks.expect(len(scene["heads"]) == 1, "one head", [head["name"] for head in scene["heads"]])
    head = scene["heads"][0]
    checks.expect(head["keys"] > ARKIT_COUNT, f"the {ARKIT_COUNT} ARKit keys and the photo's expression", head["keys"])
    checks.expect(len(head["raised"]) == 1, "only the photo's own expression is raised", head["raised"])
    checks.expect(all(HEAD_SIZE[0] < side < HEAD_SIZE[1] for side in head["dimensions"]), "a head's size in metres", head["dimensions"])
    checks.expect(head["materials"] and head["uv_layers"], "a material and UV", head["materials"])
    checks.expect(head["is_selected"], "the new head is selected")
    left, right, bottom, top = head["in_camera"] or (0, 0, 0, 0)
    checks.expect(right > 0 and left < 1 and top > 0 and bottom < 1 and right > left, "the camera sees the head", head["in_camera"])
    checks.expect(head["in_sight"] == head["name"], "nothing stands between the camera and the head", head["in_sight"])
    checks.measure("head", head)
    checks.measure("images", scene["images"])
    visit.picture("4-done")
    checks.expect(
        visit.window.ask("layout")["perspective"] == "CAMERA", "the viewport shows the new head through the photo's camera by itself"
    )
    _picture_shaded(visit, "5-camera", {"shading": "MATERIAL"})
    _picture_shaded(visit, "6-rendered", {"shading": "RENDERED"})
    _picture_shaded(visit, "7-beside-the-photo", {"perspective": "PERSP", "shading": "MATERIAL"}, fits_head=True)
    visit.window.ask("view", shading="SOLID", perspective="PERSP")
    visit.sidebar.click("focus_face.look_through")
    looks = visit.window.wait_for("Look Through turns the view", lambda: visit.window.ask("layout")["perspective"] == "CAMERA", 20)
    checks.expect(looks, "Look Through shows the view of the photo's camera again")


def _picture_shaded(visit: Visit, name: str, view: dict, fits_head: bool = False) -> None:
    """A picture of the viewport when it no longer changes: software drawing compiles materials for a long time."""
    window = visit.window
    window.ask("view", **view)
    window.ask("frame", fit_camera=not fits_head)
    visit.sidebar.rest()
    is_still = wait_until_still(window, visit.out / f"{name}.png", STILL_SECONDS)
    visit.checks.expect(is_still, f"the viewport comes to rest in {view.get('shading', '').lower()} shading")


def wait_until_still(window: BlenderWindow, path: Path, seconds: float) -> bool:
    """Takes pictures until two are the same and Blender did next to nothing between them; False where it goes on.

    Pictures alone do not tell: while materials are compiled in the background, the screen may stay as it is for many seconds.
    """
    before, give_up = b"", time.monotonic() + seconds
    while time.monotonic() < give_up:
        begun, worked = time.monotonic(), window.ask("layout")["processor_seconds"]
        time.sleep(2.5)
        worked = window.ask("layout")["processor_seconds"] - worked
        window.screen.picture(path)
        now = path.read_bytes()
        if now == before and worked < IDLE_SHARE * (time.monotonic() - begun):
            return True
        before = now
    return False


def undo_and_redo(visit: Visit) -> None:
    """One Ctrl+Z takes everything away, Ctrl+Shift+Z brings it back."""
    window, checks = visit.window, visit.checks
    visit.sidebar.rest()
    window.screen.key("ctrl+z")
    gone = becomes(visit, lambda scene: not scene["heads"] and not scene["collections"])
    checks.expect(gone, "one undo takes head and collection away", window.ask("scene")["collections"])
    window.screen.key("ctrl+shift+z")
    back = becomes(visit, lambda scene: len(scene["heads"]) == 1)
    checks.expect(back, "redo brings the head back")


def becomes(visit: Visit, holds: Callable[[dict], bool], seconds: float = 15.0) -> bool:
    """Whether the scene comes to be so."""
    try:
        return visit.window.wait_for("", lambda: holds(visit.window.ask("scene")), seconds)
    except WindowTestError:
        visit.window.check_running()
        return False


def reconstruct_again(visit: Visit) -> None:
    """The same photo again updates what is there."""
    before = visit.window.ask("scene")["collections"]
    _click_button(visit)
    job = wait_for_end(visit)
    time.sleep(1.5)
    visit.checks.expect(job["state"] == "finished", "the same photo again ends well", job)
    after = visit.window.ask("scene")["collections"]
    visit.checks.expect(before == after, "the same photo again updates the same objects", (before, after))


def cancel(visit: Visit) -> None:
    """Clicks the button and then Cancel, for which the workers are held still: finding it takes longer than a face."""
    with held_still(workers_of(visit.window.process.pid)):
        _click_button(visit)
        button = visit.sidebar.find(CANCEL)
    clicked = visit.window.screen.click(button.x, button.y)
    job = wait_for_end(visit)
    visit.checks.expect(job["state"] == "cancelled", "Cancel ends the job", job)
    visit.checks.measure("seconds from Cancel to its end, polls included", time.monotonic() - clicked, "s")
    visit.picture("8-cancelled")


def see_error(visit: Visit) -> None:
    """A photo without a face: the panel says so, and the scene stays as it is."""
    checks, before = visit.checks, visit.window.ask("scene")["collections"]
    choose_photo(visit, visit.faceless)
    _click_button(visit)
    job = wait_for_end(visit)
    checks.expect(job["state"] == "failed", "a photo without a face fails", job)
    visit.picture("9-error")
    error = visit.window.ask("session")["error"]
    checks.expect(error and error["problem"] and error["remedy"], "the panel has a problem and a remedy to show", error)
    checks.expect(error and visit.faceless.name in error["problem"], "the problem names the photo", error)
    checks.measure("the error box", error)
    checks.expect(visit.window.ask("scene")["collections"] == before, "the scene stays as it was")
    visit.sidebar.click("focus_face.dismiss_error")
    gone = visit.window.wait_for("the error box goes", lambda: visit.window.ask("session")["error"] is None, 10)
    checks.expect(gone, "a click takes the error box away")


def drop_photo(visit: Visit) -> None:
    """Files from outside cannot be dragged onto a virtual screen: the file handler is asked and called as Blender would after a drop."""
    checks, previous = visit.checks, visit.job()
    checks.expect(visit.window.ask("is_drop_taken", path=str(visit.photo)), "a photo can be dropped into the viewport")
    checks.expect(not visit.window.ask("is_drop_taken", path="/model.obj"), "a file that is no photo is left to others")
    visit.window.ask("drop", path=str(visit.photo))
    wait_for_new_job(visit, previous)
    job = wait_for_end(visit)
    checks.expect(job["state"] == "finished", "a dropped photo becomes a head", job)


def choose_photo(visit: Visit, photo: Path) -> None:
    """Writes its path into the panel's field."""
    visit.sidebar.write("photo_name", str(photo))
    visit.window.wait_for("the photo is chosen", lambda: visit.window.ask("session")["photos"] == [str(photo)], 10)


def _click_button(visit: Visit) -> None:
    """And waits for the job that it starts."""
    previous = visit.job()
    visit.sidebar.click(BUTTON)
    wait_for_new_job(visit, previous)


def wait_for_new_job(visit: Visit, previous: dict) -> None:
    """Waits for a job later than that one; WindowTestError where none comes."""
    number = previous.get("number", -1)
    visit.window.wait_for("the click starts a job", lambda: visit.job().get("number", -1) > number, 20)


STEPS: dict[str, Callable[[Visit], None]] = {
    step.__name__: step for step in (see_idle, reconstruct, undo_and_redo, see_head, reconstruct_again, cancel, see_error, drop_photo)
}
