"""Photos of every kind through a session and a real backend, whose fit is brief, to plans of the scene."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from addon_backend.bench import make_bench
from addon_backend.odd_photos import write_odd_photos
from blender_addon.head import PhotoPlan
from blender_addon.session.job import Job
from focus_backend.photo import read_photo

pytestmark = pytest.mark.slow

Ended = dict[str, tuple[Job, PhotoPlan | None]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """How photos of every kind ended in one session that asks for all their faces, and what is planned of them."""
    folder = tmp_path_factory.mktemp("real")
    photos = write_odd_photos(folder / "odd ünicode")
    with pytest.MonkeyPatch.context() as patch:
        # It loads what users wait for, too.
        patch.setattr("addon_backend.bench.PATIENCE", 300.0)
        bench = make_bench(folder, "addon_backend.brief:load_brief", pipeline_config={"method": "fit"})
        try:
            jobs = {kind: bench.submit_file(path, faces=0) for kind, path in photos.items()}
            bench.until_ended(*jobs.values())
        finally:
            bench.session.close()
    return {kind: (job, bench.plans.get(job.number)) for kind, job in jobs.items()}


@pytest.mark.parametrize(
    ("kind", "faces", "stays_a_file"),
    [
        ("plain", 1, True),
        ("grey", 1, True),
        ("cmyk", 1, True),
        ("16 bit", 1, True),
        ("16 bit grey", 1, True),
        ("cut out", 1, True),
        ("turned", 1, False),
        ("ten faces", 10, True),
    ],
)
def test_a_photo_of_any_kind_becomes_its_heads(kind: str, faces: int, stays_a_file: bool, ended: Ended) -> None:
    job, plan = ended[kind]
    assert (job.state, job.error) == ("finished", None)
    assert max(job.preview.shape[:2]) <= 256
    assert [head.face_index for head in plan.heads] == list(range(faces))
    seen = read_photo(job.photo).pixels
    for head in plan.heads:
        names = [key.name for key in head.mesh.shape_keys]
        assert len(names) == 1 + 52 + 10
        assert "jawOpen" in names
        # A head's height in metres: the scale is right whatever the photo is.
        assert 0.2 < np.ptp(head.mesh.vertices[:, 2]) < 0.35
        assert (head.camera.width_px, head.camera.height_px) == (seen.shape[1], seen.shape[0])
        if stays_a_file:
            assert head.photo.path == str(job.photo)
        else:
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(head.photo.png))), seen)


def test_a_turned_photo_gives_the_head_of_the_upright_one(ended: Ended) -> None:
    upright, turned = (ended[kind][1].heads[0].mesh.vertices for kind in ("plain", "turned"))
    # The same picture, but for JPEG's losses: millimetres apart.
    assert np.linalg.norm(upright - turned, axis=1).mean() < 0.005


def test_a_photo_without_a_face_is_named(ended: Ended) -> None:
    job, plan = ended["wall"]
    assert plan is None
    assert (job.state, job.error.code) == ("failed", "no-face")
    assert "wall.png" in job.error.problem


def test_a_photo_that_is_far_too_wide_is_told_with_its_remedy(ended: Ended) -> None:
    job, plan = ended["wide"]
    assert plan is None
    assert (job.state, job.error.code) == ("failed", "photo")
    assert job.error.problem == "wide.jpg is 20000 x 512 pixels, longer than 16384"
    assert "scale it down" in job.error.remedy
