"""Each stage's step: which losses, on which pixels, and gradients to the network that learns alone."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
import torch

from focus_backend import losses
from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import load_network
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork
from focus_backend.networks.theta import START_BAND0, Theta
from train import masks, steps
from train.autoencoder import EncoderOutputs, Parts, SegmentationLogits, reconstruct, segment
from train.config import LossesConfig
from train.data.batch import FaceBatch
from train.data.synthetic import SyntheticConfig, SyntheticFaces
from train.spread import measure_mask
from train.steps import error_forms

SIZE = 48


@pytest.fixture
def parts(saved_model: FaceModel, recognition_file: Path) -> Parts:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(backbone="mobilenet"), saved_model, SIZE)
    # A zero head would pass no gradient on.
    torch.nn.init.normal_(encoder.backbone.head.weight, std=1e-3)
    segmentation = SegmentationNetwork(SegmentationConfig(width=4))
    recognition = load_network(recognition_file, "recognition").requires_grad_(False)
    frame = CropFrame.of(saved_model, SIZE)
    calls = EncoderOutputs(encoder), SegmentationLogits(segmentation)
    return Parts(saved_model, frame, encoder, segmentation, *calls, recognition, contextlib.nullcontext)


@pytest.fixture
def batch(parts: Parts) -> FaceBatch:
    # All seen from the distance of the crops' camera, so that theta is exact.
    return SyntheticFaces(parts.model, parts.frame, SyntheticConfig(perspective_spread=0, close_share=0), seed=3).batch(0, 3)


def gradients(network: torch.nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None)


def test_the_encoders_step_gives_the_segmentation_network_no_gradient(parts: Parts, batch: FaceBatch) -> None:
    outcome = steps.encoder_step(parts, LossesConfig(), batch, masks.by_network(parts))
    outcome.total.backward()
    assert gradients(parts.encoder) > 0
    assert all(p.grad is None for p in parts.segmentation.parameters())
    assert all(p.grad is None for p in parts.recognition.parameters())
    assert set(outcome.terms) == {"pixel", "perceptual", "landmark", "regulariser"}


def test_the_segmentation_networks_step_gives_the_encoder_no_gradient(parts: Parts, batch: FaceBatch) -> None:
    outcome = steps.segmentation_step(parts, LossesConfig(), batch)
    outcome.total.backward()
    assert gradients(parts.segmentation) > 0
    assert all(p.grad is None for p in parts.encoder.parameters())
    assert all(p.grad is None for p in parts.recognition.parameters())
    assert set(outcome.terms) == {"neighbour", "distance", "area", "preserve", "binary"}


def test_every_loss_of_the_encoder_reaches_it(parts: Parts, batch: FaceBatch) -> None:
    config = LossesConfig(encoder=losses.EncoderWeights(outlier_area=0.06))
    parts.segmentation.requires_grad_(False).eval()

    def terms() -> dict[str, torch.Tensor]:
        return steps.encoder_step(parts, config, batch, masks.by_network(parts), uses_segmentation=True).terms

    assert set(terms()) == {"pixel", "perceptual", "landmark", "regulariser", "outlier_area"}
    for name in terms():
        parts.encoder.zero_grad()
        terms()[name].backward()
        assert gradients(parts.encoder) > 0, name
    assert gradients(parts.segmentation) == 0
    # Without a trained S there is nothing whose area could count.
    assert "outlier_area" not in steps.encoder_step(parts, config, batch, masks.everything).terms


def test_every_loss_of_the_segmentation_network_reaches_it(parts: Parts, batch: FaceBatch) -> None:
    config = LossesConfig(segmentation=losses.SegmentationWeights(difference=1.0))
    for name in steps.segmentation_step(parts, config, batch).terms:
        parts.segmentation.zero_grad()
        steps.segmentation_step(parts, config, batch).terms[name].backward()
        assert gradients(parts.segmentation) > 0, name


def test_terms_are_the_equations_times_their_weights(parts: Parts, batch: FaceBatch) -> None:
    parts.encoder.eval()
    config = LossesConfig()
    outcome = steps.encoder_step(parts, config, batch, masks.everything)
    seen = outcome.seen
    expected = 0.5 * losses.pixel_loss(seen.photo, seen.rendering, seen.region, seen.region)
    torch.testing.assert_close(outcome.terms["pixel"], expected)
    expected = 0.1 * losses.regulariser(seen.theta.shape, seen.theta.expression, seen.theta.albedo)
    torch.testing.assert_close(outcome.terms["regulariser"], expected)
    torch.testing.assert_close(outcome.total, sum(outcome.terms.values()))


def test_pixels_outside_the_photo_and_outside_the_mask_do_not_count(parts: Parts, batch: FaceBatch) -> None:
    parts.encoder.eval()
    half = torch.ones_like(batch.inside)
    half[:, : SIZE // 2] = False
    cut = dataclasses.replace(batch, inside=half)
    seen = reconstruct(parts, cut)
    assert float(seen.region[:, : SIZE // 2].abs().max()) == 0
    assert float(seen.rendering.detach()[:, : SIZE // 2].abs().max()) == 0
    assert float(segment(parts, seen).detach()[:, : SIZE // 2].abs().max()) == 0
    nothing = steps.encoder_step(parts, LossesConfig(), batch, lambda seen: torch.zeros_like(seen.region))
    assert float(nothing.terms["pixel"]) == 0


def test_unknown_landmarks_pull_nothing(parts: Parts, batch: FaceBatch) -> None:
    unknown = dataclasses.replace(batch, landmark_weight=torch.zeros(len(batch)), landmarks=torch.full_like(batch.landmarks, torch.nan))
    outcome = steps.encoder_step(parts, LossesConfig(), unknown, masks.everything)
    assert float(outcome.terms["landmark"]) == 0
    outcome.total.backward()
    assert torch.isfinite(torch.tensor(gradients(parts.encoder)))


class Answer(torch.nn.Module):
    """An encoder that says the same whatever it sees."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, image: torch.Tensor, landmarks: torch.Tensor | None) -> torch.Tensor:
        return self.outputs.expand(len(image), -1)


