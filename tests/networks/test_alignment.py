"""Alignment to the recognition template against a plain least-squares reference, and its gradients."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from focus_backend.networks.alignment import TEMPLATE, align_face, similarity_from_template, template_points


def _landmarks(five: torch.Tensor) -> torch.Tensor:
    """68 points that have these five (b 5 2), the eyes' corners to both sides of their centres."""
    points = torch.zeros(len(five), 68, 2, dtype=five.dtype)
    offset = torch.tensor([6.0, 1.0], dtype=five.dtype)
    points[:, 36], points[:, 39] = five[:, 0] - offset, five[:, 0] + offset
    points[:, 42], points[:, 45] = five[:, 1] - offset, five[:, 1] + offset
    points[:, 30], points[:, 48], points[:, 54] = five[:, 2], five[:, 3], five[:, 4]
    return points


def _posed(scale: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    """The template's points scaled, turned and shifted, px."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return (template_points().double() @ turn.T * scale + torch.tensor(shift, dtype=torch.float64))[None]


def test_the_map_of_an_exact_similarity_is_that_similarity() -> None:
    matrix = similarity_from_template(_posed(1.7, 0.4, (30, 20)), template_points().double())[0]
    expected = torch.tensor([[1.7 * math.cos(0.4), -1.7 * math.sin(0.4), 30], [1.7 * math.sin(0.4), 1.7 * math.cos(0.4), 20]])
    torch.testing.assert_close(matrix, expected.double(), atol=1e-8, rtol=1e-6)


def test_noisy_points_give_the_least_squares_transform() -> None:
    random = np.random.default_rng(0)
    image = np.asarray(TEMPLATE) * 1.5 + 40 + random.normal(0, 4, (5, 2))
    # w = a x - b y + c, b x + a y + d, solved as a linear system.
    rows = np.concatenate(
        [
            np.stack([image[:, 0], -image[:, 1], np.ones(5), np.zeros(5)], 1),
            np.stack([image[:, 1], image[:, 0], np.zeros(5), np.ones(5)], 1),
        ]
    )
    target = (np.asarray(TEMPLATE) + 0.5).T.ravel()
    a, b, c, d = np.linalg.lstsq(rows, target, rcond=None)[0]
    inverse = np.linalg.inv([[a, -b, c], [b, a, d], [0, 0, 1]])[:2]
    matrix = similarity_from_template(torch.from_numpy(image)[None], template_points().double())[0]
    np.testing.assert_allclose(matrix.numpy(), inverse, atol=1e-4)


def test_the_warp_is_that_of_opencv_with_pixel_centres_at_a_half() -> None:
    random = np.random.default_rng(1)
    image = cv2.GaussianBlur(random.random((160, 200, 3)).astype(np.float32), (0, 0), 3)
    five = _posed(1.2, -0.2, (45, 15))
    matrix = similarity_from_template(five, template_points().double())[0].numpy()
    # OpenCV has its centres at whole numbers.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    expected = cv2.warpAffine(image, shifted, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    aligned = align_face(torch.from_numpy(image).permute(2, 0, 1)[None], _landmarks(five.float()))
    # OpenCV rounds places to 1/32 px, which counts where the image ends in black.
    np.testing.assert_allclose(aligned[0].permute(1, 2, 0).numpy(), expected, atol=0.016)


def test_eyes_nose_and_mouth_come_to_their_places() -> None:
    size = 150
    five = _posed(0.9, 0.3, (40, 10))
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    spots = [torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y in five[0]]
    aligned = align_face(torch.stack(spots)[None].float(), _landmarks(five.float()))[0]
    brightest = aligned.flatten(1).argmax(1)
    found = torch.stack([brightest % 112, brightest // 112], 1) + 0.5
    assert float((found - template_points()).norm(dim=1).max()) < 1.0


def test_gradients_to_image_and_landmarks_are_those_of_finite_differences() -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 12, 12, generator=random, dtype=torch.float64, requires_grad=True)
    five = (_posed(0.08, 0.1, (1.3, 0.7)) + 0.1 * torch.rand(1, 5, 2, generator=random, dtype=torch.float64)).requires_grad_()
    weight = torch.rand(1, 1, 112, 112, generator=random, dtype=torch.float64)

    def value(pixels: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return (align_face(pixels, _landmarks(points) * torch.ones(())) * weight).sum()

    # Steps so small that hardly any place crosses a pixel's border, where bilinear values have a corner.
    assert torch.autograd.gradcheck(value, (image, five), eps=1e-7, atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("name", ["all zero", "one point", "a line", "far outside"])
def test_degenerate_landmarks_stay_finite(name: str) -> None:
    points = {
        "all zero": torch.zeros(1, 68, 2),
        "one point": torch.full((1, 68, 2), 50.0),
        "a line": torch.linspace(0, 60, 68)[None, :, None].expand(1, 68, 2).clone(),
        "far outside": 1e6 * torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0)),
    }[name].requires_grad_()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    aligned = align_face(image, points)
    aligned.square().sum().backward()
    assert image.grad is not None
    assert points.grad is not None
    assert all(bool(torch.isfinite(value).all()) for value in (aligned, image.grad, points.grad))
    assert aligned.shape == (1, 3, 112, 112)


def test_each_face_of_a_batch_is_aligned_by_its_own_landmarks() -> None:
    image = torch.rand(2, 3, 120, 120, generator=torch.Generator().manual_seed(0))
    five = torch.cat([_posed(1.0, 0.0, (0, 0)), _posed(0.7, 0.5, (50, 10))]).float()
    together = align_face(image, _landmarks(five))
    alone = torch.cat([align_face(image[i : i + 1], _landmarks(five[i : i + 1])) for i in range(2)])
    torch.testing.assert_close(together, alone)
    # The first is at the template's place already.
    torch.testing.assert_close(together[0], image[0, :, :112, :112], atol=1e-4, rtol=0)
