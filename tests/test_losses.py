"""The equations one by one: small cases computed by hand, gradients, and what must not change a loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from focus_backend import losses
from focus_backend.losses import EncoderWeights, SegmentationWeights

NOSE_AND_LIP = [27, 28, 29, 30, 60, 61, 62, 63, 64, 65, 66, 67]


def grey(*values: float) -> torch.Tensor:
    """One image of one row, the same value in all channels."""
    return torch.tensor(values)[None, None, :, None].expand(1, 1, len(values), 3).clone()


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, None]


# Three pixels, the last one outside the region and of the very colour that the others look for.
PHOTO, RENDERING = grey(0.6, 0.3, 0.9), grey(0.2, 0.5, 0.6)
MASK, REGION = row(1.0, 0.5, 1.0), row(1, 1, 0) > 0


def random_case(seed: int = 0, size: int = 6, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Photo, rendering, mask and a region with holes."""
    random = torch.Generator().manual_seed(seed)
    photo, rendering = torch.rand(2, batch, size, size, 3, generator=random, dtype=dtype)
    mask = torch.rand(batch, size, size, generator=random, dtype=dtype) * 0.8 + 0.1
    return photo, rendering, mask, torch.rand(batch, size, size, generator=random) < 0.7


PICTURE_LOSSES = {
    "neighbour": losses.neighbour_loss,
    "neighbour_released": lambda *case: losses.neighbour_loss(*case, 5, squared=False),
    "difference": losses.difference_loss,
    "pixel": losses.pixel_loss,
    "pixel_released": lambda *case: losses.pixel_loss(*case, "mask"),
    "area": lambda photo, rendering, mask, region: losses.area_loss(mask, region),
    "binary": lambda photo, rendering, mask, region: losses.binary_loss(mask, region),
    "binary_released": lambda photo, rendering, mask, region: losses.binary_loss(mask, region, "released"),
    "outlier_area": lambda photo, rendering, mask, region: losses.outlier_area(mask, region),
    "cross_entropy": lambda photo, rendering, mask, region: losses.mask_cross_entropy(
        torch.logit(mask, 1e-6), photo[..., 0].round(), region
    ),
}


