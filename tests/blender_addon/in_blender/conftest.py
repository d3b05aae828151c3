"""Run with the Python of each Blender, see `test_in_blenders.py` beside this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy
import pytest

from blender_addon.head import PhotoPlan
from focus_backend.serving import wire

# Before anything of the add-on that packs or reads messages: only the built extension has a copy of its own.
sys.modules.setdefault("blender_addon.wire", wire)

from tests.blender_addon.in_blender.samples import planned  # noqa: E402


@pytest.fixture
def fresh_file() -> None:
    """Blender as it starts: cube, light and camera."""
    bpy.ops.wm.read_factory_settings()


@pytest.fixture
def empty_file() -> None:
    """A scene without anything in it."""
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def plan() -> PhotoPlan:
    """One face, of a photo that is not there."""
    return planned("astronaut", Path("/photos/astronaut.jpg"))


@pytest.fixture
def group() -> PhotoPlan:
    """Six faces, of a photo that is not there."""
    return planned("group", Path("/photos/group.jpg"))
