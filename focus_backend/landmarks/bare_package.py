"""A package whose `__init__` waits until somebody asks for what it makes: mediapipe's own imports plotting and audio, a second of work."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def import_bare(name: str) -> None:
    """Make the submodules of a top-level package importable; its `__init__` runs when an attribute is missing, and never if none is.

    Does nothing where the package was imported already.

    Raises:
        ImportError: it is not installed.
    """
    if sys.modules.get(name) is not None:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader = spec.loader
    package = importlib.util.module_from_spec(spec)

    def complete(attribute: str) -> Any:
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = complete
    sys.modules.setdefault(name, package)
