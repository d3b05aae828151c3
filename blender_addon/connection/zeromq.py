# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""ZeroMQ, imported when it is first needed: the rest of the extension has to work, and say what is wrong, without it."""

from __future__ import annotations

from types import ModuleType

from ..errors import AddonError


def zeromq() -> ModuleType:
    """The module `zmq`.

    Raises:
        AddonError: it is missing, or was built for another Python or system.
    """
    try:
        import zmq
    except ImportError as error:
        problem = f"the network library ZeroMQ cannot be loaded ({str(error).splitlines()[0] if str(error) else 'missing'})"
        remedy = "install the extension's zip for this system and this Blender version again"
        raise AddonError(problem, remedy, "missing-dependency") from error
    return zmq
