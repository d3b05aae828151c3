"""Being told how far the work is, giving it up, and several photos at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focus_backend.errors import CancelledError, NoFaceError
from focus_backend.export.bundle import reconstruction_files
from focus_backend.landmarks.detector import FIVE_POINT_NAMES, Detection, bounding_box
from focus_backend.photo import Photo
from focus_backend.progress import Reporter
from focus_backend.reconstruction.fitting import laid_over
from focus_backend.reconstruction.network import FaceNetworks
from focus_backend.reconstruction.reconstructor import PhotoTask, Reconstructor
from focus_backend.reconstruction.strategy import NetworkStrategy

# Where the demo photo's face has them: right and left eye, nose, mouth corners.
POINTS = np.array([[205.0, 116.0], [243.0, 110.0], [229.0, 133.0], [212.0, 154.0], [243.0, 151.0]])


class Pointed:
    """Finds the demo photo's face in photos of its size, twice where their name says so, and nothing elsewhere."""

    name, version, point_names = "pointed", "1", FIVE_POINT_NAMES

    def __init__(self) -> None:
        self.is_broken = False

    def detect(self, pixels, beat=lambda: None):
        beat()
        if pixels.shape != (512, 512, 3):
            return []
        return [Detection(self.name, FIVE_POINT_NAMES, POINTS, POINTS, bounding_box(POINTS))]


class Sees(NetworkStrategy):
    """Notes how many faces are looked at together; may fail when there are several."""

    def __init__(self, networks, fails=False) -> None:
        super().__init__(networks)
        self.looks = []
        self._fails = fails

    def look(self, faces, beat=lambda: None):
        self.looks.append(len(faces))
        if self._fails and len(faces) > 1:
            raise RuntimeError("out of memory")
        return super().look(faces, beat)


@pytest.fixture(scope="module")
def networks(model, plain_weights) -> FaceNetworks:
    from focus_backend.networks.weights import load_weights

    return FaceNetworks(load_weights(plain_weights, model, "cpu"), model)


@pytest.fixture
def seeing(model, networks):
    """A quick reconstructor through small networks."""

    def make(fails=False) -> Reconstructor:
        return Reconstructor(model, Pointed(), Sees(networks, fails))

    return make


class Leaving:
    """Gives up at the report of that number, and stays silent otherwise."""

    def __init__(self, at: float = float("inf")) -> None:
        self.at = at
        self.told = []

    def __call__(self, stage, fraction, preview=None):
        self.told.append((stage, fraction, preview))
        if len(self.told) == self.at + 1:
            raise CancelledError("given up")


def test_a_part_is_told_as_its_share_and_never_goes_back():
    heard = Leaving()
    report = Reporter(heard)
    first, second = report.part(0.0, 0.5), report.part(0.5, 1.0)
    first("a", 0.5)
    first.part(0.5, 1.0)("b", 0.5)
    first("a", 0.2)
    first.beat()
    second("c", 0.0)
    second("c", 7.0)
    expected = [("a", 0.25), ("b", 0.375), ("a", 0.375), ("a", 0.375), ("c", 0.5), ("c", 1.0)]
    assert [(stage, fraction) for stage, fraction, _ in heard.told] == expected


def test_a_preview_reaches_who_is_told_and_a_beat_has_none():
    heard = Leaving()
    report = Reporter(heard).part(0.0, 0.5)
    picture = np.zeros((2, 2, 3), np.uint8)
    report("a", 0.5, lambda: picture)
    report.beat()
    assert heard.told[0][2]() is picture
    assert heard.told[1][2] is None


def test_colours_are_laid_over_a_photo():
    photo, colours = np.full((1, 3, 3), 0.2, np.float32), np.full((1, 3, 3), 0.8, np.float32)
    mixed = laid_over(photo, colours, np.array([[0.0, 0.5, 1.0]], np.float32))
    assert mixed[0, :, 0].tolist() == [51, 128, 204]


def test_giving_up_ends_the_networks_work_at_every_report(seeing, astronaut):
    reconstructor = seeing()
    everything = Leaving()
    reconstructor.reconstruct(astronaut, progress=everything)
    assert len(everything.told) > 15
    for at in range(0, len(everything.told), 6):
        leaving = Leaving(at)
        with pytest.raises(CancelledError):
            reconstructor.reconstruct(astronaut, progress=leaving)
        assert len(leaving.told) == at + 1


def test_the_networks_preview_is_their_drawing_over_the_crop(seeing, astronaut):
    pictures = {}

    def watch(stage, fraction, preview=None):
        if preview is not None:
            pictures[stage] = preview()

    seeing().reconstruct(astronaut, progress=watch)
    assert set(pictures) == {"finding faces", "looking at a face", "looking through the networks"}
    drawn = pictures["looking through the networks"]
    assert drawn.shape == (224, 224, 3)
    assert drawn.std() > 10


