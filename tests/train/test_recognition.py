"""Training of the recognition network on people of the face model's prior."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.alignment import template_points
from focus_backend.networks.checkpoint import load_network, read_description
from focus_backend.networks.decoder import decode
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.theta import Theta
from train.data.batch import FaceBatch
from train.data.synthetic import SyntheticFaces
from train.recognition import (
    Album,
    MarginClassifier,
    People,
    RecognitionTraining,
    area_under_curve,
    disturb,
    draw_pictures,
    measure_verification,
    train_network,
    train_recognition,
)

SMALL = RecognitionTraining(
    identities=6, steps=2, batch_size=6, image_size=64, report_every=1, held_out_identities=3, held_out_pictures=3, landmark_noise=0.0
)


class PlainFaces:
    """Photographs people under even light, turned a little: what a few steps can learn from."""

    def __init__(self, model: FaceModel, frame: CropFrame, turn: float = 0.15) -> None:
        self.model, self.frame, self.turn = model, frame, turn

    def faces_of(self, shape: torch.Tensor, albedo: torch.Tensor, step: int) -> FaceBatch:
        random, count = torch.Generator().manual_seed(step), len(shape)
        lighting = torch.zeros(count, 9, 3)
        lighting[:, 0] = 3.5
        rotation = self.turn * torch.randn(count, 3, generator=random)
        place = self.frame.start_translation.expand(count, 3)
        theta = Theta(shape, torch.zeros(count, self.model.expression_size), albedo, lighting, rotation, place)
        decoded = decode(self.model, self.frame, theta)
        image, inside = decoded.rendering.image.permute(0, 3, 1, 2).clamp(0, 1), decoded.rendering.mask
        # The tiny model's points lie anywhere; these show the network the whole crop.
        landmarks = torch.zeros(count, 68, 2)
        landmarks[:, [36, 42, 30, 48, 54]] = template_points() * self.frame.size / 112
        landmarks[:, [39, 45]] = landmarks[:, [36, 42]]
        return FaceBatch(image, landmarks, torch.ones(count), torch.ones_like(inside), inside.float(), theta)


def _cosines_with_own_at(angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """An embedding at an angle to the first of two centres, and right to the second."""
    embedding = torch.tensor([[math.cos(angle), 0.0, math.sin(angle)]])
    return embedding, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])


@pytest.mark.parametrize(("margin_of", "own"), [("cosface", math.cos(0.8) - 0.3), ("arcface", math.cos(0.8 + 0.3))])
def test_the_margin_handicaps_the_right_identity(margin_of: str, own: float) -> None:
    embedding, centres = _cosines_with_own_at(0.8)
    classifier = MarginClassifier(3, 2, 10.0, margin_of)
    # Centres of any length are compared by direction.
    classifier.centres.data = centres * torch.tensor([[2.0], [0.5]])
    loss, cosines = classifier(embedding, torch.tensor([0]), 0.3)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-10 * own)), rel=1e-4)
    torch.testing.assert_close(cosines, torch.tensor([[math.cos(0.8), 0.0]]))


@pytest.mark.parametrize("margin_of", ["cosface", "arcface"])
def test_the_loss_grows_with_the_angle_all_the_way(margin_of: str) -> None:
    classifier = MarginClassifier(3, 2, 10.0, margin_of)
    losses = []
    for angle in torch.linspace(0, math.pi, 30).tolist():
        embedding, centres = _cosines_with_own_at(angle)
        classifier.centres.data = centres
        loss, _ = classifier(embedding.requires_grad_(), torch.tensor([0]), 0.5)
        loss.backward()
        assert embedding.grad is not None
        assert bool(torch.isfinite(embedding.grad).all())
        losses.append(loss.item())
    assert all(after >= before for before, after in itertools.pairwise(losses))


def test_area_under_curve_counts_ordered_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    # Whole numbers, so that there are ties.
    positive = torch.randint(0, 9, (40,), generator=random).float() + 2
    negative = torch.randint(0, 9, (60,), generator=random).float()
    pairs = positive[:, None] - negative
    expected = float(((pairs > 0) + 0.5 * (pairs == 0)).double().mean())
    assert area_under_curve(positive, negative) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(area_under_curve(positive[:0], negative))


def test_people_depend_on_their_seed(tiny_model: FaceModel) -> None:
    first, again, other = (People(tiny_model, 5, SMALL, seed) for seed in (1, 1, 2))
    assert torch.equal(first.shape, again.shape)
    assert torch.equal(first.albedo, again.albedo)
    assert not torch.equal(first.shape, other.shape)


def test_pictures_are_renders_photos_and_cut_out_faces(tiny_model: FaceModel) -> None:
    frame = CropFrame.of(tiny_model, 64)
    people = People(tiny_model, 8, SMALL, 0)
    batch = SyntheticFaces(tiny_model, frame, seed=0).faces_of(people.shape, people.albedo, 3)
    assert batch.mask is not None

    def pictures(**changes: float) -> torch.Tensor:
        config = SMALL.model_copy(update=changes)
        return disturb(draw_pictures(tiny_model, frame, batch, config), config, torch.Generator().manual_seed(0))[0]

    torch.testing.assert_close(pictures(render_share=0.0, masked_share=0.0), batch.image)
    half = pictures(render_share=0.5, masked_share=0.0)
    torch.testing.assert_close(half[4:], batch.image[4:])
    # Renders: the first over black, the second over its picture; the corner is no face.
    assert float(half[0, :, 0, 0].abs().max()) == 0
    torch.testing.assert_close(half[1, :, 0, 0], batch.image[1, :, 0, 0])
    assert float((half[:4] - batch.image[:4]).abs().mean()) > 0.01
    masked = pictures(render_share=0.0, masked_share=1.0)
    assert float((masked * (1 - batch.mask)[:, None]).abs().max()) == 0
    assert float((masked * batch.mask[:, None]).sum()) > 0.5 * float((batch.image * batch.mask[:, None]).sum())


def test_an_album_of_few_pictures_shows_them_again(tiny_model: FaceModel) -> None:
    config = SMALL.model_copy(update={"pictures": 8, "masked_share": 0.0, "render_share": 0.0})
    frame = CropFrame.of(tiny_model, 64)
    people = People(tiny_model, config.identities, config, 0)
    # Nobody turns, so that there is one picture a person.
    source = PlainFaces(tiny_model, frame, turn=0.0)
    album = Album(config, tiny_model, frame, people, source)
    for step in range(2):
        identity, shown, _ = album.show(step)
        expected = source.faces_of(people.shape[identity], people.albedo[identity], 0).image
        # Bytes keep a picture to half a step of 255.
        torch.testing.assert_close(shown, expected, atol=0.6 / 255, rtol=0)
    turning = Album(config, tiny_model, frame, people, PlainFaces(tiny_model, frame))
    pictures = torch.cat([turning.show(step)[1] for step in range(6)])
    assert 2 <= len(pictures.flatten(1).unique(dim=0)) <= 12


def test_coordinates_are_positions_along_the_widest_axes(tiny_model: FaceModel) -> None:
    config = SMALL.model_copy(update={"shape_axes": 3, "albedo_axes": 2})
    people = People(tiny_model, 2000, config, 0)
    coordinates = people.coordinates(tiny_model, config)
    assert coordinates.shape == (2000, 5)
    torch.testing.assert_close(coordinates.std(0)[:3], torch.ones(3), atol=0.06, rtol=0)
    # What is left of the offsets without the first axes is what a principal component analysis leaves.
    offsets = torch.tensordot(people.shape, tiny_model.shape_basis, dims=1).flatten(1)
    left = offsets - coordinates[:, :3] @ torch.linalg.lstsq(coordinates[:, :3], offsets).solution
    values = torch.linalg.svdvals(tiny_model.shape_basis.flatten(1)).square()
    assert float(left.square().sum(1).mean()) == pytest.approx(float(values[3:].sum()), rel=0.1)


def test_landmark_noise_moves_landmarks_only_as_far(tiny_model: FaceModel) -> None:
    frame = CropFrame.of(tiny_model, 64)
    people = People(tiny_model, 8, SMALL, 0)
    batch = SyntheticFaces(tiny_model, frame, seed=0).faces_of(people.shape, people.albedo, 0)
    config = SMALL.model_copy(update={"landmark_noise": 0.02})
    _, landmarks = disturb(draw_pictures(tiny_model, frame, batch, config), config, torch.Generator().manual_seed(0))
    assert float((landmarks - batch.landmarks).std()) == pytest.approx(0.02 * 64, rel=0.1)


def test_a_few_steps_make_a_file_with_its_measures(tiny_model: FaceModel, tmp_path: Path) -> None:
    reported: dict[int, dict[str, float]] = {}
    path = train_recognition(
        SMALL, "cpu", tmp_path / "f.safetensors", lambda step, scalars: reported.setdefault(step, {}).update(scalars), model=tiny_model
    )
    assert set(reported) == {1, 2}
    assert math.isfinite(reported[2]["loss"])
    notes = read_description(path)["training"]
    assert 0 <= notes["verification"]["auc"] <= 1
    assert notes["config"]["steps"] == 2
    network = load_network(path, "recognition")
    again = train_recognition(SMALL, "cpu", tmp_path / "g.safetensors", model=tiny_model)
    assert path.read_bytes() == again.read_bytes()
    assert isinstance(network, RecognitionNetwork)
    assert network.config.architecture == "small"


@pytest.mark.slow
def test_training_tells_people_apart_that_it_never_saw(tiny_model: FaceModel) -> None:
    shares = {"render_share": 0.0, "masked_share": 0.0, "albedo_spread": 2.0, "margin": 0.1}
    sizes = {"identities": 16, "steps": 36, "batch_size": 12, "held_out_identities": 10, "report_every": 36}
    config = SMALL.model_copy(update=shares | sizes)
    frame = CropFrame.of(tiny_model, 64)
    source = PlainFaces(tiny_model, frame)
    fresh = train_network(config.model_copy(update={"steps": 1, "learning_rate": 1e-9}), tiny_model, frame, source, None)
    trained = train_network(config, tiny_model, frame, source, None)
    before, after = (measure_verification(network, config, tiny_model, frame, source)["auc"] for network in (fresh, trained))
    assert after > max(0.65, before + 0.1)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError):
        RecognitionTraining(identities=1)
    with pytest.raises(ValidationError):
        RecognitionTraining(margin=1.5)
