# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's timer: takes what came from the backend and builds it, a little at a time, while there is something to do."""

from __future__ import annotations

import time
from typing import Any

import bpy

from . import runtime, windows

BUDGET_SECONDS = 0.04
_BUILDING_SECONDS, _WORKING_SECONDS, _IDLE_SECONDS = 0.01, 0.1, 1.0


def wake() -> None:
    """Makes sure that the timer runs; call it whenever something was begun."""
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    # It outlives the file, whose opening it has to see through.
    bpy.app.timers.register(tick, first_interval=_BUILDING_SECONDS, persistent=True)


def stop() -> None:
    """Ends the timer; nothing to do where it does not run."""
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)


def tick() -> float | None:
    """One tick; returns the seconds to the next, None for no more."""
    begun = time.monotonic()
    now = runtime.running()
    before = _shown()
    runtime.advance(BUDGET_SECONDS)
    _bring_previews()
    if _shown() != before:
        windows.redraw_panels()
    now.tick_count += 1
    now.longest_tick = max(now.longest_tick, time.monotonic() - begun)
    return _seconds_to_next()


def _seconds_to_next() -> float | None:
    now = runtime.running()
    if now.delivery.is_under_way:
        return _WORKING_SECONDS if now.is_waiting_for_user else _BUILDING_SECONDS
    if runtime.is_busy() or now.status.light in ("starting", "busy"):
        return _WORKING_SECONDS
    # A backend that waits for work may end by itself, and the panel should say so.
    return None if now.status.light in ("off", "failed") else _IDLE_SECONDS


def _shown() -> tuple[Any, ...]:
    """All that a panel shows of the session; another value, another look."""
    now = runtime.running()
    jobs = now.session.jobs if now.session is not None else []
    lines = tuple((job.number, job.state, job.stage, round(job.fraction, 2), id(job.preview)) for job in jobs)
    return lines, now.status, id(runtime.shown_error()), id(now.delivery.job), now.is_waiting_for_user


def _bring_previews() -> None:
    now = runtime.running()
    if now.session is None:
        return
    under_way = {job.number: job for job in now.session.jobs if not job.has_ended}
    for number, job in under_way.items():
        if job.preview is not None:
            now.pictures.show_preview(number, job.preview)
    for number in now.pictures.previewed():
        if number not in under_way:
            now.pictures.forget_preview(number)
