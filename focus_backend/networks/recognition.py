"""F of FOCUS: features that say who a face is, as equations 2, 4 and 6 compare them.

The network is frozen where it measures (`freeze`); gradients flow through it to the image all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional

from focus_backend.networks.alignment import align_face, template_points
from focus_backend.networks.iresnet import make_backbone

Architecture = Literal["small", "iresnet18", "iresnet34", "iresnet50", "iresnet100"]


class RecognitionConfig(BaseModel):
    """Which network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # `small` is ours and light; the others are those of ArcFace.
    architecture: Architecture = "small"


@dataclass(frozen=True)
class Features:
    """What the network sees in pictures.

    Attributes:
        shallow: map after the first stage.
        final: the embedding, unit length.
    """

    shallow: Float[Tensor, "b c fh fw"]
    final: Float[Tensor, "b n"]


class RecognitionNetwork(nn.Module):
    """Recognition features of faces in images.

    Images are sRGB in [0, 1]; the 68 landmarks, in pixels of the image, say where the face is. Each image is aligned to 112 px inside,
    with gradients to image and landmarks.
    """

    kind = "recognition"
    template: Tensor

    def __init__(self, config: RecognitionConfig | None = None) -> None:
        super().__init__()
        self.config = config or RecognitionConfig()
        self.backbone = make_backbone(self.config.architecture)
        self.register_buffer("template", template_points(), persistent=False)

    @property
    def embedding_size(self) -> int:
        """Length of the embedding."""
        return self.backbone.embedding_size

    def freeze(self) -> RecognitionNetwork:
        """Evaluation mode, no gradients to the weights; returns itself."""
        return self.eval().requires_grad_(False)

    def shallow(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> Float[Tensor, "b c fh fw"]:
        """The map after the first stage."""
        return self._first(align_face(image, landmarks, self.template))

    def final(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> Float[Tensor, "b n"]:
        """The embedding, unit length."""
        return self._last(self.shallow(image, landmarks))

    def features(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> Features:
        """Both, computed once."""
        return self.aligned_features(align_face(image, landmarks, self.template))

    def aligned_features(self, aligned: Float[Tensor, "b 3 112 112"]) -> Features:
        """Features of pictures that `align_face` made, sRGB in [0, 1]."""
        shallow = self._first(aligned)
        return Features(shallow, self._last(shallow))

    def forward(self, image: Float[Tensor, "b 3 h w"], landmarks: Float[Tensor, "b 68 2"]) -> Float[Tensor, "b n"]:
        """The embedding, as `final`."""
        return self.final(image, landmarks)

    def _first(self, aligned: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b c fh fw"]:
        return self.backbone.first_stage(aligned * 2 - 1)

    def _last(self, shallow: Float[Tensor, "b c fh fw"]) -> Float[Tensor, "b n"]:
        embedding = self.backbone.embedding(shallow)
        # Half precision would lose the small angles that tell two pictures of one face apart.
        return functional.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)
