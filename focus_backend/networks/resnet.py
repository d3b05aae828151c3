"""ResNet-50 (He et al., 2016; stride in the 3 x 3 convolution), its parameters named as torchvision names them.

A state dict of torchvision's `resnet50` therefore loads, all but `fc`, whose size is the caller's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions around a shortcut.

    Args:
        channels: of the input.
        width: of the middle convolution; the output has four times as many.
        stride: of the middle convolution.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The block's feature map."""
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.relu(self.bn1(self.conv1(features)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return self.relu(self.bn3(self.conv3(inner)) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 with `outputs` linear outputs.

    Attributes:
        feature_size: length of the pooled feature vector.
        head_prefix: names under which the part lies that ImageNet weights do not fill.
    """

    feature_size = 512 * EXPANSION
    head_prefix = "fc."

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.fc = nn.Linear(self.feature_size, outputs)
        _initialise(self)

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.fc

    def pooled(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        """Pooled features of normalised images, before the last layer."""
        inner = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        inner = self.layer4(self.layer3(self.layer2(self.layer1(inner))))
        return inner.mean((2, 3))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b outputs"]:
        """The linear outputs."""
        return self.fc(self.pooled(image))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(width * EXPANSION, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels, width, stride), *rest)


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """He initialisation; the last normalisation of each block starts at zero, so that blocks start as identities."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
