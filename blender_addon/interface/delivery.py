# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finished photos become heads of a scene, a step at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass, field

import bpy

from ..errors import AddonError
from ..head import PhotoPlan
from ..scene.build import build_photo
from ..session.job import FAILED, Job
from ..session.session import Session
from . import windows
from .showing import Viewport, show_head


@dataclass(frozen=True)
class Target:
    """Where a photo's heads are to land.

    Attributes:
        file_number: of the file that was open when the photo was sent.
        scene_uid: of the scene; it outlives undo, unlike Blender's Python objects.
        viewport: where they are shown; None for nowhere.
    """

    file_number: int
    scene_uid: int
    viewport: Viewport | None = None


@dataclass(eq=False)
class Building:
    """A photo that is being built.

    Attributes:
        job: whose photo it is.
        target: where its heads are to land.
        plan: plain data, from which building can begin anew.
        steps: the building; None before it began and after an undo took away what it had made.
        heads: names of the objects so far.
        is_built: only the undo step is missing.
    """

    job: Job
    target: Target
    plan: PhotoPlan
    steps: Generator[bpy.types.Object, None, None] | None = None
    heads: list[str] = field(default_factory=list)
    is_built: bool = False


class Delivery:
    """Takes plans from the session and builds them, one photo after the other.

    Attributes:
        heads: names of the heads of each finished job, by its number.
    """

    def __init__(self) -> None:
        self.heads: dict[int, list[str]] = {}
        self._building: Building | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a photo is being built."""
        return self._building is not None

    @property
    def job(self) -> Job | None:
        """Whose photo is being built."""
        return self._building.job if self._building is not None else None

    def waits_for_user(self) -> bool:
        """Whether building has to wait until the user is done with something."""
        return self._building is not None and windows.is_user_amid(self._building.plan)

    def advance(self, session: Session, deadline: float, file_number: int) -> None:
        """Builds on; at least one step, then as many as will end before `deadline` (monotonic clock).

        Args:
            session: whose plans are taken.
            deadline: by the monotonic clock, seconds.
            file_number: of the file that is open; plans of others are dropped.
        """
        longest = 0.0
        while True:
            begun = time.monotonic()
            if longest and begun + longest > deadline:
                return
            building = self._take(session, file_number)
            if building is None or windows.is_user_amid(building.plan):
                return
            self._step(session, building)
            longest = max(longest, time.monotonic() - begun)

    def interrupt(self) -> None:
        """What was built of the photo may be gone: begins it anew, which updates whatever is still there."""
        if self._building is not None:
            _close(self._building)

    def give_up(self, session: Session, error: AddonError) -> None:
        """Ends the photo that is being built with an error."""
        if self._building is not None:
            self._fail(session, self._building.job, error)

    def drop(self) -> int:
        """Gives up the photo that is being built; returns how many that were."""
        dropped, self._building = self._building, None
        if dropped is None:
            return 0
        _close(dropped)
        return 1

    def _take(self, session: Session, file_number: int) -> Building | None:
        """The photo to build; None where there is none."""
        while self._building is None:
            taken = session.take_plan()
            if taken is None:
                return None
            job, plan = taken
            # What was asked for in another file has no place in this one.
            if isinstance(job.tag, Target) and job.tag.file_number == file_number:
                self._building = Building(job, job.tag, plan)
        return self._building

    def _step(self, session: Session, building: Building) -> None:
        try:
            if building.is_built:
                self._finish(building)
                return
            head = next(building.steps or _begin(building), None)
            if head is None:
                building.is_built = True
            else:
                building.heads.append(head.name)
        except AddonError as error:
            self._fail(session, building.job, error)
        except Exception as error:
            # Blender's own errors are of many types, and none may stop the timer.
            traceback.print_exc()
            problem = f"the head of {building.job.name} could not be built ({type(error).__name__}: {error})"
            self._fail(session, building.job, AddonError(problem, "undo, then try again; the system console tells more", "scene"))

    def _finish(self, building: Building) -> None:
        """Makes all heads of the photo one undo step."""
        self._building = None
        self.heads[building.job.number] = building.heads
        _show(building)
        windows.push_undo(_scene_of(building.target), bpy.app.translations.pgettext_iface("Reconstruct Face"))

    def _fail(self, session: Session, job: Job, error: AddonError) -> None:
        self.drop()
        job.state, job.error = FAILED, error
        session.error = error


def target_of(scene: bpy.types.Scene, file_number: int, viewport: Viewport | None = None) -> Target:
    """Where heads are to land that are asked for in this scene, and be shown."""
    return Target(file_number, scene.session_uid, viewport)


def _show(building: Building) -> None:
    """Turns the user's view to the first head of the photo, where that was wanted."""
    viewport, scene = building.target.viewport, _scene_of(building.target)
    head = scene.objects.get(building.heads[0])
    if viewport is None or not building.job.scene_options.show or head is None or bpy.app.background:
        return
    try:
        show_head(head, scene, viewport)
    except RuntimeError:
        # The head is there; that a viewport could not be turned to it is no failure.
        traceback.print_exc()


def _begin(building: Building) -> Generator[bpy.types.Object, None, None]:
    building.heads.clear()
    building.steps = build_photo(building.plan, building.job.scene_options, _scene_of(building.target))
    return building.steps


def _scene_of(target: Target) -> bpy.types.Scene:
    """The scene that was meant; the one before the user where that was deleted meanwhile."""
    for scene in bpy.data.scenes:
        if scene.session_uid == target.scene_uid:
            return scene
    return windows.scene_before_user()


def _close(building: Building) -> None:
    steps, building.steps, building.is_built = building.steps, None, False
    if steps is not None:
        steps.close()
