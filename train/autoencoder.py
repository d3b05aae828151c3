"""R as training sees it: a batch of crops through encoder and decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from focus_backend.morphable.face_model import FaceModel
from focus_backend.networks.decoder import Decoded, decode
from focus_backend.networks.encoder import Encoder
from focus_backend.networks.frame import CropFrame
from focus_backend.networks.recognition import RecognitionNetwork
from focus_backend.networks.segmentation import SegmentationNetwork
from focus_backend.networks.theta import Theta
from train.data.batch import FaceBatch


@dataclass(frozen=True)
class Reconstructed:
    """A batch and its reconstruction, channels last.

    Attributes:
        batch: what was given.
        theta: the encoder's answer.
        decoded: its mesh and picture.
        photo: I_T.
        rendering: I_R, black outside the region.
        region: rendered pixels that lie in the photo, S_R.
    """

    batch: FaceBatch
    theta: Theta
    decoded: Decoded
    photo: Float[Tensor, "b h w 3"]
    rendering: Float[Tensor, "b h w 3"]
    region: Float[Tensor, "b h w"]


class EncoderOutputs(nn.Module):
    """The encoder as one call from tensors to a plain tensor, which wrappers of devices and compilers want."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"] | None = None) -> Float[Tensor, "b n"]:
        """The bare outputs."""
        return self.encoder.outputs(image, landmarks)


class SegmentationLogits(nn.Module):
    """The segmentation network as one call to log odds, which are safe for cross-entropy."""

    def __init__(self, segmentation: SegmentationNetwork) -> None:
        super().__init__()
        self.segmentation = segmentation

    def forward(self, rendering: Float[Tensor, "b 3 h w"], photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """Log odds of face."""
        return self.segmentation.logits(rendering, photo)


class Directly(nn.Module):
    """A network called without the wrappers of devices and compilers, but in their precision."""

    def __init__(self, network: nn.Module, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.network = network
        self._autocast = autocast

    def forward(self, *inputs: Float[Tensor, "b ..."] | None) -> Float[Tensor, "b ..."]:
        """What the network says, in single precision."""
        with self._autocast():
            return self.network(*inputs).float()


@dataclass(frozen=True)
class Parts:
    """The networks of a run and what they work with; everything on one device.

    Attributes:
        model: the face model.
        frame: of the crops.
        encoder: R's.
        segmentation: S.
        encode: calls the encoder through wrappers of devices and compilers.
        segment: calls S the same way.
        recognition: F, frozen; None where no loss wants it.
        autocast: context of mixed precision for networks that are not trained.
    """

    model: FaceModel
    frame: CropFrame
    encoder: Encoder
    segmentation: SegmentationNetwork
    encode: nn.Module
    segment: nn.Module
    recognition: RecognitionNetwork | None
    autocast: Callable[[], AbstractContextManager[None]]

    def unwrapped(self) -> Parts:
        """The same networks called directly: wrappers of several processes wait for each other, and one process alone may want to look."""
        encode, segment = EncoderOutputs(self.encoder), SegmentationLogits(self.segmentation)
        return dataclasses.replace(self, encode=Directly(encode, self.autocast), segment=Directly(segment, self.autocast))

    def calls(self) -> dict[str, nn.Module]:
        """What is called for each network that may learn, by its name."""
        return {self.encoder.kind: self.encode, self.segmentation.kind: self.segment}

    def networks(self) -> dict[str, nn.Module]:
        """The networks that may learn, by name."""
        return {self.encoder.kind: self.encoder, self.segmentation.kind: self.segmentation}


def reconstruct(parts: Parts, batch: FaceBatch) -> Reconstructed:
    """Encode and decode a batch.

    The photo is the background that silhouettes are blended with: black there would pull them inwards.
    """
    theta = parts.encoder.theta(parts.encode(batch.image, batch.detected))
    photo = batch.image.permute(0, 2, 3, 1)
    decoded = decode(parts.model, parts.frame, theta, background=photo)
    region = (decoded.rendering.mask & batch.inside).float()
    return Reconstructed(batch, theta, decoded, photo, decoded.rendering.image * region[..., None], region)


def mask_logits(parts: Parts, seen: Reconstructed) -> Float[Tensor, "b h w"]:
    """Log odds of face by S, everywhere."""
    return parts.segment(masked(seen.rendering.detach()), seen.batch.image)


def segment(parts: Parts, seen: Reconstructed) -> Float[Tensor, "b h w"]:
    """M: what S calls face, inside the region."""
    return mask_logits(parts, seen).sigmoid() * seen.region


def segment_through(parts: Parts, seen: Reconstructed) -> Float[Tensor, "b h w"]:
    """M with gradients to the rendering, for R while S is frozen; past S's wrappers, which would wait for gradients of S."""
    with parts.autocast():
        logits = parts.segmentation.logits(masked(seen.rendering), seen.batch.image)
    return logits.sigmoid() * seen.region


def known_landmarks(seen: Reconstructed) -> Float[Tensor, "b 68 2"]:
    """The photo's landmarks, or the reconstruction's where they are not known; no gradients."""
    is_known: Bool[Tensor, "b 1 1"] = seen.batch.landmark_weight[:, None, None] > 0
    return torch.where(is_known, seen.batch.landmarks, seen.decoded.landmarks.detach())


def masked(image: Float[Tensor, "b h w 3"], mask: Float[Tensor, "b h w"] | None = None) -> Float[Tensor, "b 3 h w"]:
    """A picture times a mask, as networks take it."""
    image = image if mask is None else image * mask[..., None]
    return image.permute(0, 3, 1, 2)
