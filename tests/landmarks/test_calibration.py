"""How wrong a detector is: measured on renders, kept on disk, used as a precision."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from focus_backend.errors import LandmarkError
from focus_backend.landmarks.calibration import LandmarkNoise, calibrate, noise_of, random_portraits
from focus_backend.landmarks.calibration_store import (
    calibration_for,
    calibration_key,
    independent_noise,
    read_calibration,
    shipped_path,
    write_calibration,
)
from focus_backend.morphable.store import load_model
from spots import SpotDetector

# Few, for each is drawn; as many as two thirds have to show a face.
PICTURES, LEAST = 24, 16


class CountingDetector:
    """The default detector under another name, so that nothing shipped is found for it."""

    name = "counted"

    def __init__(self, detector) -> None:
        self._detector, self.version, self.point_names, self.calls = detector, detector.version, detector.point_names, 0

    def detect(self, pixels):
        self.calls += 1
        return self._detector.detect(pixels)


@pytest.fixture(scope="module")
def model():
    return load_model("anny")


@pytest.fixture(scope="module")
def made(model, detector, tmp_path_factory):
    """A calibration made on first use, the cache it went to, and the detector that was asked."""
    cache, counting = tmp_path_factory.mktemp("cache"), CountingDetector(detector)
    seen: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("focus_backend.landmarks.calibration._LEAST_PICTURES", LEAST)
        calibration = calibration_for(model, counting, cache, PICTURES, seen.append)
    assert seen[-1] == 1.0
    return calibration, cache, counting


@pytest.fixture(scope="module")
def calibration(made):
    return made[0]


def test_noise_has_the_covariance_of_the_errors():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(12, 12)) * np.linspace(3, 0.5, 12)
    errors = torch.tensor(random.normal(size=(4000, 12)) @ mixing + 1.5).view(-1, 6, 2)
    noise = noise_of(errors.float(), rank=12)
    covariance = torch.linalg.inv(noise.precision())
    expected = torch.tensor(mixing.T @ mixing)
    # Correlations are shrunk by a tenth and the diagonal keeps a floor, on purpose.
    assert (covariance - expected).norm() < 0.2 * expected.norm()
    assert (noise.bias - 1.5).abs().max() < 0.6


def test_noise_is_the_same_every_time():
    errors = torch.randn(50, 6, 2, generator=torch.Generator().manual_seed(1))
    first, second = noise_of(errors, 5), noise_of(errors, 5)
    assert torch.equal(first.factor, second.factor)


def test_hidden_points_count_less_and_the_others_as_before():
    noise = LandmarkNoise(torch.zeros(3, 2), torch.zeros(0, 6), torch.ones(6))
    precision = noise.precision(torch.tensor([0.0, 3.0, 0.0]))
    assert torch.allclose(precision.diagonal(), torch.tensor([1, 1, 0.25, 0.25, 1, 1], dtype=torch.float64))
    assert torch.allclose(noise.precision(inflation=4.0).diagonal(), torch.full((6,), 0.25, dtype=torch.float64))


def test_portraits_are_the_same_every_time_and_differ_among_each_other(tiny_model):
    first, again = (list(random_portraits(tiny_model, 2)) for _ in range(2))
    assert np.array_equal(first[1].pixels, again[1].pixels)
    assert not np.array_equal(first[0].pixels, first[1].pixels)
    assert first[0].pixels.std() > 5


def test_a_detector_that_sees_too_little_is_said(spotted, monkeypatch):
    monkeypatch.setattr("focus_backend.landmarks.calibration._LEAST_PICTURES", LEAST)
    # Spots on the far side are not seen, and so most renders are of no use.
    with pytest.raises(LandmarkError, match="in only"):
        calibrate(spotted[0], SpotDetector(), PICTURES)


def test_is_made_once_and_kept(model, made):
    first, cache, counting = made
    calls = counting.calls
    second = calibration_for(model, counting, cache, PICTURES)
    assert counting.calls == calls > PICTURES
    assert second.embedding.points.names == first.embedding.points.names
    assert torch.equal(second.embedding.points.barycentric, first.embedding.points.barycentric)
    assert torch.equal(second.noise.variance, first.noise.variance)
    # Kept in half precision.
    assert torch.allclose(second.noise.factor, first.noise.factor, rtol=1e-3, atol=1e-3)


def test_errors_of_near_points_go_together(calibration):
    noise = calibration.noise
    covariance = noise.factor.T @ noise.factor + torch.diag(noise.variance)
    deviation = covariance.diagonal().sqrt()
    correlation = covariance / deviation[:, None] / deviation
    names = calibration.embedding.points.names
    one, other = (2 * names.index(name) for name in ("mesh_061", "mesh_146"))
    assert correlation[one, other] > 0.5
    assert 0.5 < deviation.median() < 4


def test_key_follows_everything_it_depends_on(spotted, tiny_model):
    model, finder = spotted[0], SpotDetector()
    other = dataclasses.replace(model, metadata={"sha256": "1" * 64})
    unhashed = dataclasses.replace(model, metadata={})
    moved = dataclasses.replace(unhashed, mean_shape=model.mean_shape * 1.0001)
    newer = SpotDetector()
    newer.version = "2"
    pairs = ((model, finder), (other, finder), (unhashed, finder), (moved, finder), (model, newer))
    assert len({calibration_key(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "another key"])
def test_damaged_or_foreign_files_are_not_read(calibration, tmp_path, damage):
    path = tmp_path / "kept.safetensors"
    write_calibration(calibration, path, "key")
    assert read_calibration(path, "key") is not None
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-7], "garbage": b"x" * 500, "empty": b"", "another key": data}[damage])
    assert read_calibration(path, "other" if damage == "another key" else "key") is None
    assert [file.name for file in tmp_path.iterdir()] == ["kept.safetensors"]


def test_points_placed_by_hand_err_for_themselves(calibration):
    noise = independent_noise(calibration.embedding)
    precision = noise.precision()
    assert torch.count_nonzero(precision - torch.diag(precision.diagonal())) == 0
    assert torch.allclose(precision.diagonal()[::2].rsqrt().float(), calibration.embedding.noise)


def test_the_shipped_calibration_belongs_to_the_shipped_model(detector):
    model = load_model("anny")
    found = read_calibration(shipped_path(model, detector), calibration_key(model, detector))
    assert found is not None, "the model has changed: run focus_backend.landmarks.calibration_store.ship"
    assert len(found.embedding.points.names) > 420
    assert 1 < found.noise.factor.square().sum(0).add(found.noise.variance).mean().sqrt() < 4
