"""What a detector's 68 points tell an encoder, once they are moved to where the picture shows them.

A detector is some millimetres off, which is as much as people differ. Looking at the picture around each point brings it back by most of
that, and points that are nearly right tell shape at once, which a network that sees pixels alone takes days to learn.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, dropout, grid_sample, interpolate, relu

from focus_backend.landmarks.calibration import LandmarkNoise, noise_of

POINTS = 68
# The first rounds look at features of the shrunk crop, whose channels they are; further ones at the crop's own pixels.
_COARSE_ROUNDS, _FINE_ROUNDS, _CHANNELS = 2, 2, 24
ROUNDS = _COARSE_ROUNDS + _FINE_ROUNDS
# Samples along a side of what is looked at around a point, and half that side as a share of the crop; channels between, and what is kept.
_COARSE_SAMPLES, _COARSE_REACH, _FINE_SAMPLES, _FINE_REACH = 7, 0.055, 13, 0.024
_FINE_HIDDEN, _KEPT = 64, 24
_WIDTH, _ROUND_WIDTH, _DROPOUT = 512, 256, 0.1
# Typical distances of points from those of the mean face and from where they were seen, as shares of the crop.
_SPREAD, _STEP = 0.05, 0.01
# Strongest directions of their errors that are kept.
_ERROR_RANK = 48
# How often training hides the points of a face, so that an encoder without them is not lost.
_HIDDEN_SHARE = 0.05
# Points of the parts of a face, each of which lies elsewhere as a whole from one photo to the next: jaw, brows, nose, eyes, mouth; and how
# far a part is moved and stretched, in standard deviations of a point alone.
_PARTS, _PART_NOISE = (17, 5, 5, 9, 6, 6, 20), 1.5
# At how many of these points shape is learnt without what is seen around them.
_SEEN_DROPOUT = 0.5
# Contrast is evened out over so large a part of the crop; deviations below the least one are noise.
_CONTRAST_PART, _LEAST_DEVIATION = 8, 0.02


class PointLayer(nn.Module):
    """A linear layer and ReLU, of its own for every point.

    Args:
        inputs, outputs: values of a point.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(POINTS, inputs, outputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(POINTS, 1, outputs))

    def forward(self, values: Float[Tensor, "68 b n"]) -> Float[Tensor, "68 b m"]:
        """Values of every point of every face."""
        return relu(torch.bmm(values, self.weight) + self.bias)


