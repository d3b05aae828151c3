"""What can go wrong while the extension is built."""

from __future__ import annotations


class BuildError(Exception):
    """The extension cannot be built; the message says which input was wrong and what to do, in one line."""
