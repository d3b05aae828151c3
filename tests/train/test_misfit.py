"""Equation 11 by hand: what an encoder gets wrong on average of faces whose truth is known; the stored prior is applied in
tests/reconstruction/test_misfit.py."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.theta import Theta
from train.data.synthetic import SyntheticFaces
from train.misfit import RenderedFaces, draw_misfit, mean_misfit

SIZE = 48


@pytest.fixture
def faces(tiny_model: FaceModel) -> RenderedFaces:
    return RenderedFaces(SyntheticFaces(tiny_model, CropFrame.of(tiny_model, SIZE), seed=2))


class Knowing(torch.nn.Module):
    """An encoder that knows the truth of the batches it is shown, in their order, and says it wrongly in one way."""

    def __init__(self, faces: RenderedFaces, offset: torch.Tensor) -> None:
        super().__init__()
        self.faces, self.offset, self.step = faces, offset, 0

    def forward(self, image: torch.Tensor, landmarks: torch.Tensor | None = None) -> Theta:
        batch = self.faces.batch(self.step, len(image))
        assert torch.equal(batch.image, image)
        self.step += 1
        return dataclasses.replace(batch.theta, shape=batch.theta.shape + self.offset)


def test_a_constant_offset_in_shape_is_found_as_its_vertices(tiny_model: FaceModel, faces: RenderedFaces) -> None:
    offset = torch.tensor([1.0, 0.0, -0.5, 0.0, 2.0])
    misfit = mean_misfit(Knowing(faces, offset), tiny_model, faces, 64)
    expected = torch.einsum("k,kvc->vc", offset, tiny_model.shape_basis)
    torch.testing.assert_close(misfit, expected, atol=1e-3, rtol=1e-4)
    assert float(expected.norm(dim=1).max()) > 1


def test_corrected_vertices_are_the_truth_again(tiny_model: FaceModel, faces: RenderedFaces) -> None:
    """Found minus misfit, not plus."""
    offset = torch.full((tiny_model.shape_size,), 0.7)
    misfit = mean_misfit(Knowing(faces, offset), tiny_model, faces, 32)
    truth = faces.batch(5, 4).theta.shape
    torch.testing.assert_close(tiny_model.decode_shape(truth + offset) - misfit, tiny_model.decode_shape(truth), atol=2e-3, rtol=1e-4)


def test_an_encoder_that_is_right_on_average_has_no_misfit(tiny_model: FaceModel, faces: RenderedFaces) -> None:
    class Alternating(Knowing):
        def forward(self, image: torch.Tensor, landmarks: torch.Tensor | None = None) -> Theta:
            theta = super().forward(image)
            sign = torch.tensor([1.0, -1.0]).repeat(len(image) // 2)[:, None]
            return dataclasses.replace(theta, shape=theta.shape + sign)

    misfit = mean_misfit(Alternating(faces, torch.zeros(tiny_model.shape_size)), tiny_model, faces, 64)
    assert float(misfit.abs().max()) < 1e-3


def test_targets_are_what_the_decoder_draws(tiny_model: FaceModel, faces: RenderedFaces) -> None:
    batch = faces.batch(3, 4)
    drawn = decode(tiny_model, CropFrame.of(tiny_model, SIZE), batch.theta).rendering
    torch.testing.assert_close(batch.image, drawn.image.clamp(0, 1).permute(0, 3, 1, 2))
    assert torch.equal(batch.mask, drawn.mask.float())
    assert float(batch.image.permute(0, 2, 3, 1)[~drawn.mask].max()) < 0.9, "nothing but the silhouette's blend lies outside the face"
    assert bool(batch.inside.all())


def test_the_picture_tells_out_from_in(tiny_model: FaceModel) -> None:
    frame = CropFrame.of(tiny_model, SIZE)
    outwards = torch.nn.functional.normalize(tiny_model.mean_shape - tiny_model.mean_shape.mean(0), dim=1)
    pictures = [draw_misfit(tiny_model, frame, scale * outwards).astype(float) for scale in (2.0, -2.0)]
    # Of the three views the first, without the line of text.
    out, inside = ((picture[:280, :320, 0] - picture[:280, :320, 2]).mean() for picture in pictures)
    assert pictures[0].shape == (320, 3 * 320, 3)
    assert out > 10
    assert inside < -10