class Round(nn.Module):
    """Looks around each point and moves all.

    Args:
        channels: of the picture.
        samples: along a side of what it looks at.
        reach: half that side, as a share of the crop.
        hidden: values of a point between what is looked at and what is kept; 0 for no such layer.
    """

    around: Float[Tensor, "samples 2"]

    def __init__(self, channels: int, samples: int, reach: float, hidden: int) -> None:
        super().__init__()
        sizes = [channels * samples**2, *([hidden] if hidden else []), _KEPT]
        self.layers = nn.Sequential(*(PointLayer(*pair) for pair in itertools.pairwise(sizes)))
        size = POINTS * (_KEPT + 2)
        self.move = nn.Sequential(nn.Linear(size, _ROUND_WIDTH), nn.SiLU(), nn.Linear(_ROUND_WIDTH, 2 * POINTS))
        self.move_directly = nn.Linear(size, 2 * POINTS)
        _start_at_zero(self.move[-1], self.move_directly)
        step = torch.linspace(-reach, reach, samples)
        self.register_buffer("around", torch.stack(torch.meshgrid(step, step, indexing="xy"), -1).flatten(0, 1), persistent=False)

    def forward(
        self, picture: Float[Tensor, "b c i j"], places: Float[Tensor, "b 68 2"], usual: Float[Tensor, "68 2"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b 68 2"]]:
        """What was seen around the points, and the moved points."""
        samples = grid_sample(picture, 2 * (places[:, :, None] + self.around) - 1, align_corners=False, padding_mode="border")
        seen = self.layers(samples.permute(2, 0, 3, 1).flatten(2)).transpose(0, 1).flatten(1)
        inputs = torch.cat([seen, ((places - usual) / _SPREAD).flatten(1)], 1)
        return seen, places + _STEP * (self.move(inputs) + self.move_directly(inputs)).unflatten(1, (POINTS, 2))


class LandmarkBranch(nn.Module):
    """Moves the points in rounds, then two hidden layers over them, what was seen around them and the pooled features; its outputs start
    at zero.

    Args:
        usual: the points of the mean face in the crop, shares of its side.
        pooled_size: length of the pooled features.
        outputs: how many.
        shape_outputs: how many of them, the first ones, are learnt from points that are farther off.
        noise: how much, a standard deviation in shares of the crop's side.
    """

    usual: Float[Tensor, "68 2"]
    error_bias: Float[Tensor, "68 2"]
    error_factor: Float[Tensor, "rank 136"]
    error_variance: Float[Tensor, "136"]

    def __init__(self, usual: Float[Tensor, "68 2"], pooled_size: int, outputs: int, shape_outputs: int, noise: float) -> None:
        super().__init__()
        self._shape_outputs, self._shape_noise = shape_outputs, noise
        self.register_buffer("usual", usual.detach().clone().float(), persistent=False)
        # How wrong the moved points are, mm; zeros until it was measured.
        self.register_buffer("error_bias", torch.zeros(POINTS, 2))
        self.register_buffer("error_factor", torch.zeros(_ERROR_RANK, 2 * POINTS))
        self.register_buffer("error_variance", torch.zeros(2 * POINTS))
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(16, _CHANNELS, 3, 1, 1, bias=False),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU(),
        )
        self.rounds = nn.ModuleList(
            [Round(_CHANNELS, _COARSE_SAMPLES, _COARSE_REACH, 0) for _ in range(_COARSE_ROUNDS)]
            + [Round(1, _FINE_SAMPLES, _FINE_REACH, _FINE_HIDDEN) for _ in range(_FINE_ROUNDS)]
        )
        # Offsets before and after every round, and whether there are any points.
        offsets = 4 * POINTS * (1 + ROUNDS)
        self.norm = nn.LayerNorm(pooled_size)
        self.layers = nn.Sequential(
            nn.Linear(offsets + ROUNDS * POINTS * _KEPT + pooled_size + 1, _WIDTH),
            nn.SiLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Dropout(_DROPOUT),
        )
        self.head = nn.Linear(_WIDTH, outputs)
        # What is linear in the places needs no hidden layer.
        self.direct = nn.Linear(offsets, outputs)
        _start_at_zero(self.head, self.direct)

    def forward(
        self,
        landmarks: Float[Tensor, "b 68 2"] | None,
        image: Float[Tensor, "b 3 h w"],
        small: Float[Tensor, "b 3 i j"],
        pooled: Float[Tensor, "b n"],
    ) -> tuple[Float[Tensor, "b outputs"], Float[Tensor, "b rounds 68 2"]]:
        """What is to be added to the outputs, and the points after each round, shares of the crop's side.

        Args:
            landmarks: shares of the crop's side; not finite for faces whose points are not known; None if none is.
            image: the crop, sRGB in [0, 1].
            small: the same as the backbone sees it.
            pooled: features of the crop.
        """
        first, is_known = self._places(landmarks, len(pooled))
        coarse = self.features(_even_contrast(small.mean(1, keepdim=True)))
        fine = _even_contrast(image.mean(1, keepdim=True))
        places, seen = [first], []
        for index, look in enumerate(self.rounds):
            around, moved = look(coarse if index < _COARSE_ROUNDS else fine, places[-1].detach(), self.usual)
            seen.append(around)
            places.append(moved)
        others = [self.norm(pooled), is_known.float()]
        told = self._tell(places, [*seen, *others])
        if self.training and self._shape_noise:
            # Points of photos are farther off than those of drawn faces, and what is seen around them is unlike what was drawn.
            noise = self._shape_noise * point_noise(first)
            of_shape = self._tell([points + noise for points in places], [*map(_without_some, seen), *others])
            told = torch.cat([of_shape[:, : self._shape_outputs], told[:, self._shape_outputs :]], 1)
        return told, torch.stack(places[1:], 1)

    @property
    def noise(self) -> LandmarkNoise | None:
        """How wrong the moved points are where nothing hides them, in the crop's axes; None where that was not measured."""
        if not bool((self.error_variance > 0).all()):
            return None
        return LandmarkNoise(self.error_bias.cpu(), self.error_factor.cpu(), self.error_variance.cpu())

    def measure(self, errors: Float[Tensor, "faces 68 2"], seen: Bool[Tensor, "faces 68"]) -> None:
        """Keeps how wrong the moved points are where nothing hides them, from errors (mm) on faces that were not learnt from."""
        noise = noise_of(errors.cpu(), _ERROR_RANK, seen.cpu())
        self.error_bias.copy_(noise.bias)
        self.error_factor.zero_()[: len(noise.factor)].copy_(noise.factor)
        self.error_variance.copy_(noise.variance)

    def _tell(self, places: list[Float[Tensor, "b 68 2"]], features: list[Float[Tensor, "b _n"]]) -> Float[Tensor, "b outputs"]:
        offsets = torch.cat([_offsets(points, self.usual) for points in places], 1)
        return self.head(self.layers(torch.cat([offsets, *features], 1))) + self.direct(offsets)

    def _places(self, landmarks: Float[Tensor, "b 68 2"] | None, count: int) -> tuple[Float[Tensor, "b 68 2"], Bool[Tensor, "b 1"]]:
        """The points, those of the mean face where they are not known, and whether they are."""
        if landmarks is None:
            return self.usual.expand(count, -1, -1), torch.zeros(count, 1, dtype=torch.bool, device=self.usual.device)
        is_known = landmarks.isfinite().flatten(1).all(1, keepdim=True)
        if self.training:
            is_known = is_known & (torch.rand(count, 1, device=landmarks.device) >= _HIDDEN_SHARE)
        return torch.where(is_known[..., None], landmarks, self.usual), is_known


def _start_at_zero(*layers: nn.Module) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def point_noise(points: Float[Tensor, "b 68 2"]) -> Float[Tensor, "b 68 2"]:
    """How far points lie from where they are taken to be: each alone with variance 1 an axis, and whole parts moved and stretched."""
    noise = torch.randn_like(points)
    for part in torch.arange(POINTS).split(list(_PARTS)):
        centred = points[:, part] - points[:, part].mean(1, keepdim=True)
        arms = centred / centred.norm(dim=-1, keepdim=True).mean(1, keepdim=True).clamp(min=1e-6)
        shift, stretch = torch.randn_like(points[:, :1]), torch.randn_like(points[:, :1, :1])
        noise[:, part] += _PART_NOISE * (shift + stretch * arms)
    return noise


def _without_some(seen: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """What was seen around some of the points."""
    of_points = seen.unflatten(1, (POINTS, -1))
    return (of_points * dropout(torch.ones_like(of_points[..., :1]), _SEEN_DROPOUT)).flatten(1)


def _even_contrast(grey: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The picture without the brightness and contrast of its parts: light and skin tone differ more than outlines do."""
    size = grey.shape[-2:]
    window = max(2, min(size) // _CONTRAST_PART)

    def smooth(values: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return interpolate(avg_pool2d(values, window, max(1, window // 2), window // 4), size, mode="bilinear")

    difference = grey - smooth(grey)
    return difference / (smooth(difference.square()) + _LEAST_DEVIATION**2).sqrt()


def _offsets(places: Float[Tensor, "b 68 2"], usual: Float[Tensor, "68 2"]) -> Float[Tensor, "b n"]:
    """How points differ from those of the mean face, as they are and without place and size."""
    alone = _alone(places) - _alone(usual)
    return torch.cat([(places - usual).flatten(1), alone.flatten(1)], 1) / _SPREAD


def _alone(points: Float[Tensor, "*b 68 2"]) -> Float[Tensor, "*b 68 2"]:
    """Points without their place and size; about as large as the mean face is in its crop."""
    centred = points - points.mean(-2, keepdim=True)
    return centred / centred.square().sum((-2, -1), keepdim=True).sqrt().clamp(min=1e-3) * POINTS**0.5 / 4
