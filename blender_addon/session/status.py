# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backend is, for the panel."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AddonError
from .backend import CONNECTING, FAILED, GREETING, OFF, Backend
from .messages import one_line


@dataclass(frozen=True)
class BackendStatus:
    """How the backend is.

    Attributes:
        light: "off", "starting", "ready", "busy" or "failed".
        text: the same in words.
        address: where it listens; "" before that is known.
        software: its name and version.
        device: where its networks run; "" before they are loaded.
        methods: that it offers, its own choice first; empty before they are known.
        is_ours: whether it was started by us, and can be stopped.
        error: why it failed.
    """

    light: str = "off"
    text: str = "Off"
    address: str = ""
    software: str = ""
    device: str = ""
    methods: tuple[str, ...] = ()
    is_ours: bool = False
    error: AddonError | None = None


def status_of(backend: Backend, busy: int, *, is_running: bool) -> BackendStatus:
    """The status of a backend.

    Args:
        backend: any.
        busy: how many photos it is at.
        is_running: whether it has begun with any.
    """
    welcome = backend.welcome
    light, text = _light_and_text(backend, busy, is_running)
    return BackendStatus(
        light,
        text,
        backend.address,
        one_line(welcome.software) if welcome else "",
        one_line(welcome.device) if welcome else "",
        tuple(welcome.methods) if welcome else (),
        backend.is_ours,
        backend.error,
    )


def _light_and_text(backend: Backend, busy: int, is_running: bool) -> tuple[str, str]:
    if backend.state == OFF:
        return "off", "Off"
    if backend.state == FAILED:
        return "failed", backend.error.problem if backend.error else "Failed"
    if backend.welcome is None:
        return "starting", "Connecting" if backend.state in (CONNECTING, GREETING) else "Starting"
    # Its word about its workers may be a second old.
    if backend.welcome.workers_ready == 0 and not is_running:
        return "starting", "Loading the face model and networks"
    if busy:
        return "busy", "Working on a photo" if busy == 1 else f"Working on {busy} photos"
    return "ready", "Ready"
