"""Reading TOML, with Python 3.10 too."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from .errors import BuildError


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The document in `text`; `name` is for the message.

    Raises:
        BuildError: it is no TOML.
    """
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{name} is no valid TOML: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The document in a file.

    Raises:
        BuildError: it cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    return parse_toml(text, str(path))
