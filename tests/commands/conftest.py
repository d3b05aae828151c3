"""A real server whose results are plain, and the command in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands.files_pipeline import MEETING
from serving.conftest import RunningServer, start

_TESTS = Path(__file__).parents[1]
PATIENCE = 120.0


def start_files_server(folder: Path, loader: str = "load_light", **settings: Any) -> RunningServer:
    """A server with `files_pipeline`, ready to work."""
    (folder / "meeting").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        # Workers look for modules where the server does.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv(MEETING, str(folder / "meeting"))
        server = start(folder, f"commands.files_pipeline:{loader}", **settings)
    server.wait_ready()
    return server


@pytest.fixture(scope="session")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with two workers for all tests; they leave it as they found it."""
    server = start_files_server(tmp_path_factory.mktemp("files_server"), "load", workers=2)
    yield server
    server.end()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers of a test's own."""
    servers: list[RunningServer] = []

    def start_one(**settings: Any) -> RunningServer:
        servers.append(start_files_server(tmp_path / f"server{len(servers)}", **settings))
        return servers[-1]

    yield start_one
    for server in servers:
        server.end()


def save_photo(path: Path, seed: int = 0, size: tuple[int, int] = (90, 110)) -> Path:
    """A photo of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "focus_backend", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
