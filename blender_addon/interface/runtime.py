# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs while the extension is switched on: one session, what it has finished, and what the panel shows."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..connection.backend_log import BackendLog
from ..errors import AddonError
from ..session.job import CANCELLED
from ..session.session import Session
from ..session.status import BackendStatus
from . import backend_settings, package
from .delivery import Delivery
from .listed_heads import ListedHeads
from .pictures import Pictures


@dataclass(eq=False)
class Running:
    """All that is there between `start` and `stop`.

    Attributes:
        session: None until it is first wanted: an extension that nobody uses starts no thread.
        folder: where the session writes; None before there is one.
        delivery: brings finished photos into the scene.
        pictures: thumbnail and previews.
        listed_heads: of the scene before the user.
        photos: chosen in the panel, as the user gave them.
        status: of the backend, as the panel shows it.
        is_waiting_for_user: whether a photo can only be built when the user is done with something.
        file_number: counts the files that were opened; results of an earlier one have no place in this.
        note: what the user should know besides the session's own error.
        longest_tick: seconds that Blender's main thread was held in one go.
        tick_count: of the timer.
    """

    session: Session | None = None
    folder: package.UserFolder | None = None
    delivery: Delivery = field(default_factory=Delivery)
    pictures: Pictures = field(default_factory=Pictures)
    listed_heads: ListedHeads = field(default_factory=ListedHeads)
    photos: list[str] = field(default_factory=list)
    status: BackendStatus = field(default_factory=BackendStatus)
    is_waiting_for_user: bool = False
    file_number: int = 0
    note: AddonError | None = None
    longest_tick: float = 0.0
    tick_count: int = 0


# Blender calls classes that it makes itself: what they share has to be found from here.
_running = Running()


def running() -> Running:
    """What runs now."""
    return _running


def session() -> Session:
    """The session, made when it is first wanted, with the preferences as they are now."""
    if _running.session is None:
        _running.folder = package.user_folder()
        _running.session = Session(_running.folder.path, os.getpid())
        _running.note = _running.folder.problem or _running.note
    _running.session.settings = backend_settings.read()
    return _running.session


def log_file() -> Path | None:
    """The log of a backend of ours, the newest there is; None without."""
    if _running.folder is None:
        return None
    log = BackendLog(_running.folder.path, os.getpid())
    return next((path for path in (log.path, log.older_path) if path.is_file()), None)


def choose_photos(paths: Sequence[str]) -> None:
    """Makes these the photos that wait for the panel's button."""
    _running.photos = list(paths)
    _running.pictures.choose_thumbnail(paths[0] if paths else "")


def shown_error() -> AddonError | None:
    """What the panel's error box shows."""
    if _running.note is not None:
        return _running.note
    return _running.session.error if _running.session is not None else None


def dismiss_error() -> None:
    """Empties the error box."""
    _running.note = None
    if _running.session is not None:
        _running.session.error = None


def is_busy() -> bool:
    """Whether there is something to do for the timer."""
    if _running.session is None:
        return False
    return _running.session.is_working or _running.delivery.is_under_way


def cancel(number: int) -> None:
    """Gives a photo up, wherever it is.

    Args:
        number: of its job; 0 for all.
    """
    if _running.session is None:
        return
    building = _running.delivery.job
    if building is not None and number in (0, building.number):
        _running.delivery.drop()
        building.state = CANCELLED
    for job in _running.session.jobs:
        if number in (0, job.number) and not job.has_ended:
            _running.session.cancel(job)


def advance(budget: float) -> None:
    """Takes what came and does a part of the building.

    Args:
        budget: seconds; no further step is begun that would probably go beyond.
    """
    if _running.session is None:
        return
    begun = time.monotonic()
    # Whoever goes offline means it at once.
    _running.session.settings = backend_settings.read()
    if not _running.delivery.is_under_way or _running.is_waiting_for_user:
        _running.session.tick()
    _running.delivery.advance(_running.session, begun + budget, _running.file_number)
    _running.is_waiting_for_user = _running.delivery.waits_for_user()
    _running.status = _running.session.status


def look_at_backend() -> None:
    """Brings `status` up to date after a command; scripts have no timer that does."""
    if _running.session is not None:
        _running.session.tick()
        _running.status = _running.session.status


def leave_file() -> None:
    """Another file was opened: what was under way for the old one is given up."""
    _running.file_number += 1
    dropped = _running.delivery.drop()
    if _running.session is not None:
        dropped += sum(not job.has_ended for job in _running.session.jobs)
        _running.session.cancel_all()
    if dropped:
        photos = "a photo was" if dropped == 1 else f"{dropped} photos were"
        _running.note = AddonError(f"{photos} given up, for another file was opened", "reconstruct again in this file", "cancelled")


def start() -> None:
    """Begins anew."""
    global _running
    stop()
    _running = Running()


def stop() -> None:
    """Gives up everything and ends our backend; nothing to do where nothing runs."""
    ended, _running.session = _running.session, None
    _running.delivery.drop()
    _running.pictures.close()
    if ended is not None:
        ended.close()
    if _running.folder is not None:
        _running.folder.close()
