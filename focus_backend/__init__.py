"""FOCUS: a photo becomes a neutral face mesh, its albedo texture and a mask of what was not face."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("focus-backend")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