def outputs_of(theta: Theta, encoder: Encoder) -> torch.Tensor:
    """The bare outputs that stand for a theta."""
    scales = encoder.config.scales
    lighting = theta.lighting.clone()
    lighting[:, 0] -= START_BAND0
    moved = (theta.translation - encoder.start_translation) / torch.tensor([scales.position, scales.position, scales.depth])
    rotation = theta.rotation / scales.rotation
    return torch.cat([theta.shape, theta.expression, theta.albedo / scales.albedo, lighting.flatten(1), rotation, moved], 1)


def test_the_warm_start_is_zero_at_the_truth_and_one_at_the_mean_face(parts: Parts, batch: FaceBatch) -> None:
    forms = error_forms(parts.model)
    assert float(forms["shape"].trace()) == pytest.approx(1)
    told = dataclasses.replace(parts, encode=Answer(outputs_of(batch.theta, parts.encoder)))
    for name, value in steps.warm_start_step(told, batch, forms).terms.items():
        assert float(value) == pytest.approx(0, abs=1e-3), name
    blind = dataclasses.replace(parts, encode=Answer(torch.zeros(1, parts.encoder.sizes.total)))
    many = SyntheticFaces(parts.model, parts.frame, seed=4).batch(0, 64)
    assert float(steps.warm_start_step(blind, many, forms).terms["shape"]) == pytest.approx(1, rel=0.2)


def test_the_preliminary_mask_is_the_threshold_on_the_region(parts: Parts, batch: FaceBatch) -> None:
    parts.encoder.eval()
    seen = reconstruct(parts, batch)
    mask = masks.by_difference(LossesConfig())(seen)
    expected = ((seen.photo - seen.rendering).square().sum(-1) < 0.17).float() * seen.region
    assert torch.equal(mask, expected)


def test_supervised_masks_and_their_augmentations(parts: Parts, batch: FaceBatch) -> None:
    seen = reconstruct(parts, batch)
    assert torch.equal(masks.of_truth(seen), batch.mask * seen.region)
    for kind in ("cutmix", "cutout"):
        first, second = ([masks.augmented(batch, kind, seed=1, step=step) for step in range(8)] for _ in range(2))
        assert all(torch.equal(one.image, other.image) for one, other in zip(first, second, strict=True))
        assert len({float(one.image.sum()) for one in first}) > 3
        # Beside pasted pixels the mask is as it was.
        assert all(bool((one.mask <= batch.mask).all()) for one in first)
        assert min(float(one.mask.sum()) for one in first) < float(batch.mask.sum())
    assert masks.augmented(batch, "none", 0, 0) is batch


def test_skin_colour_tells_skin_from_a_blue_wall(parts: Parts, batch: FaceBatch) -> None:
    mask_of = masks.by_skin_colour(SyntheticFaces(parts.model, parts.frame, seed=5))
    seen = reconstruct(parts, batch)
    blue = torch.zeros_like(batch.image)
    blue[:, 2] = 1
    other = reconstruct(parts, dataclasses.replace(batch, image=blue))
    assert float(mask_of(seen).sum()) > 2 * float(mask_of(other).sum())


class Knowing(SegmentationNetwork):
    """An S that says the mask it is told, turned around or not."""

    def __init__(self, mask: torch.Tensor, log_odds: float) -> None:
        super().__init__(SegmentationConfig(width=4))
        self._answer = log_odds * (2 * mask - 1)

    def logits(self, rendering: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        """What it was told, smaller pictures as they come."""
        return self._answer


@pytest.mark.parametrize(("log_odds", "least", "most"), [(8.0, 0.95, 1.0), (0.0, -100.0, 0.01), (-8.0, -100.0, -1.0)])
def test_the_skill_of_s_is_the_share_of_the_masks_it_explains(parts: Parts, log_odds: float, least: float, most: float) -> None:
    faces = SyntheticFaces(parts.model, parts.frame, SyntheticConfig(perspective_spread=0, close_share=0), seed=3)
    shown = faces.batch(1_000, 32)
    assert shown.mask is not None
    skill = measure_mask(parts.encoder.eval(), Knowing(shown.mask, log_odds), parts.model, parts.frame, faces, 1)
    assert least < skill <= most
