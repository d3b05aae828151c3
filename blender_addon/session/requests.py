# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job as messages: what is asked, and what the answers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .. import wire
from ..shapes import UInt8
from . import messages
from .job import Job
from .kept_models import KeptModels
from .photo_reading import PhotoFile

STARTING_STAGE = "Starting the backend"
_FACE_PARTS = ("geometry", "texture", "albedo", "masks")
_PREVIEW_SIDE = 256
_LONGEST_NAME = 255
# Our headers are shorter, also with the longest name in the strangest letters.
_HEADER_ROOM = 4096


@dataclass
class Request:
    """A request under way.

    Attributes:
        photo: that was sent; kept in case it has to be sent once more.
        body: that was sent.
        is_second: whether it was sent once more already.
        id: of the message; "" before it is sent.
    """

    photo: PhotoFile
    body: wire.Reconstruct
    is_second: bool = False
    id: str = ""


def most_photo_bytes(limits: wire.Limits) -> int:
    """How large a photo file the server admits."""
    return max(0, min(limits.frame_bytes, limits.total_bytes - _HEADER_ROOM, limits.queue_bytes - _HEADER_ROOM))


def request_for(job: Job, photo: PhotoFile, welcome: wire.Welcome, kept: KeptModels, sha256: str | None = None) -> Request:
    """What to ask for a job's photo.

    Args:
        job: whose options count.
        photo: that was read.
        welcome: the server's; of its lists the empty ones are not known yet.
        kept: what need not be asked again.
        sha256: of the model that its answer to the same photo has told of; None the first time.

    Raises:
        AddonError: the server cannot do it.
    """
    options = job.options
    if options.method and welcome.methods and options.method not in welcome.methods:
        raise messages.unknown_method(options.method, welcome.methods)
    if options.texture_size > welcome.limits.texture_size:
        raise messages.texture_too_large(options.texture_size, welcome.limits.texture_size)
    is_second = sha256 is not None
    if sha256 is None:
        sha256 = welcome.models[0].sha256 if welcome.models else ""
    wanted = [*_FACE_PARTS, *(["photo"] if photo.needs_upright_pixels else []), *kept.missing(sha256, model_parts(job))]
    body = wire.Reconstruct(
        name=job.name[-_LONGEST_NAME:],
        options=wire.Options(options.method or None, options.misfit, options.faces or None, options.texture_size or None),
        parts=[part for part in wanted if not welcome.parts or part in welcome.parts],
        preview_side=max(0, min(_PREVIEW_SIDE, welcome.limits.preview_side)),
    )
    return Request(photo, body, is_second)


def model_parts(job: Job) -> tuple[str, ...]:
    """Which parts of the model the job's scene needs."""
    return ("model", "identity") if job.scene_options.identity else ("model",)


def preview_in(arrays: Mapping[str, wire.Array]) -> UInt8[np.ndarray, "height width 3"] | None:
    """The preview that came with a progress; None where none did, or none that can be shown."""
    preview = arrays.get("preview")
    if preview is None or preview.dtype != "uint8" or len(preview.shape) != 3 or preview.shape[2] != 3 or 0 in preview.shape:
        return None
    # Larger than was asked for: it would hold up Blender's window.
    if max(preview.shape) > _PREVIEW_SIDE:
        return None
    # A copy, so that the message's memory is free again.
    return np.frombuffer(preview.data, np.uint8).reshape(preview.shape).copy()


def waiting_stage(ahead: int) -> str:
    """What the user sees of a request that waits."""
    return f"Waiting, {ahead} ahead" if ahead > 0 else "Waiting"


def shown_stage(stage: str) -> str:
    """A server's stage as the panel writes it."""
    line = messages.one_line(stage)
    return line[:1].upper() + line[1:]
