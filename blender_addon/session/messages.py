# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user is told, one line and a remedy each."""

from __future__ import annotations

from collections.abc import Sequence

from .. import wire
from ..errors import AddonError

# For codes whose own remedy speaks to programmers, or is left out.
_REMEDIES = {
    "busy": "wait until the backend has done what others asked it, then try again",
    "deadline": "try again when the backend has less to do, or choose a quicker method",
    "refused": "connect anew; if that does not help, ask the backend's owner for a new key",
    "closing": "start the backend, or connect to another, and try again",
    "worker-lost": "try another photo; the backend's log tells more",
    "internal": "try again; the backend's log tells more",
    "protocol": "use the extension and the backend of the same FOCUS version",
    "no-face": "use a photo that shows a face larger and clearer",
}
_LONGEST_TEXT = 600
_OURS_INSTEAD = ("busy", "deadline", "refused", "closing", "protocol")


def one_line(text: str) -> str:
    """A server's text or a file's name, fit for a panel: one line, not endless, nothing that cannot be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[:_LONGEST_TEXT].split()))


def renewed(error: AddonError) -> AddonError:
    """The same error as an object of its own, for whoever raises one writes into it."""
    return AddonError(error.problem, error.remedy, error.code)


def of_answer(answer: wire.Error) -> AddonError:
    """What a server's error means to the user: its own line, and its remedy where that is for users."""
    code = one_line(answer.code)
    remedy = one_line(answer.remedy)
    if code in _OURS_INSTEAD or not remedy:
        remedy = _REMEDIES.get(code, remedy)
    return AddonError(one_line(answer.problem), remedy, code)


def no_backend(executable: str) -> AddonError:
    """There is no `focus-backend`."""
    if executable:
        problem = f"there is no focus-backend at {executable}"
        return AddonError(problem, "correct the path in the preferences, or leave it empty to look for it", "no-backend")
    return AddonError("no backend was found on this machine", "install focus-backend, or give its path in the preferences", "no-backend")


def offline(address: str) -> AddonError:
    """Another machine was asked for, and Blender may not go online."""
    problem = f"the backend at {address} is on another machine, and Blender's online access is off"
    return AddonError(problem, "allow online access in Blender's preferences (System), or use a backend on this machine", "offline")


def unreachable(address: str) -> AddonError:
    """Nobody answered a greeting."""
    return AddonError(
        f"no backend answers at {address}", "check that it runs, and that address and key are those of that backend", "connection"
    )


def lost(photo: str, reason: AddonError, is_ours: bool) -> AddonError:
    """The backend went away while it worked on a photo."""
    if reason.code == "offline":
        return renewed(reason)
    remedy = (
        "press the button again, which starts it anew; its log tells more" if is_ours else "check that it runs, then press the button again"
    )
    return AddonError(f"the backend ended while it worked on {photo}: {reason.problem}", remedy, "backend-lost")


def ended(reason: AddonError | None) -> AddonError:
    """Our backend's process is no more."""
    if reason is not None:
        return renewed(reason)
    return AddonError("the backend ended by itself", "start it again; its log tells more", "backend-lost")


def keeps_ending(reason: AddonError) -> AddonError:
    """It is of no use to start it once more."""
    problem = f"the backend ended again and again: {reason.problem}"
    return AddonError(problem, "look at its log, then start it with the button", "backend-lost")


def cancelled(photo: str) -> AddonError:
    """The user gave a photo up."""
    return AddonError(f"{photo} was cancelled", "press the button again to reconstruct it after all", "cancelled")


def stopped(photo: str) -> AddonError:
    """The user stopped the backend."""
    return AddonError(f"{photo} was given up, for the backend was stopped", "start the backend and press the button again", "cancelled")


def closed() -> AddonError:
    """The extension was switched off."""
    return AddonError("the extension is being switched off", "switch it on again", "closed")


def under_way(count: int) -> AddonError:
    """Another backend is wanted while this one works."""
    photos = "a photo is" if count == 1 else f"{count} photos are"
    return AddonError(f"{photos} under way with the present backend", "wait, or cancel first", "busy")


def unknown_method(method: str, methods: Sequence[str]) -> AddonError:
    """The backend has another set of methods."""
    return AddonError(f"this backend has no method {method!r}", f"choose one of {', '.join(methods)}, or automatic", "config")


def texture_too_large(size: int, most: int) -> AddonError:
    """The backend makes smaller ones only."""
    return AddonError(f"this backend makes no textures of {size} pixels a side", f"choose {most} or less", "config")


def unplanned(photo: str, reason: Exception) -> AddonError:
    """A result that no head can be made of."""
    problem = f"no head can be made of what the backend sent for {photo} ({one_line(str(reason)) or type(reason).__name__})"
    return AddonError(problem, "use the extension and the backend of the same FOCUS version", "planning")


def lacking(photo: str, parts: Sequence[str]) -> AddonError:
    """A result without what was asked for."""
    problem = f"the backend's result for {photo} lacks {', '.join(parts)}"
    return AddonError(problem, "use the extension and the backend of the same FOCUS version", "planning")


def unexpected(reason: Exception) -> AddonError:
    """A fault of ours."""
    problem = f"a fault of the extension: {type(reason).__name__} {one_line(str(reason))}".rstrip()
    return AddonError(problem, "try again, and report it if it comes back", "internal")
