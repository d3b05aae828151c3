"""What happens to Blender itself, and to the folders it writes to."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.blender.faults_photos import STRANGE
from benchmarks.blender.faults_stage import Case, Seen, Stage, check_told, expect_failure, next_photo, script, shown, words
from benchmarks.blender.played_blender import PlayedBlender, open_blender
from scripts.window_test.processes import is_running
from scripts.window_test.screen import WindowTestError

# Where an extension may write, in the user folder.
OWN_FOLDER = Path("extensions") / ".user" / "user_default" / "focus_face"
DISK = 256 * 1024


def strange_places(stage: Stage) -> Seen:
    """User folder and backend in paths with letters of several scripts and spaces."""
    backend = script(stage.new_folder(STRANGE) / "Meine Programme" / "focus-backend", stage.backend.read_text())
    user = stage.new_folder(STRANGE) / "Benutzer Ordner ü"
    with stage.opened(stage.setting(user=user, FOCUS_BACKEND=str(backend))) as blender:
        took = blender.good_photo(stage.photo)
        if Path(blender.ask("folder")) != user / OWN_FOLDER:
            raise WindowTestError(f"the extension writes into {blender.ask('folder')}")
        return Seen("as anywhere: the head comes, the backend's start included", took, next_photo(blender, stage.photo))


def read_only_folder(stage: Stage) -> Seen:
    """The extension's folders are on a read-only disk."""
    first = stage.setting()
    with stage.opened(first):
        user = first.folder / "user"
    extensions = user / "extensions"
    mount = [words("mount", "--bind", extensions, extensions), words("mount", "-o", "remount,ro,bind", extensions)]
    with stage.opened(stage.setting(user=user, before=mount)) as blender:
        begun = time.monotonic()
        answer = blender.begin("reconstruct", filepath=str(stage.photo), method="auto")
        panel = blender.wait_for("the panel tells of it", lambda: blender.look()["panel"])
        took = time.monotonic() - begun
        check_told(panel, "the extension's folder", "cannot be written")
        if blender.answer_of(answer)["result"] != "FINISHED":
            raise WindowTestError(f"the photo failed: {answer.result()}")
        stand_in = Path(blender.ask("folder"))
        well = next_photo(blender, stage.photo)
    if stand_in.exists() or not stand_in.name.startswith("focus_face_"):
        raise WindowTestError(f"the temporary folder {stand_in} is still there")
    return Seen(shown(panel), took, well)


def full_disk(stage: Stage) -> Seen:
    """No byte is free where the extension writes log and ready file; then there is."""
    setting = stage.setting()
    user = setting.folder / "user"
    own = user / OWN_FOLDER
    mount = [
        words("mkdir", "-p", own),
        words("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", own),
        f"(cat /dev/zero > {words(own / 'filler')} 2>/dev/null; true)",
    ]
    with stage.opened(replace(setting, before=mount)) as blender:
        told = expect_failure(blender, stage.photo, "the extension's folder", "cannot be written")
        # Through Blender's own eyes, for nobody else sees its disk.
        (Path("/proc") / str(blender.pid) / "root" / own.relative_to("/") / "filler").unlink()
        return Seen(*told, next_photo(blender, stage.photo))


def blender_killed(stage: Stage) -> Seen:
    """Blender is killed while the backend works: the backend ends by itself, and the next Blender tidies up."""
    blender = open_blender(stage.setting())
    try:
        blender.begin_slow(stage.photo)
        started = [*blender.backends(), *blender.workers()]
        user = blender.setting.folder / "user"
        os.kill(blender.pid, signal.SIGKILL)
        killed = time.monotonic()
        while any(is_running(pid) for pid in started) and time.monotonic() - killed < 30:
            time.sleep(0.05)
        took = time.monotonic() - killed
    finally:
        stage.left += blender.end()
    with stage.opened(stage.setting(user=user)) as after:
        well = next_photo(after, stage.photo)
        files = sorted(path.name for path in (user / OWN_FOLDER).iterdir() if path.name.startswith("backend-"))
        if len([name for name in files if name.endswith(".json")]) != 1:
            raise WindowTestError(f"files of the killed Blender are still there: {files}")
    return Seen(f"Blender is gone; its {len(started)} processes end by themselves", took, f"{well}, in a new Blender")


def interrupted(stage: Stage) -> Seen:
    """Ctrl-C in the terminal of `blender --background`, to all of its group."""
    blender = stage.ordinary
    begun = blender.begin_slow(stage.photo)
    backends = blender.backends()
    pressed = time.monotonic()
    os.killpg(blender.process.pid, signal.SIGINT)
    answer = blender.answer_of(begun, 60)
    took = time.monotonic() - pressed
    if "cancelled by Ctrl-C" not in answer["said"]:
        raise WindowTestError(f"after Ctrl-C the operator ended with {answer}")
    if not all(is_running(pid) for pid in backends):
        raise WindowTestError("the backend has ended with Ctrl-C")
    return Seen(f"in the terminal: {answer['said'].strip()}", took, next_photo(blender, stage.photo))


