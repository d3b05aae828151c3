"""MobileNetV3-Small (Howard et al., 2019), its parameters named as torchvision names them.

A state dict of torchvision's `mobilenet_v3_small` therefore loads, all but `classifier`: the wide hidden layer there serves the
thousand classes of ImageNet and is left out here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Kernel, expanded channels, output channels, squeeze and excitation, hard swish instead of ReLU, stride (table 2 of the paper).
BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class SqueezeExcitation(nn.Module):
    """Weighs channels by what their means say.

    Args:
        channels: of input and output.
        squeezed: of the layer between.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid(inplace=True)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The weighted feature map."""
        return features * self.gate(self.fc2(self.relu(self.fc1(features.mean((2, 3), keepdim=True)))))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, optional squeeze and excitation, projection; with a shortcut where sizes allow.

    Args:
        channels: of the input.
        kernel, expanded, outputs, squeezes, swish, stride: one row of `BLOCKS`.
    """

    def __init__(self, channels: int, kernel: int, expanded: int, outputs: int, squeezes: bool, swish: bool, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(_convolution(channels, expanded, 1, swish=swish))
        layers.append(_convolution(expanded, expanded, kernel, stride, groups=expanded, swish=swish))
        if squeezes:
            layers.append(SqueezeExcitation(expanded, _divisible_by_8(expanded // 4)))
        layers.append(_convolution(expanded, outputs, 1, swish=None))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and channels == outputs

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The block's feature map."""
        inner = self.block(features)
        return features + inner if self.has_shortcut else inner


class MobileNet(nn.Module):
    """MobileNetV3-Small with `outputs` linear outputs.

    Attributes:
        feature_size: length of the pooled feature vector.
        head_prefix: names under which the part lies that ImageNet weights do not fill.
    """

    feature_size = 576
    head_prefix = "classifier."

    def __init__(self, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 16, 3, 2, swish=True)]
        channels = 16
        for kernel, expanded, made, squeezes, swish, stride in BLOCKS:
            layers.append(InvertedResidual(channels, kernel, expanded, made, squeezes, swish, stride))
            channels = made
        layers.append(_convolution(channels, self.feature_size, 1, swish=True))
        # The name torchvision gives the convolutions.
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(self.feature_size, outputs)
        _initialise(self)

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.classifier

    def pooled(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        """Pooled features of normalised images, before the last layer."""
        return self.features(image).mean((2, 3))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b outputs"]:
        """The linear outputs."""
        return self.classifier(self.pooled(image))


def _convolution(channels: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, swish: bool | None) -> nn.Sequential:
    """Convolution, batch norm and activation: hard swish, ReLU, or none where `swish` is None."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    ]
    if swish is not None:
        layers.append(nn.Hardswish(inplace=True) if swish else nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _divisible_by_8(channels: int) -> int:
    """The nearest multiple of 8, not below 8 and not below nine tenths of `channels`."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """He initialisation of the convolutions, whose biases start at zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
