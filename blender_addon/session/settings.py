# SPDX-FileCopyrightText: the contributors of FOCUS for Blender
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backend is reached, as the user set it."""

from __future__ import annotations

from dataclasses import dataclass

AUTOMATIC = "automatic"
CONNECT = "connect"


@dataclass(frozen=True)
class BackendSettings:
    """How the backend is reached.

    Attributes:
        mode: "automatic", a backend of our own that is started when it is needed, or "connect", one that runs already.
        executable: `focus-backend`, or a folder that holds it; "" looks for it in the common places.
        arguments: for `focus-backend serve`, besides ours.
        address: where to connect; "" for the newest of this user's servers on this machine.
        key_file: of a server on another machine.
        online: whether other machines may be reached at all.
    """

    mode: str = AUTOMATIC
    executable: str = ""
    arguments: tuple[str, ...] = ()
    address: str = ""
    key_file: str = ""
    online: bool = True

    def reaches_the_same_as(self, other: BackendSettings) -> bool:
        """Whether a backend that was opened with the others serves these as well."""
        if self.mode != other.mode:
            return False
        if self.mode == CONNECT:
            return (self.address, self.key_file) == (other.address, other.key_file)
        return (self.executable, self.arguments) == (other.executable, other.arguments)
