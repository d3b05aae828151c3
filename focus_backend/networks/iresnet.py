"""The networks behind recognition features: ArcFace's improved ResNet, and a light one for CPUs.

Parameters of `IResNet` are named as in the released `backbone.pth` files of ArcFace, so those load as they are.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

# Blocks in each of the four stages.
DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
WIDTHS = (64, 128, 256, 512)
EMBEDDING_SIZE = 512
BATCH_NORM_EPSILON = 1e-5


class ResidualBlock(nn.Module):
    """Norm, convolution, norm, PReLU, strided convolution, norm, added to the input or to its projection."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in, eps=BATCH_NORM_EPSILON)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The block's map."""
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        return self.bn3(self.conv2(inner)) + shortcut


def _stage(blocks: int, channels_in: int, channels: int) -> nn.Sequential:
    following = [ResidualBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(channels_in, channels, 2), *following)


class IResNet(nn.Module):
    """ArcFace's network on aligned 112 px pictures in [-1, 1]."""

    embedding_size = EMBEDDING_SIZE

    def __init__(self, depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0], eps=BATCH_NORM_EPSILON)
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1 = _stage(depths[0], WIDTHS[0], WIDTHS[0])
        self.layer2 = _stage(depths[1], WIDTHS[0], WIDTHS[1])
        self.layer3 = _stage(depths[2], WIDTHS[1], WIDTHS[2])
        self.layer4 = _stage(depths[3], WIDTHS[2], WIDTHS[3])
        self.bn2 = nn.BatchNorm2d(WIDTHS[3], eps=BATCH_NORM_EPSILON)
        self.fc = nn.Linear(WIDTHS[3] * 7 * 7, EMBEDDING_SIZE)
        self.features = nn.BatchNorm1d(EMBEDDING_SIZE, eps=BATCH_NORM_EPSILON)

    def first_stage(self, aligned: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b 64 56 56"]:
        """The map after the first stage."""
        return self.layer1(self.prelu(self.bn1(self.conv1(aligned))))

    def embedding(self, first: Float[Tensor, "b 64 56 56"]) -> Float[Tensor, "b 512"]:
        """The embedding of a map of `first_stage`, of any length."""
        deep = self.layer4(self.layer3(self.layer2(first)))
        return self.features(self.fc(self.bn2(deep).flatten(1)))


class DepthwiseBlock(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow; added to the input where the sizes allow."""

    def __init__(self, channels_in: int, channels: int, stride: int, inner: int) -> None:
        super().__init__()
        self.is_residual = stride == 1 and channels_in == channels
        self.body = nn.Sequential(
            *_convolution(channels_in, inner, 1),
            *_convolution(inner, inner, 3, stride=stride, groups=inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The block's map."""
        inner = self.body(features)
        return features + inner if self.is_residual else inner


def _convolution(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.PReLU(channels)


class SmallNetwork(nn.Module):
    """A depthwise network on aligned 112 px pictures in [-1, 1], milliseconds a picture on one core."""

    embedding_size = 256
    first_channels = 32

    def __init__(self) -> None:
        super().__init__()
        first = self.first_channels
        self.stem = nn.Sequential(*_convolution(3, first, 3, stride=2), DepthwiseBlock(first, first, 1, first))
        self.stages = nn.Sequential(
            DepthwiseBlock(first, 64, 2, 64),
            DepthwiseBlock(64, 64, 1, 128),
            DepthwiseBlock(64, 128, 2, 192),
            *(DepthwiseBlock(128, 128, 1, 256) for _ in range(3)),
            DepthwiseBlock(128, 128, 2, 256),
            *(DepthwiseBlock(128, 128, 1, 256) for _ in range(2)),
        )
        # A weight a place instead of a mean: what lies where is what tells aligned faces apart.
        self.head = nn.Sequential(
            *_convolution(128, 384, 1),
            nn.Conv2d(384, 384, 7, groups=384, bias=False),
            nn.BatchNorm2d(384),
            nn.Flatten(),
            nn.Linear(384, self.embedding_size, bias=False),
            nn.BatchNorm1d(self.embedding_size),
        )

    def first_stage(self, aligned: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b c 56 56"]:
        """The map after the first stage."""
        return self.stem(aligned)

    def embedding(self, first: Float[Tensor, "b c 56 56"]) -> Float[Tensor, "b n"]:
        """The embedding of a map of `first_stage`, of any length."""
        return self.head(self.stages(first))


def make_backbone(architecture: str) -> IResNet | SmallNetwork:
    """A network by name, with fresh weights: `small` or a key of `DEPTHS`."""
    return SmallNetwork() if architecture == "small" else IResNet(DEPTHS[architecture])
