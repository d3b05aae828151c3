"""Finished photos land in the right scene, whatever the user does meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
import pytest

import blender_addon
from blender_addon.errors import AddonError
from blender_addon.head import PhotoPlan
from blender_addon.interface import handlers, runtime, timer
from blender_addon.interface.delivery import target_of
from blender_addon.options import ReconstructionOptions, SceneOptions
from blender_addon.scene import find
from blender_addon.session.job import CANCELLED, FAILED, FINISHED, PLANNING, Job
from blender_addon.session.status import BackendStatus
from tests.blender_addon.in_blender.samples import elsewhere, planned

_OPTIONS = SceneOptions(identity=False, camera=False, world=False, mask=False)


class ReadySession:
    """A session whose photos are all planned: what a delivery sees of one."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.plans: deque[tuple[Job, PhotoPlan]] = deque()
        self.error: AddonError | None = None
        self.status = BackendStatus()

    @property
    def is_working(self) -> bool:
        return any(not job.has_ended for job in self.jobs)

    def tick(self) -> None:
        pass

    def take_plan(self) -> tuple[Job, PhotoPlan] | None:
        if not self.plans:
            return None
        job, plan = self.plans.popleft()
        job.state = FINISHED
        return job, plan

    def cancel(self, job: Job) -> None:
        job.state = CANCELLED

    def cancel_all(self) -> None:
        for job in self.jobs:
            if not job.has_ended:
                job.state = CANCELLED

    def close(self) -> None:
        pass


@pytest.fixture
def session() -> Iterator[ReadySession]:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    blender_addon.register()
    runtime.running().session = ready = ReadySession()
    yield ready
    blender_addon.unregister()


@pytest.fixture
def add_photo(session: ReadySession, tmp_path: Path) -> Callable[[str], Job]:
    def add(name: str) -> Job:
        photo = tmp_path / f"{name}.jpg"
        photo.write_bytes(b"")
        job = Job(len(session.jobs) + 1, photo, ReconstructionOptions(), _OPTIONS, state=PLANNING)
        job.tag = target_of(bpy.context.scene, runtime.running().file_number)
        session.jobs.append(job)
        session.plans.append((job, elsewhere(planned(name, Path(f"/photos/{name}.jpg"), _OPTIONS), str(photo))))
        return job

    return add


def _step() -> None:
    runtime.advance(0.0)


def _finish() -> None:
    for _ in range(50):
        _step()
    assert not runtime.is_busy()


def test_one_head_a_step_and_all_of_them_in_the_end(add_photo: Callable) -> None:
    job = add_photo("group")
    counts = []
    for _ in range(9):
        _step()
        counts.append(len(find.heads(bpy.context.scene)))
    assert counts == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert not runtime.is_busy()
    assert sorted(runtime.running().delivery.heads[job.number]) == [head.name for head in find.heads(bpy.context.scene)]


def test_a_large_budget_takes_many_steps(add_photo: Callable) -> None:
    add_photo("group")
    runtime.advance(60.0)
    assert len(find.heads(bpy.context.scene)) == 6


def test_the_tick_is_measured_and_ends_when_there_is_nothing_to_do(add_photo: Callable) -> None:
    add_photo("astronaut")
    seconds = [timer.tick() for _ in range(5)]
    assert seconds[-1] is None
    assert runtime.running().longest_tick > 0
    assert runtime.running().tick_count == 5


def test_nothing_of_an_old_file_lands_in_the_new_one(session: ReadySession, add_photo: Callable) -> None:
    first, second = add_photo("group"), add_photo("astronaut")
    _step()
    assert runtime.running().delivery.job is first
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    _finish()
    assert find.heads(bpy.context.scene) == []
    assert "2 photos" in runtime.shown_error().problem
    assert second.has_ended
    runtime.dismiss_error()
    assert runtime.shown_error() is None


def test_opening_a_file_with_nothing_under_way_says_nothing(session: ReadySession) -> None:
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    assert runtime.shown_error() is None


def test_saving_in_the_middle_keeps_what_is_there(add_photo: Callable, tmp_path: Path) -> None:
    add_photo("group")
    _step()
    _step()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "half.blend"), copy=True)
    _finish()
    assert len(find.heads(bpy.context.scene)) == 6
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "half.blend"))
    assert len(find.heads(bpy.context.scene)) == 2