@pytest.mark.slow
def test_giving_up_ends_a_fit_anywhere(model, astronaut, brief_fit):
    reconstructor = Reconstructor(model, Pointed())
    landmarks = Detection("user", FIVE_POINT_NAMES, POINTS, POINTS, bounding_box(POINTS))
    everything = Leaving()
    (face,) = reconstructor.reconstruct(astronaut, landmarks=landmarks, progress=everything)
    fractions = [fraction for _, fraction, _ in everything.told]
    assert fractions == sorted(fractions)
    assert len(everything.told) > 50
    for at in np.linspace(0, len(everything.told) - 1, 12).astype(int):
        leaving = Leaving(at)
        with pytest.raises(CancelledError):
            reconstructor.reconstruct(astronaut, landmarks=landmarks, progress=leaving)
        assert len(leaving.told) == at + 1
    (again,) = reconstructor.reconstruct(astronaut, landmarks=landmarks)
    assert torch.equal(face.neutral_vertices, again.neutral_vertices)


def test_several_photos_share_the_networks_batches(seeing, astronaut):
    reconstructor = seeing()
    (alone,) = reconstructor.reconstruct(astronaut)
    outcomes = dict(reconstructor.reconstruct_many([PhotoTask(astronaut)] * 3))
    assert reconstructor.strategy.looks == [1, 3]
    assert sorted(outcomes) == [0, 1, 2]
    for (face,) in outcomes.values():
        # Other sizes of a batch may change the last bits.
        assert torch.allclose(face.neutral_vertices, alone.neutral_vertices, atol=1e-3)
        assert (face.face_mask == alone.face_mask).mean() > 0.999


def test_one_photo_of_many_is_the_photo_alone(seeing, astronaut):
    reconstructor = seeing()
    ((index, (face,)),) = reconstructor.reconstruct_many([PhotoTask(astronaut)])
    (alone,) = reconstructor.reconstruct(astronaut)
    assert index == 0
    assert files_of(face) == files_of(alone)


def files_of(face) -> dict[str, bytes]:
    return {name: data for name, data in reconstruction_files(face).items() if name != "result.json"}


def test_photos_are_handed_over_as_they_are_done(seeing, astronaut):
    second = Leaving()
    outcomes = seeing().reconstruct_many([PhotoTask(astronaut), PhotoTask(astronaut, progress=second)])
    assert next(outcomes)[0] == 0
    assert second.told[-1][1] < 0.2
    assert next(outcomes)[0] == 1
    assert second.told[-1][1] == 1.0


def test_a_photos_failure_is_its_own(seeing, astronaut):
    small = Photo(np.zeros((64, 64, 3), np.uint8), "small", (64, 64))
    broken = Detection("user", FIVE_POINT_NAMES, POINTS, POINTS * np.nan, bounding_box(POINTS))
    tasks = [PhotoTask(small), PhotoTask(astronaut), PhotoTask(astronaut, landmarks=broken), PhotoTask(astronaut)]
    outcomes = dict(seeing().reconstruct_many(tasks))
    assert isinstance(outcomes[0], NoFaceError)
    assert isinstance(outcomes[2], Exception)
    assert len(outcomes[1]) == len(outcomes[3]) == 1


def test_when_looking_together_fails_each_is_looked_at_alone(seeing, astronaut):
    reconstructor = seeing(fails=True)
    outcomes = dict(reconstructor.reconstruct_many([PhotoTask(astronaut)] * 2))
    assert reconstructor.strategy.looks == [2, 1, 1]
    assert all(len(faces) == 1 for faces in outcomes.values())


@pytest.mark.parametrize("error", [CancelledError("given up"), ZeroDivisionError()])
def test_who_leaves_at_any_report_leaves_alone(seeing, astronaut, error):
    class Raising(Leaving):
        def __call__(self, stage, fraction, preview=None):
            self.told.append(stage)
            if len(self.told) == self.at + 1:
                raise error

    reconstructor = seeing()
    everything = Leaving()
    list(reconstructor.reconstruct_many([PhotoTask(astronaut), PhotoTask(astronaut, progress=everything)]))
    for at in np.linspace(0, len(everything.told) - 1, 4).astype(int):
        outcomes = dict(reconstructor.reconstruct_many([PhotoTask(astronaut), PhotoTask(astronaut, progress=Raising(at))]))
        assert outcomes[1] is error
        assert len(outcomes[0]) == 1