class TestSegmentationLosses:
    def test_neighbour_looks_for_the_nearest_rendered_colour_of_the_region(self):
        # Both pixels are 0.1 from their best neighbour in each of three channels: (1 * 0.03 + 0.5^2 * 0.03) / 2.
        assert losses.neighbour_loss(PHOTO, RENDERING, MASK, REGION).item() == pytest.approx(0.01875)
        # (1 * sqrt(0.03) + 0.5 * sqrt(0.03)) / 2.
        assert losses.neighbour_loss(PHOTO, RENDERING, MASK, REGION, squared=False).item() == pytest.approx(0.1299038)

    def test_neighbours_lie_above_below_and_across(self):
        rendering = torch.zeros(1, 3, 3, 3)
        rendering[0, 2, 0] = 1.0
        photo, region = torch.ones(1, 3, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool)
        distance = losses.neighbour_distance(photo, rendering, region)
        assert distance[0].tolist() == [[3, 3, 3], [0, 0, 3], [0, 0, 3]]

    @pytest.mark.parametrize("window", [1, 3, 5])
    def test_neighbour_equals_a_search_pixel_by_pixel(self, window):
        photo, rendering, _, region = random_case(3)
        distance = losses.neighbour_distance(photo, rendering, region, window).numpy()
        margin = window // 2
        for image, y, x in np.argwhere(region.numpy()):
            rows, columns = slice(max(y - margin, 0), y + margin + 1), slice(max(x - margin, 0), x + margin + 1)
            candidates = rendering[image, rows, columns][region[image, rows, columns]]
            expected = min(float(((candidate - photo[image, y, x]) ** 2).sum()) for candidate in candidates)
            assert distance[image, y, x] == pytest.approx(expected, abs=1e-12)

    def test_difference_stays_at_its_own_pixel(self):
        # (1 * 3 * 0.4^2 + 0.5^2 * 3 * 0.2^2) / 2.
        assert losses.difference_loss(PHOTO, RENDERING, MASK, REGION).item() == pytest.approx(0.255)
        assert losses.neighbour_loss(PHOTO, RENDERING, MASK, REGION, window=1).item() == pytest.approx(0.255)

    def test_distance_and_preserve_average_the_cosine_over_places(self):
        # Two channels, two places: parallel (cosine 1), and at 60 degrees (cosine 0.5).
        first = torch.tensor([[[[2.0, 1.0]], [[0.0, 0.0]]]])
        second = torch.tensor([[[[5.0, 0.5]], [[0.0, 0.75**0.5]]]])
        assert losses.distance_loss(first, second).item() == pytest.approx(0.25, abs=1e-5)
        assert losses.preserve_loss(first, second).item() == pytest.approx(0.25, abs=1e-5)

    def test_cosine_of_vectors(self):
        first, second = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [-1.0, 0.0]])
        assert losses.cosine_distance_per_image(first, second).tolist() == pytest.approx([0.04, 2.0], abs=1e-5)

    def test_vanished_features_have_finite_gradients(self):
        zero, other = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, 2, 2)
        loss = losses.distance_loss(zero, other)
        assert loss.item() == pytest.approx(1, abs=1e-3)
        (gradient,) = torch.autograd.grad(loss, zero)
        assert gradient.isfinite().all()
        # Towards the other features.
        assert (gradient < 0).all()
        assert losses.distance_loss(zero, zero).item() == pytest.approx(0, abs=1e-6)

    def test_area_counts_mask_over_region(self):
        assert losses.area_loss(MASK, REGION).item() == pytest.approx(-0.75)

    def test_binary_is_lowest_for_decided_masks(self):
        # (0.5^2 + 0.3^2) / 2 and 0.5 - (0.5 + 0.3) / 2; the pixel outside does not count.
        mask = row(1.0, 0.2, 0.5)
        assert losses.binary_loss(mask, REGION).item() == pytest.approx(-0.17)
        assert losses.binary_loss(mask, REGION, "released").item() == pytest.approx(0.1)


class TestEncoderLosses:
    def test_pixel_divides_by_the_region(self):
        assert losses.pixel_loss(PHOTO, RENDERING, MASK, REGION).item() == pytest.approx(0.255)

    def test_pixel_released_is_the_mean_distance_over_the_mask(self):
        # (1 * 0.4 + 0.5 * 0.2) * sqrt(3) / 1.5.
        assert losses.pixel_loss(PHOTO, RENDERING, MASK, REGION, "mask").item() == pytest.approx(0.5773503)

    def test_perceptual_of_unit_vectors(self):
        first, second = torch.tensor([[0.6, 0.8], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert losses.perceptual_loss(first, second).item() == pytest.approx(0.2, abs=1e-5)

    def test_nose_ridge_and_inner_lip_weigh_twenty(self):
        weights = losses.landmark_weights()
        assert weights.shape == (68,)
        assert [index for index, weight in enumerate(weights.tolist()) if weight == 20] == NOSE_AND_LIP
        assert weights.sum().item() == 56 + 12 * 20

    def test_landmark_is_a_weighted_mean_over_the_points(self):
        target, projected = torch.zeros(1, 68, 2), torch.zeros(1, 68, 2)
        projected[0, 0] = torch.tensor([3.0, 4.0])
        projected[0, 27] = torch.tensor([0.0, 2.0])
        # (1 * 25 + 20 * 4) / 68, and four times that where a pixel is twice as large.
        arguments = (target, projected, losses.landmark_weights(), torch.ones(1))
        assert losses.landmark_loss(*arguments, 224).item() == pytest.approx(105 / 68)
        assert losses.landmark_loss(*arguments, 112).item() == pytest.approx(420 / 68)

    def test_unknown_landmarks_pull_at_nothing(self):
        target = torch.full((2, 68, 2), torch.nan)
        target[0] = 1.0
        projected = torch.zeros(2, 68, 2, requires_grad=True)
        loss = losses.landmark_loss(target, projected, torch.ones(68), torch.tensor([1.0, 0.0]), 224)
        assert loss.item() == pytest.approx(1.0)
        (gradient,) = torch.autograd.grad(loss, projected)
        assert gradient[1].eq(0).all()
        assert gradient[0].ne(0).all()

    def test_regulariser_sums_squares_over_224(self):
        shape, expression, albedo = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0, 0.0, 1.0]])
        assert losses.regulariser(shape, expression, albedo).item() == pytest.approx(19 / 224)

    def test_outlier_area_is_the_share_that_the_mask_leaves_out(self):
        assert losses.outlier_area(MASK, REGION).item() == pytest.approx(0.25)