def test_what_an_undo_took_away_is_built_anew(add_photo: Callable) -> None:
    add_photo("group")
    for _ in range(3):
        _step()
    # What Blender does: tells us, and then replaces the data.
    handlers.step_changes(bpy.context.scene)
    for head in find.heads(bpy.context.scene)[:2]:
        bpy.data.objects.remove(head)
    _finish()
    assert len(find.heads(bpy.context.scene)) == 6


def test_heads_land_in_the_scene_they_were_asked_for_in(add_photo: Callable) -> None:
    asked = bpy.context.scene
    add_photo("astronaut")
    other = bpy.data.scenes.new("Other")
    _finish()
    assert len(find.heads(asked)) == 1
    assert find.heads(other) == []


def test_heads_land_before_the_user_when_their_scene_is_gone(add_photo: Callable) -> None:
    doomed = bpy.data.scenes.new("Doomed")
    job = add_photo("astronaut")
    job.tag = target_of(doomed, runtime.running().file_number)
    bpy.data.scenes.remove(doomed)
    _finish()
    assert len(find.heads(bpy.context.scene)) == 1


def test_a_user_in_another_mode_stays_there(add_photo: Callable) -> None:
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.view_layer.objects.active
    bpy.ops.object.mode_set(mode="EDIT")
    add_photo("astronaut")
    _finish()
    assert len(find.heads(bpy.context.scene)) == 1
    assert cube.mode == "EDIT"
    assert bpy.context.view_layer.objects.active is cube
    bpy.ops.object.mode_set(mode="OBJECT")


def test_a_head_that_is_edited_waits_for_its_user(add_photo: Callable) -> None:
    add_photo("astronaut")
    _finish()
    head = bpy.context.view_layer.objects.active
    assert find.is_head(head)
    bpy.ops.object.mode_set(mode="SCULPT")
    add_photo("astronaut")
    for _ in range(5):
        _step()
    assert runtime.running().is_waiting_for_user
    assert head.mode == "SCULPT"
    assert bpy.ops.focus_face.cancel.poll()
    bpy.ops.object.mode_set(mode="OBJECT")
    _finish()
    assert find.heads(bpy.context.scene) == [head]


def test_a_photo_that_waits_for_its_user_can_be_cancelled(add_photo: Callable) -> None:
    add_photo("astronaut")
    _finish()
    bpy.ops.object.mode_set(mode="SCULPT")
    job = add_photo("astronaut")
    _step()
    assert bpy.ops.focus_face.cancel(number=job.number) == {"FINISHED"}
    assert not runtime.is_busy()
    assert job.state == CANCELLED
    bpy.ops.object.mode_set(mode="OBJECT")


def test_a_build_that_fails_is_told_and_the_next_goes_on(
    session: ReadySession, add_photo: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from blender_addon.interface import delivery

    real = delivery.build_photo

    def fail_once(*given: object) -> Iterator[bpy.types.Object]:
        monkeypatch.setattr(delivery, "build_photo", real)
        raise ReferenceError("StructRNA of type Object has been removed")
        yield

    monkeypatch.setattr(delivery, "build_photo", fail_once)
    bad, good = add_photo("astronaut"), add_photo("group")
    _finish()
    assert bad.state == FAILED
    assert "astronaut" in runtime.shown_error().problem
    assert "ReferenceError" in capsys.readouterr().err
    assert len(runtime.running().delivery.heads[good.number]) == 6


def test_nothing_is_built_while_blender_renders(add_photo: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from blender_addon.interface import windows

    add_photo("astronaut")
    monkeypatch.setattr(windows, "_is_rendering", lambda: True)
    _step()
    assert find.heads(bpy.context.scene) == []
    monkeypatch.setattr(windows, "_is_rendering", lambda: False)
    _finish()
    assert len(find.heads(bpy.context.scene)) == 1


def test_switching_off_in_the_middle_of_a_build_is_safe(add_photo: Callable) -> None:
    add_photo("group")
    _step()
    blender_addon.unregister()
    assert runtime.running().delivery.job is None
    assert len(find.heads(bpy.context.scene)) == 1
