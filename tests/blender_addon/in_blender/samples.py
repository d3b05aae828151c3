"""What a real server answered, and plans made of it: each once, for neither is ever changed."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blender_addon.head import PhotoPlan
from blender_addon.options import SceneOptions
from blender_addon.planning.plan import plan_photo
from focus_backend.serving import wire

PHOTO = Path(__file__).resolve().parents[3] / "docs" / "demo" / "astronaut.jpg"
FOLDER = Path(os.environ.get("FOCUS_SAMPLES", "."))
Sample = tuple[wire.Result, Mapping[str, wire.Array]]


@functools.cache
def read_sample(name: str) -> Sample:
    """The answer for one face, "astronaut", or for six, "group"."""
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    faces = [wire.Face(**face) for face in document["faces"]]
    result = wire.Result(faces, wire.ModelInfo(**document["model"]), document["parts"], document["seconds"])
    with np.load(FOLDER / f"{name}.npz") as stored:
        return result, {key.replace("|", "/"): wire.Array.of(np.ascontiguousarray(stored[key])) for key in stored.files}


@functools.cache
def planned(name: str, photo: Path, options: SceneOptions = SceneOptions()) -> PhotoPlan:  # noqa: B008 - a frozen value
    """The plan of a sample, as the answer for `photo`."""
    return plan_photo(*read_sample(name), photo, options)


def elsewhere(plan: PhotoPlan, photo: str) -> PhotoPlan:
    """The plan, of a photo that lies at another place."""
    return dataclasses.replace(plan, photo_path=photo, heads=tuple(dataclasses.replace(head, photo_path=photo) for head in plan.heads))
