# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""One photo on its way to the scene."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from numpy import ndarray

from ..errors import AddonError
from ..options import ReconstructionOptions, SceneOptions
from ..shapes import UInt8
from .photo_reading import shown_path

WAITING, READING, SENT, RUNNING, PLANNING = "waiting", "reading", "sent", "running", "planning"
FINISHED, FAILED, CANCELLED = "finished", "failed", "cancelled"
ENDED = (FINISHED, FAILED, CANCELLED)


@dataclass(eq=False)
class Job:
    """One photo on its way to the scene. Blender's main thread alone reads and writes it.

    Attributes:
        number: counts the session's jobs from 1.
        photo: as the user gave it.
        options: how it is reconstructed.
        scene_options: what lands in the scene.
        state: "waiting", "reading", "sent", "running", "planning", then one of "finished", "failed" and "cancelled".
        stage: what is being done, for the user.
        fraction: 0 to 1.
        preview: how the face looks so far, sRGB, top row first; None before there is something to see.
        error: why it failed or was cancelled.
        started: by the monotonic clock, seconds.
        seconds: that it has taken so far, or took.
        tag: whatever the caller wants to find again.
    """

    number: int
    photo: Path
    options: ReconstructionOptions
    scene_options: SceneOptions
    state: str = WAITING
    stage: str = "Waiting"
    fraction: float = 0.0
    preview: UInt8[ndarray, "height width 3"] | None = None
    error: AddonError | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    tag: object = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED

    @property
    def name(self) -> str:
        """What messages call the photo."""
        return shown_path(self.photo.name or str(self.photo))

    def count_seconds(self) -> None:
        """Brings `seconds` up to now."""
        self.seconds = time.monotonic() - self.started
