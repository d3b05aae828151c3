"""Packages whose `__init__` waits."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from focus_backend.landmarks.bare_package import import_bare

# What the finders and the mesh see must not hang on what mediapipe's own start registers.
BARE_AND_COMPLETE = """
import sys
import numpy as np
from PIL import Image
from focus_backend.landmarks.mediapipe_graphs import MediaPipeGraphs

face = np.asarray(Image.open(sys.argv[1]).convert("RGB").crop((130, 30, 322, 222)))

def seen():
    graphs = MediaPipeGraphs(0.3)
    points, score = graphs.mesh(face)
    return points.tolist(), score, [(found.score, found.box.tolist()) for finder in (0, 1) for found in graphs.find(face, finder)]

bare = seen()
assert len(bare[2]) == 2 and bare[1] > 0.9
assert "matplotlib" not in sys.modules
import mediapipe
assert mediapipe.solutions.face_mesh.FaceMesh and mediapipe.__version__
assert "matplotlib" in sys.modules
assert seen() == bare
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[str]:
    """Name of an importable package whose `__init__` makes something, and can be seen to have run."""
    folder = tmp_path / "slow_to_start"
    folder.mkdir()
    (folder / "__init__.py").write_text("import slow_to_start.part\nmade = slow_to_start.part.number + 1\n")
    (folder / "part.py").write_text("number = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "slow_to_start"
    for name in ("slow_to_start", "slow_to_start.part"):
        sys.modules.pop(name, None)


def test_submodules_come_without_the_package(package):
    import_bare(package)
    assert importlib.import_module(f"{package}.part").number == 1
    assert "made" not in vars(sys.modules[package])


def test_what_is_missing_makes_the_package_whole(package):
    import_bare(package)
    importlib.import_module(f"{package}.part")
    whole = importlib.import_module(package)
    assert whole.made == 2
    with pytest.raises(AttributeError, match="nothing"):
        _ = whole.nothing


def test_a_whole_package_is_left_alone(package):
    whole = importlib.import_module(package)
    import_bare(package)
    assert sys.modules[package] is whole
    assert whole.made == 2


def test_a_package_that_is_not_there():
    with pytest.raises(ImportError, match="no_such_package"):
        import_bare("no_such_package")


def test_bare_mediapipe_sees_what_the_whole_one_sees():
    photo = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
    done = subprocess.run([sys.executable, "-c", BARE_AND_COMPLETE, str(photo)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
