"""From a real photo, through the real program and its fit, to a plan of the scene."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from addon_backend.bench import Bench
from blender_addon.session.session import Session
from blender_addon.session.settings import BackendSettings

ASTRONAUT = Path(__file__).parents[2] / "docs" / "demo" / "astronaut.jpg"
PROGRAM = Path(sys.executable).parent / "focus-backend"


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not installed beside this Python")
def test_photos_become_plans(tmp_path, monkeypatch):
    monkeypatch.setattr("addon_backend.bench.PATIENCE", 300.0)
    session = Session(tmp_path / "own", os.getpid())
    session.settings = BackendSettings(executable=str(PROGRAM), arguments=("--method", "fit", "--workers", "1", "--keys", str(tmp_path)))
    bench = Bench(session, tmp_path / "photos")
    turned = tmp_path / "turned ünicode.jpg"
    with Image.open(ASTRONAUT) as picture:
        exif = picture.getexif()
        # To be turned by a quarter before it is looked at.
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(turned, exif=exif)
    grey = tmp_path / "grey.png"
    Image.new("RGB", (400, 300), (128, 128, 128)).save(grey)
    jobs = [bench.submit_file(path) for path in (ASTRONAUT, grey, turned)]
    try:
        bench.until_ended(*jobs)
    finally:
        session.close()

    assert [(job.state, job.error and job.error.code) for job in jobs] == [("finished", None), ("failed", "no-face"), ("finished", None)]
    assert "grey.png" in jobs[1].error.problem
    assert max(max(jobs[0].preview.shape[:2]), max(jobs[2].preview.shape[:2])) <= 256
    upright, from_turned = (bench.plans[job.number].heads[0] for job in (jobs[0], jobs[2]))
    assert (upright.photo.path, from_turned.photo.path) == (str(ASTRONAUT), "")
    names = [key.name for key in upright.mesh.shape_keys]
    assert len(names) == 1 + 52 + 10
    assert "jawOpen" in names
    # The same picture, but for JPEG's losses: millimetres apart.
    assert np.linalg.norm(upright.mesh.vertices - from_turned.mesh.vertices, axis=1).mean() < 0.005
