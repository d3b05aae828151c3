"""`focus-backend models`: which face models there are, what is in them, and how the default one is built."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def list_face_models(as_json: bool) -> None:
    """Print the models that can be named."""
    from focus_backend.morphable.store import list_models

    models = list(list_models())
    print(json.dumps({"models": models}) if as_json else "\n".join(models))


def show_face_model(name: str, as_json: bool) -> None:
    """Print what a model consists of and where it comes from.

    Raises:
        ModelError: no such model, or its file is damaged.
    """
    from focus_backend.morphable.store import model_info

    info = model_info(name)
    if as_json:
        print(json.dumps(info, default=str))
        return
    width = max(map(len, info))
    print("\n".join(f"{key:{width}}  {value}" for key, value in info.items()))


def build_face_model(source: str, output: Path, seed: int) -> None:
    """Build a model from its source into a file.

    Raises:
        ModelError: the source is unknown or not usable.
        OutputError: the file cannot be written.
    """
    from focus_backend.morphable.build import build_model

    started = time.perf_counter()
    with _bar(f"building {source}") as progress:
        build_model(source, output, seed, progress)
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.0f} s)")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[str, float], None] | None]:
    """A progress bar on a terminal, otherwise nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda stage, fraction: bar.update(task, description=f"{title}: {stage}", completed=fraction)
