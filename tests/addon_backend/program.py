"""A backend program as users have it, but with pipelines for tests: a real server process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
_PROGRAM = """#!{python}
import argparse, sys, time
sys.path.insert(0, {tests!r})
parser = argparse.ArgumentParser()
parser.add_argument("command")
parser.add_argument("--ready-file")
parser.add_argument("--parent-pid", type=int)
parser.add_argument("--device")
parser.add_argument("--marker", default="")
given = parser.parse_args()
{before}
from focus_backend.serving.config import ServerConfig
from focus_backend.serving.server import serve
config = ServerConfig(ready_file=given.ready_file, parent_pid=given.parent_pid, **{settings!r})
sys.exit(serve(config, pipeline={pipeline!r}, announce=lambda path: print(path, flush=True)))
"""


def write_program(folder: Path, pipeline: str, *, before: str = "", pipeline_config: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A program that takes what `focus-backend serve` is given by the add-on.

    Args:
        folder: where it is written.
        pipeline: of its workers.
        before: Python that runs first.
        pipeline_config: of `PipelineConfig`.
        settings: of `ServerConfig`.
    """
    program = folder / "focus-backend"
    folder.mkdir(parents=True, exist_ok=True)
    given = {"workers": 1, "keys": str(folder / "keys"), "grace_seconds": 0.0, "pipeline": pipeline_config or {}} | settings
    text = _PROGRAM.format(python=sys.executable, tests=str(_TESTS), before=before, settings=given, pipeline=pipeline)
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return program
