"""Networks that move the detector's points: seen again on the crop, back in the photo, and as evidence for the fit."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from focus_backend.landmarks.calibration_store import calibration_for
from focus_backend.landmarks.landmarks68 import Landmarks68
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.weights import load_weights, save_weights
from focus_backend.photo import Photo
from focus_backend.reconstruction.network import FaceNetworks
from focus_backend.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    """A mean face, and points that stay where the detector sees them, known to half a millimetre."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone="mobilenet", landmarks="mediapipe"), model, 112)
    encoder.branch.measure(0.5 * torch.randn(400, 68, 2, generator=torch.Generator().manual_seed(1)), torch.ones(400, 68, dtype=torch.bool))
    folder = tmp_path_factory.mktemp("moved") / "weights"
    save_weights(folder, encoder, None, model=model, image_size=112)
    return folder


@pytest.fixture(scope="module")
def detected(model, astronaut):
    """The 68 points of the demo photo as the detector gives them on the photo itself, and its five points."""
    refined = Reconstructor.load(model, method="fit")
    (found,) = refined.detector.detect(astronaut.pixels)
    return Landmarks68.of(model, calibration_for(model, refined.detector))(found.points), found.five_points


@pytest.mark.parametrize("degrees", [0.0, 40.0])
def test_the_points_of_a_turned_photo_lie_on_its_face(model, weights, astronaut, detected, degrees):
    points, five = detected
    turn = cv2.getRotationMatrix2D((256, 256), degrees, 1)
    pixels = cv2.warpAffine(astronaut.pixels, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    networks = FaceNetworks(load_weights(weights, model), model)
    (fit,) = networks.look(pixels, [five @ turn[:, :2].T + turn[:, 2]])
    assert fit.landmarks68 is not None
    expected = points @ turn[:, :2].T + turn[:, 2]
    # The two looks differ by a pixel or two of a face 110 pixels high; a wrong crop or turn by tens.
    assert np.linalg.norm(fit.landmarks68 - expected, axis=1).mean() < 2.5
    assert math.degrees(fit.crop.angle) == pytest.approx(
        -degrees + math.degrees(networks.look(astronaut.pixels, [five])[0].crop.angle), abs=1
    )


def test_where_nothing_is_seen_there_is_no_evidence(model, weights, astronaut, detected):
    networks = FaceNetworks(load_weights(weights, model), model)
    (fit,) = networks.look(np.full_like(astronaut.pixels, 90), [detected[1]])
    assert fit.landmarks68 is None
    assert bool(torch.isfinite(fit.state.shape).all())


@pytest.mark.usefixtures("brief_fit")
def test_refine_goes_to_the_points_as_far_as_they_are_known(model, weights, astronaut, detected, tmp_path):
    def misses(folder) -> float:
        (face,) = Reconstructor.load(model, method="refine", weights=folder).reconstruct(Photo(astronaut.pixels, "a.jpg", (512, 512)))
        seen = FaceNetworks(load_weights(folder, model), model).look(astronaut.pixels, [detected[1]])[0].landmarks68
        vertices = model.decode_shape(face.shape.float(), face.expression.float())
        return float(np.linalg.norm(face.camera.project(model.landmarks68.on(vertices, model.triangles)).numpy() - seen, axis=1).mean())

    trusted = load_weights(weights, model).encoder
    trusted.branch.measure(20 * torch.randn(400, 68, 2, generator=torch.Generator().manual_seed(1)), torch.ones(400, 68, dtype=torch.bool))
    save_weights(tmp_path / "doubted", trusted, None, model=model, image_size=112)
    assert misses(weights) < 0.7 * misses(tmp_path / "doubted")
