"""An encoder that is told where a detector saw the 68 points."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.checkpoint import load_network, save_network
from focus_backend.networks.decoder import decode
from focus_backend.networks.encoder import Encoder, EncoderConfig
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.landmark_branch import ROUNDS, point_noise

SIZE = 64


@pytest.fixture(params=["mobilenet", "resnet50"])
def encoder(request: pytest.FixtureRequest, tiny_model: FaceModel) -> Encoder:
    torch.manual_seed(0)
    made = Encoder(EncoderConfig(backbone=request.param, landmarks="mediapipe"), tiny_model, SIZE)
    assert made.branch is not None
    for layer in (made.branch.head, made.branch.direct):
        torch.nn.init.normal_(layer.weight, std=0.01)
    return made.eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def usual(encoder: Encoder) -> torch.Tensor:
    assert encoder.branch is not None
    return encoder.branch.usual * SIZE


def test_the_start_is_the_start_of_theta(tiny_model: FaceModel, image: torch.Tensor) -> None:
    encoder = Encoder(EncoderConfig(backbone="mobilenet", landmarks="mediapipe"), tiny_model, SIZE).eval()
    outputs = encoder.outputs(image, usual(encoder).expand(2, -1, -1))
    assert torch.count_nonzero(outputs[:, : encoder.sizes.total]) == 0


def test_the_usual_points_are_those_of_the_start_of_theta(encoder: Encoder, tiny_model: FaceModel) -> None:
    start = encoder.theta(torch.zeros(1, encoder.sizes.total))
    drawn = decode(tiny_model, CropFrame.of(tiny_model, SIZE), start)
    torch.testing.assert_close(usual(encoder), drawn.landmarks[0])


def test_moved_points_move_the_answer_and_unknown_ones_do_not_break_it(encoder: Encoder, image: torch.Tensor) -> None:
    points = usual(encoder).expand(2, -1, -1).clone()
    plain = encoder.outputs(image, points)
    moved = points.clone()
    moved[0, 8, 1] += 4
    changed = encoder.outputs(image, moved)
    assert not torch.equal(changed[0], plain[0])
    torch.testing.assert_close(changed[1], plain[1])
    unknown = points.clone()
    unknown[1, 3] = torch.nan
    mixed = encoder.outputs(image, unknown)
    torch.testing.assert_close(mixed[0], plain[0])
    torch.testing.assert_close(mixed[1], encoder.outputs(image)[1])
    assert not torch.equal(mixed[1], plain[1])


def test_points_start_where_they_were_seen_and_move_by_what_is_around_them(
    encoder: Encoder, tiny_model: FaceModel, image: torch.Tensor
) -> None:
    points = usual(encoder).expand(2, -1, -1) + 2
    start = Encoder(encoder.config, tiny_model, SIZE).eval()
    torch.testing.assert_close(start.moved_landmarks(start.outputs(image, points)), points[:, None].expand(-1, ROUNDS, -1, -1))
    assert encoder.branch is not None
    torch.nn.init.normal_(encoder.branch.rounds[0].move_directly.weight, std=0.1)
    marked = image.clone()
    x, y = points[0, 33].round().int().tolist()
    marked[0, :, y - 1 : y + 1, x - 1 : x + 1] = 1 - marked[0, :, y - 1 : y + 1, x - 1 : x + 1].round()
    plain, changed = (encoder.moved_landmarks(encoder.outputs(picture, points)) for picture in (image, marked))
    assert (plain[0] - changed[0]).abs().max() > 1e-4
    torch.testing.assert_close(plain[1], changed[1])


def test_what_shrinking_averages_away_moves_points_and_nothing_else(tiny_model: FaceModel, image: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone="mobilenet", landmarks="mediapipe", shrink=2), tiny_model, SIZE).eval()
    assert encoder.branch is not None
    for look in encoder.branch.rounds:
        torch.nn.init.normal_(look.move_directly.weight, std=0.1)
    torch.nn.init.normal_(encoder.backbone.head.weight, std=1e3)
    checks = 0.3 * (2.0 * (torch.arange(SIZE)[:, None] + torch.arange(SIZE)).remainder(2) - 1)
    points = usual(encoder).expand(2, -1, -1)
    plain, checked = (encoder.outputs(picture, points) for picture in (image, image + checks))
    size = encoder.sizes.total
    torch.testing.assert_close(plain[:, :size], checked[:, :size], atol=1e-3, rtol=1e-3)
    (plain_coarse, plain_fine), (coarse, fine) = (encoder.moved_landmarks(outputs).split(ROUNDS // 2, 1) for outputs in (plain, checked))
    torch.testing.assert_close(plain_coarse, coarse, atol=0.01, rtol=0)
    assert (plain_fine - fine).abs().max() > 0.1


def test_light_and_skin_tone_move_no_point(encoder: Encoder, image: torch.Tensor) -> None:
    assert encoder.branch is not None
    torch.nn.init.normal_(encoder.branch.rounds[0].move_directly.weight, std=0.1)
    points = usual(encoder).expand(2, -1, -1)
    bright, dark = (encoder.moved_landmarks(encoder.outputs(picture, points)) for picture in (image, 0.5 * image))
    torch.testing.assert_close(bright, dark, atol=0.04, rtol=0)


def test_noise_reaches_what_is_learnt_of_shape_and_nothing_else(tiny_model: FaceModel, image: torch.Tensor) -> None:
    config = EncoderConfig(backbone="mobilenet", landmarks="mediapipe", landmark_noise=2)
    encoder = Encoder(config, tiny_model, SIZE).eval()
    assert encoder.branch is not None
    torch.nn.init.normal_(encoder.branch.direct.weight, std=0.01)
    points, shape = usual(encoder).expand(2, -1, -1), encoder.sizes.shape
    answered = [encoder.outputs(image, points) for _ in range(2)]
    torch.testing.assert_close(*answered)
    encoder.branch.train()
    # Without what training drops otherwise.
    for layer in encoder.branch.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.BatchNorm2d):
            layer.eval()
    torch.manual_seed(0)
    learnt = torch.stack([encoder.outputs(image, points) for _ in range(30)])
    assert learnt[:, :, :shape].std(0).min() > 0
    spread = learnt[:, :, shape:].std(0)
    assert torch.count_nonzero(spread > 1e-5) == 0


def test_noise_moves_points_by_as_much_as_it_says(tiny_model: FaceModel) -> None:
    torch.manual_seed(0)
    points = torch.rand(2000, 68, 2)
    noise = point_noise(points)
    # One alone, one and a half with its part, one and a half times its distance from the middle of it by a stretch.
    assert float(noise.square().sum(-1).mean()) == pytest.approx(2 + 2 * 1.5**2 + 1.5**2, rel=0.2)
    brow, eye, mouth = (noise[:, index, 0] for index in ((17, 21), (36, 37), (48, 30)))
    correlation = [float(torch.corrcoef(pair.T)[0, 1]) for pair in (brow, eye, mouth)]
    assert min(correlation[:2]) > 0.3
    assert abs(correlation[2]) < 0.1


def test_it_is_stored_with_its_branch(encoder: Encoder, image: torch.Tensor, tiny_model: FaceModel, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_network(path, encoder, model=tiny_model)
    points = usual(encoder).expand(2, -1, -1) + 1
    loaded = load_network(path, "encoder", model=tiny_model)
    assert isinstance(loaded, Encoder)
    torch.testing.assert_close(loaded.outputs(image, points), encoder.outputs(image, points))


def test_measured_errors_travel_with_the_encoder_and_turn_with_the_crop(encoder: Encoder, tiny_model: FaceModel, tmp_path: Path) -> None:
    assert encoder.branch is not None
    assert encoder.branch.noise is None
    random = torch.Generator().manual_seed(3)
    # Wide errors to the right and left, none up or down but for the floor; always a little too far right.
    errors = torch.randn(200, 68, 2, generator=random) * torch.tensor([3.0, 0.01]) + torch.tensor([1.0, 0.0])
    seen = torch.rand(200, 68, generator=random) < 0.8
    # What a hand hides may be anywhere.
    errors[~seen] += 50
    encoder.branch.measure(errors, seen)
    save_network(tmp_path / "encoder.safetensors", encoder, model=tiny_model)
    loaded = load_network(tmp_path / "encoder.safetensors", "encoder", model=tiny_model)
    assert isinstance(loaded, Encoder)
    assert loaded.branch is not None
    noise = loaded.branch.noise
    assert noise is not None
    assert noise.bias.mean(0).tolist() == pytest.approx([1.0, 0.0], abs=0.2)
    quarter = noise.turned(math.pi / 2)
    # What was to the right of an upright crop is below in a photo where the crop lies a quarter turn clockwise.
    assert quarter.bias.mean(0).tolist() == pytest.approx([0.0, 1.0], abs=0.2)
    spread = quarter.factor.unflatten(1, (68, 2)).square().sum(0).mean(0)
    assert spread[1] > 20 * spread[0]
