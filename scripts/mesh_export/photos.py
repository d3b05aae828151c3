"""Which photos the user means, and what their files are called."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focus_backend.commands import inputs
from focus_backend.export.names import plan_names

from .outcome import Failure, failure_of


@dataclass(frozen=True)
class Photo:
    """One photo the user asked for, or why an argument stands for none.

    Attributes:
        path: of the file.
        name: with which its files' names begin; no other photo's does.
        failure: why there is no such photo.
    """

    path: Path
    name: str = ""
    failure: Failure | None = None


def find_photos(arguments: Sequence[str], recursive: bool, out: Path) -> list[Photo]:
    """Photos in their order, each file once: a folder stands for the photos in it, a pattern for its matches.

    A missing file is kept: reading it gives the error. Textures of earlier runs in `out` are taken only where they are named.
    """
    root = os.path.realpath(out)
    found = inputs.find_photos(arguments, recursive, lambda path: _is_texture(path) and os.path.realpath(path.parent) == root)
    names = plan_names([photo.path for photo in found if photo.error is None])
    return [Photo(photo.path, names.get(photo.path, ""), failure_of(photo.error) if photo.error else None) for photo in found]


def _is_texture(path: Path) -> bool:
    """Whether the file is called as those that are written beside a mesh."""
    return re.search(r"_texture\.|_albedo\.", path.name) is not None
