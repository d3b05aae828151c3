"""The segmentation network S: photo beside rendering in, probability of face out (FOCUS.md, "Networks")."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from focus_backend.errors import ConfigError

LEVELS = 5
# Each level but the last halves the picture.
MULTIPLE = 2 ** (LEVELS - 1)


class SegmentationConfig(BaseModel):
    """What the segmentation network is made of; the paper's values are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Channels of the first level; every further one doubles them. 64 gives 34.5 million parameters, 16 a light network of 2.2 million.
    width: int = Field(default=64, ge=4, le=256)
    # How many times smaller than the crop the pictures are that it sees.
    shrink: PositiveInt = 1
    # Share of values dropped in the two deepest blocks.
    dropout: float = Field(default=0.5, ge=0, lt=1)


class DoubleConvolution(nn.Sequential):
    """Twice a 3 x 3 convolution, batch norm and ReLU, then dropout."""

    def __init__(self, channels: int, outputs: int, dropout: float = 0.0) -> None:
        layers = [*_convolution(channels, outputs), *_convolution(outputs, outputs)]
        super().__init__(*layers, *([nn.Dropout(dropout)] if dropout else []))


class UpConvolution(nn.Sequential):
    """A 3 x 3 convolution, batch norm and ReLU on the picture at twice the size.

    Nearest neighbours, as their gradient sums in a fixed order on every device.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(*_convolution(channels, outputs))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d 2*h 2*w"]:
        """The feature map at twice the size."""
        return super().forward(interpolate(features, scale_factor=2.0, mode="nearest"))


class SegmentationNetwork(nn.Module):
    """U-Net (Ronneberger et al., 2015) over the stacked rendering and photo.

    Args:
        config: width and dropout.
    """

    kind: Literal["segmentation"] = "segmentation"

    def __init__(self, config: SegmentationConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else SegmentationConfig()
        widths = [self.config.width * 2**level for level in range(LEVELS)]
        inputs = [6, *widths[:-1]]
        # The two deepest blocks: the last on the way down and the one above it.
        dropouts = [0.0] * (LEVELS - 2) + [self.config.dropout] * 2
        self.down = nn.ModuleList(DoubleConvolution(*sizes) for sizes in zip(inputs, widths, dropouts, strict=True))
        self.up = nn.ModuleList(UpConvolution(2 * width, width) for width in widths[:-1])
        self.merge = nn.ModuleList(DoubleConvolution(2 * width, width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], 1, 1)
        _initialise(self)

    def logits(self, rendering: Float[Tensor, "b 3 h w"], photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """Log-odds of face against outlier, in float32; what binary cross-entropy wants.

        Args:
            rendering: I_R, sRGB in [0, 1].
            photo: I_T, sRGB in [0, 1].

        Raises:
            ConfigError: height or width is no multiple of 16.
        """
        (height, width), shrink = photo.shape[-2:], self.config.shrink
        multiple = MULTIPLE * shrink
        if height % multiple or width % multiple:
            raise ConfigError(f"the segmentation network cannot take pictures of {width} x {height} px", f"use multiples of {multiple} px")
        # Zero in the middle of the range, as convolutions pad with zeros.
        features = 2.0 * torch.cat([rendering, photo], 1) - 1.0
        if shrink > 1:
            features = avg_pool2d(features, shrink)
        skipped: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else nn.functional.max_pool2d(features, 2))
            skipped.append(features)
        for level in reversed(range(LEVELS - 1)):
            features = self.merge[level](torch.cat([skipped[level], self.up[level](features)], 1))
        logits = self.last(features).float()
        return (logits if shrink == 1 else interpolate(logits, (height, width), mode="bilinear"))[:, 0]

    def forward(self, rendering: Float[Tensor, "b 3 h w"], photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """The mask M: probability of face, 1 face, 0 outlier. Arguments and errors as for `logits`."""
        return torch.sigmoid(self.logits(rendering, photo))


def _convolution(channels: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """He initialisation of the convolutions; the last one starts small, so that masks start undecided."""
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
