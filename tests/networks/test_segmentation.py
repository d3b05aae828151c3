"""The segmentation network: its size, what it takes, what it gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from focus_backend.errors import ConfigError
from focus_backend.networks.segmentation import SegmentationConfig, SegmentationNetwork


@pytest.fixture(scope="module")
def light() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(SegmentationConfig(width=4)).eval()


def pictures(height: int, width: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return tuple(torch.rand(batch, 3, height, width, generator=random) for _ in range(2))


def test_paper_size_has_34_5_million_parameters() -> None:
    # On the meta device, as only the sizes matter.
    with torch.device("meta"):
        network = SegmentationNetwork()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert abs(count - 34.5e6) < 0.1e6
    assert [block[0].out_channels for block in network.down] == [64, 128, 256, 512, 1024]


def test_dropout_lies_in_the_two_deepest_blocks_only() -> None:
    network = SegmentationNetwork(SegmentationConfig(width=4))
    shares = [[module.p for module in block.modules() if isinstance(module, torch.nn.Dropout)] for block in network.down]
    assert shares == [[], [], [], [0.5], [0.5]]
    assert not any(isinstance(module, torch.nn.Dropout) for module in [*network.up.modules(), *network.merge.modules()])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 32), (112, 112)])
def test_any_multiple_of_16_gives_a_probability_a_pixel(light: SegmentationNetwork, height: int, width: int) -> None:
    with torch.inference_mode():
        mask = light(*pictures(height, width))
        logits = light.logits(*pictures(height, width))
    assert mask.shape == (2, height, width)
    assert mask.min() > 0
    assert mask.max() < 1
    torch.testing.assert_close(mask, logits.sigmoid())


@pytest.mark.parametrize(("height", "width"), [(100, 112), (112, 8)])
def test_other_sizes_are_refused(light: SegmentationNetwork, height: int, width: int) -> None:
    with pytest.raises(ConfigError, match=f"{width} x {height}.*16"):
        light(*pictures(height, width))


def test_shrunk_pictures_give_a_mask_of_the_crop(light: SegmentationNetwork) -> None:
    shrinking = SegmentationNetwork(SegmentationConfig(width=4, shrink=2)).eval()
    shrinking.load_state_dict(light.state_dict())
    small = pictures(32, 48)
    large = [picture.repeat_interleave(2, 2).repeat_interleave(2, 3) for picture in small]
    with torch.inference_mode():
        logits, expected = shrinking.logits(*large), light.logits(*small)
    assert logits.shape == (2, 64, 96)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(logits, 2)[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=0.05, rtol=0.1)
    with pytest.raises(ConfigError, match=r"48 x 32.*32"):
        shrinking(*pictures(32, 48))


def test_rendering_and_photo_are_told_apart(light: SegmentationNetwork) -> None:
    rendering, photo = pictures(32, 32)
    with torch.inference_mode():
        assert not torch.allclose(light.logits(rendering, photo), light.logits(photo, rendering), atol=1e-4)


def test_output_stays_where_its_input_is(light: SegmentationNetwork) -> None:
    """What changes far away in a large picture changes nothing here: no flip, no transposition on the way through the levels."""
    rendering, photo = pictures(32, 512, batch=1)
    changed = photo.clone()
    changed[:, :, :, 480:] = 1 - changed[:, :, :, 480:]
    with torch.inference_mode():
        difference = (light.logits(rendering, changed) - light.logits(rendering, photo)).abs()
    assert difference[:, :, 480:].max() > 1e-5
    assert difference[:, :, :300].max() == 0


def test_it_learns_a_small_task() -> None:
    """Where photo and rendering differ is outlier; gradients reach every parameter."""
    torch.manual_seed(0)
    network = SegmentationNetwork(SegmentationConfig(width=4, dropout=0.0))
    rendering, _ = pictures(32, 32, batch=4)
    face = torch.ones(4, 32, 32)
    for index, (row, column) in enumerate([(0, 0), (8, 16), (16, 4), (20, 20)]):
        face[index, row : row + 10, column : column + 10] = 0
    photo = torch.where(face[:, None] > 0, rendering, 1 - rendering)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(network.logits(rendering, photo), face)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_half_precision_gives_float32_logits(light: SegmentationNetwork) -> None:
    rendering, photo = pictures(32, 32)
    with torch.inference_mode():
        exact = light.logits(rendering, photo)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = light.logits(rendering, photo)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.1)


@pytest.mark.parametrize("values", [{"width": 0}, {"dropout": 1.0}, {"depth": 3}])
def test_configurations_that_make_no_network_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        SegmentationConfig(**values)