class TestPreliminaryMask:
    def test_threshold_is_on_the_squared_distance_of_colours(self):
        # 3 * 0.23^2 = 0.1587 and 3 * 0.24^2 = 0.1728; the third is alike but outside the region.
        photo, rendering = grey(0.73, 0.74, 0.5), grey(0.5, 0.5, 0.5)
        assert losses.preliminary_mask(photo, rendering, REGION).tolist() == [[[1, 0, 0]]]

    def test_likelihood_ends_at_three_deviations(self):
        # The distance of the colours, over all channels together, ends at 3 * 0.043 = 0.129.
        photo = torch.tensor([[[[0.628, 0.5, 0.5], [0.63, 0.5, 0.5], [0.5, 0.5, 0.5]]]])
        assert losses.preliminary_mask_likelihood(photo, grey(0.5, 0.5, 0.5), REGION).tolist() == [[[1, 0, 0]]]

    def test_it_has_no_gradient(self):
        photo, rendering, _, region = random_case()
        assert not losses.preliminary_mask(photo, rendering.requires_grad_(), region).requires_grad

    def test_cross_entropy_is_averaged_inside_the_region(self):
        # -ln 0.5 and -ln(1 - 0.8); the third pixel is wrong, and outside.
        logits = torch.tensor([[[0.0, np.log(4.0), 50.0]]])
        loss = losses.mask_cross_entropy(logits, row(1, 0, 0), REGION)
        assert loss.item() == pytest.approx((0.6931472 + 1.6094379) / 2)