def two_blenders(stage: Stage) -> Seen:
    """At once, with one user folder, each with a backend of its own; killing one's does not touch the other."""
    first_setting = stage.setting()
    with stage.opened(first_setting) as first:
        with stage.opened(stage.setting(user=first_setting.folder / "user")) as second:
            begun = time.monotonic()
            answers = [blender.begin("reconstruct", filepath=str(stage.photo), method="auto") for blender in (first, second)]
            said = [blender.answer_of(answer) for blender, answer in zip((first, second), answers, strict=True)]
            took = time.monotonic() - begun
            if any(answer["result"] != "FINISHED" for answer in said) or set(first.backends()) & set(second.backends()):
                raise WindowTestError(f"two Blenders are in each other's way: {said}, {first.backends()}, {second.backends()}")
            if first.look()["address"] == second.look()["address"]:
                raise WindowTestError("both use the same backend")
            slow = first.begin_slow(stage.photo)
            os.kill(second.backends()[0], signal.SIGKILL)
            if first.answer_of(slow)["result"] != "FINISHED":
                raise WindowTestError(f"the other's end was felt: {slow.result()}")
            next_photo(second, stage.photo)
        well = next_photo(first, stage.photo)
    return Seen("as with one: both heads come, both backends' starts included", took, f"{well}, also after the other was closed")


def quit_amid(stage: Stage) -> Seen:
    """The window is closed while the backend works."""
    blender = open_blender(stage.setting(window=True))
    try:
        blender.begin_slow(stage.photo)
        started = [*blender.backends(), *blender.workers()]
        begun = time.monotonic()
        took = blender.quit()
        while any(is_running(pid) for pid in started) and time.monotonic() - begun < 30:
            time.sleep(0.05)
        gone = time.monotonic() - begun
    finally:
        stage.left += blender.end()
    with stage.opened(stage.setting(user=blender.setting.folder / "user")) as after:
        well = next_photo(after, stage.photo)
    return Seen(f"Blender closes; the backend ends {gone:.1f} s after the click", took, f"{well}, in a new Blender")


def switched_off_amid(stage: Stage) -> Seen:
    """The extension is switched off while the backend works, and on again."""
    with stage.opened(stage.setting(window=True)) as blender:
        blender.begin_slow(stage.photo)
        started = [*blender.backends(), *blender.workers()]
        begun = time.monotonic()
        if blender.ask("switch", on=False):
            raise WindowTestError("the operators are still there")
        took = time.monotonic() - begun
        blender.wait_for("the backend ends", lambda: not any(is_running(pid) for pid in started), 20)
        gone = time.monotonic() - begun
        if blender.ask("heads") or not blender.ask("switch", on=True):
            raise WindowTestError("a head came after all, or the extension cannot be switched on again")
        well = next_photo(blender, stage.photo)
        _check_quiet(blender)
    return Seen(f"the tab goes; the backend ends {gone:.1f} s after", took, f"{well}, switched on again")


def other_file_amid(stage: Stage) -> Seen:
    """Another file is opened while the backend works."""
    with stage.opened(stage.setting(window=True)) as blender:
        file = stage.new_folder("files") / "other.blend"
        blender.ask("save_file", filepath=str(file))
        blender.begin_slow(stage.photo)
        begun = time.monotonic()
        blender.ask("open_file", filepath=str(file))
        panel = blender.wait_for("the panel tells of it", lambda: blender.look()["panel"])
        took = time.monotonic() - begun
        check_told(panel, "given up, for another file was opened")
        # Longer than the photo would have taken.
        time.sleep(3.0)
        if blender.ask("heads"):
            raise WindowTestError("the head came into the wrong file")
        well = next_photo(blender, stage.photo)
        _check_quiet(blender)
    return Seen(shown(panel), took, well)


def undo_amid(stage: Stage) -> Seen:
    """A step is undone while the backend works, and the head comes all the same; then that is undone."""
    with stage.opened(stage.setting(window=True)) as blender:
        blender.ask("add_step", name="before")
        blender.ask("add_step", name="after")
        blender.begin_slow(stage.photo)
        left = blender.ask("undo")
        undone = time.monotonic()
        if "after" in left or "before" not in left:
            raise WindowTestError(f"undo left {left}")
        if blender.wait_for_end()["state"] != "finished":
            raise WindowTestError(f"the photo failed: {blender.look()}")
        blender.wait_for("the head comes", lambda: blender.ask("heads"))
        took = time.monotonic() - undone
        blender.wait_for("the undo step is made", lambda: not blender.ask("timers") or blender.look()["light"] == "ready")
        time.sleep(1.0)
        if any("astronaut" in name for name in blender.ask("undo")) or blender.ask("heads"):
            raise WindowTestError("one undo did not take the head away")
        well = next_photo(blender, stage.photo)
        _check_quiet(blender)
    return Seen("nothing: the step is undone, the head comes; one more undo takes it away", took, well)


def _check_quiet(blender: PlayedBlender) -> None:
    if blender.tracebacks():
        raise WindowTestError(f"Blender printed: {blender.tracebacks()}")


SESSION_CASES: dict[str, Case] = {
    "Unicode, spaces, quotes in user folder and backend's path": strange_places,
    "read-only extension folder": read_only_folder,
    "disk full where the log lies": full_disk,
    "Blender killed (-9) at work": blender_killed,
    "Ctrl-C in blender -b at work": interrupted,
    "two Blenders at once": two_blenders,
    "Blender is quit at work": quit_amid,
    "extension switched off at work": switched_off_amid,
    "another file opened at work": other_file_amid,
    "undo at work": undo_amid,
}
