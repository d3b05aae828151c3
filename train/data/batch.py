"""What every source of training faces gives: aligned crops with what is known of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from focus_backend.networks.mirror import FaceMirror
from focus_backend.networks.theta import Theta


@dataclass(frozen=True)
class FaceBatch:
    """Aligned crops. Pixels: origin top left, centres at +0.5.

    Attributes:
        image: sRGB in [0, 1].
        landmarks: the 68 points, crop pixels; they may lie outside the crop.
        landmark_weight: 1 where the landmarks are known, 0 where not.
        detected: the 68 points as a detector sees them, which an encoder may look at; not finite where it saw none, None where none looked.
        inside: pixels that lie in the photo the crop was cut from.
        mask: truth where there is one, 1 for face, 0 for anything else.
        theta: truth where there is one.
    """

    image: Float[Tensor, "b 3 h w"]
    landmarks: Float[Tensor, "b 68 2"]
    landmark_weight: Float[Tensor, "b"]
    inside: Bool[Tensor, "b h w"]
    mask: Float[Tensor, "b h w"] | None = None
    theta: Theta | None = None
    detected: Float[Tensor, "b 68 2"] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def chosen(self, index: Int[Tensor, "n"]) -> FaceBatch:
        """Some of the faces, in that order."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept: dict[str, Any] = {name: None if value is None else value[index] for name, value in given.items()}
        return FaceBatch(**kept)

    def mirrored(self, mirror: FaceMirror, which: Bool[Tensor, "b"]) -> FaceBatch:
        """The batch with left and right exchanged in some of its pictures, and in what is known of them.

        Args:
            mirror: of the face model.
            which: pictures.
        """
        width = self.image.shape[-1]

        def where(changed: Tensor, own: Tensor) -> Tensor:
            return torch.where(which.view(-1, *[1] * (own.ndim - 1)), changed, own)

        theta = None
        if self.theta is not None:
            changed = mirror.theta(self.theta)
            theta = Theta(**{name: where(getattr(changed, name), value) for name, value in vars(self.theta).items()})
        return dataclasses.replace(
            self,
            image=where(self.image.flip(-1), self.image),
            landmarks=where(mirror.landmarks(self.landmarks, width), self.landmarks),
            inside=where(self.inside.flip(-1), self.inside),
            mask=None if self.mask is None else where(self.mask.flip(-1), self.mask),
            theta=theta,
            detected=None if self.detected is None else where(mirror.landmarks(self.detected, width), self.detected),
        )

    def to(self, device: torch.device | str) -> FaceBatch:
        """The same batch on a device; copies from pinned memory do not wait."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "theta" and getattr(self, field.name) is not None]
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return dataclasses.replace(self, **moved, theta=None if self.theta is None else self.theta.to(device))


@runtime_checkable
class FaceSource(Protocol):
    """Where training faces come from."""

    def batch(self, step: int, size: int) -> FaceBatch:
        """The faces of one step.

        They depend on the source, its seed and rank, `step` and `size` alone, so that a resumed run sees what an uninterrupted one does.
        """
        ...


def pack(batch: FaceBatch) -> dict[str, Tensor]:
    """What is kept of faces, on the CPU, pictures as bytes."""
    assert batch.theta is not None
    assert batch.mask is not None
    values = vars(batch.theta) | {"landmarks": batch.landmarks, "inside": batch.inside.byte()}
    values |= {"image": _as_bytes(batch.image), "mask": _as_bytes(batch.mask)}
    values |= {} if batch.detected is None else {"detected": batch.detected}
    return {name: value.cpu() for name, value in values.items()}


def _as_bytes(values: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return (values.clamp(0, 1) * 255 + 0.5).byte()