class TestAllPictureLosses:
    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    def test_same_value_for_a_repeated_batch(self, name):
        photo, rendering, mask, region = random_case()
        repeated = [torch.cat([values] * 3) for values in (photo, rendering, mask, region)]
        once = PICTURE_LOSSES[name](photo, rendering, mask, region)
        torch.testing.assert_close(PICTURE_LOSSES[name](*repeated), once)
        assert once.abs() > 1e-3

    @pytest.mark.parametrize("name", [name for name in PICTURE_LOSSES if "neighbour" not in name])
    def test_same_value_for_an_enlarged_image(self, name):
        case = random_case()
        enlarged = [values.repeat_interleave(2, 1).repeat_interleave(2, 2) for values in case]
        torch.testing.assert_close(PICTURE_LOSSES[name](*enlarged), PICTURE_LOSSES[name](*case))

    @pytest.mark.parametrize("times", [2, 3])
    def test_neighbour_is_the_same_with_an_enlarged_window(self, times):
        case = random_case()
        enlarged = [values.repeat_interleave(times, 1).repeat_interleave(times, 2) for values in case]
        torch.testing.assert_close(losses.neighbour_loss(*enlarged, window=2 * times + 1), losses.neighbour_loss(*case))

    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    def test_every_image_counts_the_same_whatever_its_region(self, name):
        """An image with a small region is not drowned by one with a large region."""
        photo, rendering, mask, region = random_case()
        region[1, 1:] = False
        single = [PICTURE_LOSSES[name](photo[i : i + 1], rendering[i : i + 1], mask[i : i + 1], region[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(PICTURE_LOSSES[name](photo, rendering, mask, region), (single[0] + single[1]) / 2)

    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    def test_pixels_outside_the_region_do_not_count(self, name):
        photo, rendering, mask, region = random_case()
        changed = [torch.where(region[..., None] if values.ndim == 4 else region, values, 0.123) for values in (photo, rendering, mask)]
        torch.testing.assert_close(PICTURE_LOSSES[name](*changed, region), PICTURE_LOSSES[name](photo, rendering, mask, region))

    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    def test_gradients_are_those_of_differences(self, name):
        photo, rendering, mask, region = random_case(size=4)
        inputs = (photo.requires_grad_(name != "cross_entropy"), rendering.requires_grad_(), mask.requires_grad_())
        assert torch.autograd.gradcheck(lambda *case: PICTURE_LOSSES[name](*case, region), inputs)

    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    @pytest.mark.parametrize("empty", ["region", "mask", "difference"])
    def test_nothing_to_count_is_finite(self, name, empty):
        photo, rendering, mask, region = random_case()
        if empty == "region":
            region = torch.zeros_like(region)
        if empty == "mask":
            mask = torch.zeros_like(mask)
        if empty == "difference":
            rendering = photo.clone()
        rendering, mask = rendering.requires_grad_(), mask.requires_grad_()
        loss = PICTURE_LOSSES[name](photo, rendering, mask, region)
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, (rendering, mask), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
        if empty == "region":
            assert loss.item() == (0.5 if name == "binary_released" else 0)

    @pytest.mark.parametrize("name", PICTURE_LOSSES)
    def test_a_region_of_ones_and_zeros_is_one_of_claims(self, name):
        photo, rendering, mask, region = random_case()
        expected = PICTURE_LOSSES[name](photo, rendering, mask, region)
        torch.testing.assert_close(PICTURE_LOSSES[name](photo, rendering, mask, region.to(photo.dtype)), expected)


def test_vector_losses_have_the_gradients_of_differences():
    random = torch.Generator().manual_seed(1)
    features = [torch.randn(2, 3, 2, 2, generator=random, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    points = [torch.randn(2, 68, 2, generator=random, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    coefficients = [torch.randn(2, n, generator=random, dtype=torch.float64, requires_grad=True) for n in (3, 2, 4)]
    weights, known = losses.landmark_weights().double(), torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(losses.distance_loss, features)
    assert torch.autograd.gradcheck(losses.perceptual_loss, [part.flatten(1) for part in features])
    assert torch.autograd.gradcheck(lambda *pair: losses.landmark_loss(*pair, weights, known, 100), points)
    assert torch.autograd.gradcheck(losses.regulariser, coefficients)


def test_sums_over_half_precision_do_not_overflow():
    mask, region = torch.ones(1, 300, 300, dtype=torch.float16), torch.ones(1, 300, 300, dtype=torch.bool)
    assert losses.area_loss(mask, region).item() == -1
    features = torch.full((1, 512), 100.0, dtype=torch.float16)
    assert losses.perceptual_loss(features, features).item() == pytest.approx(0, abs=1e-6)


def test_the_losses_never_look_at_a_value(monkeypatch):
    """Reading a value makes the host wait for the device."""

    def refuse(*_):
        raise AssertionError("a value was read")

    case = random_case(dtype=torch.float32)
    points, known = torch.rand(2, 2, 68, 2), torch.ones(2)
    for reader in ("item", "__bool__", "__float__", "__int__", "tolist", "numpy", "cpu", "nonzero"):
        monkeypatch.setattr(torch.Tensor, reader, refuse)
    for loss in PICTURE_LOSSES.values():
        loss(*case)
    losses.preliminary_mask_likelihood(*case[:2], case[3])
    losses.landmark_loss(points[0], points[1], losses.landmark_weights(), known, 224)
    losses.perceptual_loss(points[0].flatten(1), points[1].flatten(1))
    losses.regulariser(case[0].flatten(1), case[1].flatten(1), case[2].flatten(1))


def test_default_weights_are_the_papers():
    assert SegmentationWeights().model_dump() == {
        "neighbour": 15,
        "distance": 3,
        "area": 0.5,
        "preserve": 2.5,
        "binary": 10,
        "difference": 0,
    }
    assert EncoderWeights().model_dump() == {"pixel": 0.5, "perceptual": 0.25, "landmark": 5e-4, "regulariser": 0.1, "outlier_area": 0}


@pytest.mark.parametrize("values", [{"area": -1}, {"neighbor": 15}])
def test_wrong_weights_are_refused(values):
    with pytest.raises(ValidationError):
        SegmentationWeights(**values)
