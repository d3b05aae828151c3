"""Run with the Python of each Blender, see `test_in_blenders.py` beside this folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from focus_backend.serving import wire

sys.modules.setdefault("blender_addon.wire", wire)
# No test may touch the settings of the person who runs it.
SAMPLES = Path(os.environ.get("FOCUS_SAMPLES", "."))


@pytest.fixture
def sample() -> Callable[[str], tuple[wire.Result, Mapping[str, wire.Array]]]:
    """Answers that a real server gave: `sample("astronaut")`."""
    return read_sample


def read_sample(name: str) -> tuple[wire.Result, Mapping[str, wire.Array]]:
    document = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    faces = [wire.Face(**face) for face in document["faces"]]
    result = wire.Result(faces, wire.ModelInfo(**document["model"]), document["parts"], document["seconds"])
    with np.load(SAMPLES / f"{name}.npz") as stored:
        return result, {key.replace("|", "/"): wire.Array.of(np.ascontiguousarray(stored[key])) for key in stored.files}
