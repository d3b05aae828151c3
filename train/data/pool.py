"""Faces that are drawn once and used again: for machines on which drawing takes longer than learning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from focus_backend.errors import WeightsError
from focus_backend.networks.checkpoint import read_tensors, write_tensors
from focus_backend.networks.theta import Theta
from train.data.batch import FaceBatch, FaceSource

_CHUNK = 64
_KIND = "faces"


class PooledFaces:
    """A `FaceSource` over the first `count` faces of another one, in a new order every epoch; kept as bytes in memory.

    Args:
        source: of the faces; all of them with landmarks, mask and theta.
        count: how many.
        seed: of the order.
        rank: of this process; it has a pool of its own if `source` has.
        file: keeps the faces from one stage to the next.
        key: what the faces depend on; a file with another one is replaced.
    """

    def __init__(self, source: FaceSource, count: int, *, seed: int, rank: int = 0, file: Path | None = None, key: str = "") -> None:
        self._seed, self._rank, self._count = seed, rank, count
        tensors = _read(file, key) if file is not None else None
        if tensors is None:
            tensors = _drawn(source, count)
            if file is not None:
                write_tensors(file, _KIND, tensors, {"key": key})
        self._tensors = tensors

    def batch(self, step: int, size: int) -> FaceBatch:
        """The faces of a step; every face once an epoch."""
        place = torch.arange(step * size, (step + 1) * size)
        epochs = {int(epoch): self._order(int(epoch)) for epoch in (place // self._count).unique()}
        index = torch.stack([epochs[int(where) // self._count][int(where) % self._count] for where in place])
        chosen = {name: value[index] for name, value in self._tensors.items()}
        theta = Theta(**{field.name: chosen[field.name] for field in dataclasses.fields(Theta)})
        return FaceBatch(
            image=_as_floats(chosen["image"]),
            landmarks=chosen["landmarks"],
            landmark_weight=torch.ones(size),
            inside=_everywhere(chosen["mask"]),
            mask=_as_floats(chosen["mask"]),
            theta=theta,
        )

    def _order(self, epoch: int) -> Tensor:
        random = torch.Generator().manual_seed(hash((self._seed, self._rank, epoch)) % (1 << 62))
        return torch.randperm(self._count, generator=random)


def _drawn(source: FaceSource, count: int) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    for chunk in range(-(-count // _CHUNK)):
        batch = source.batch(chunk, _CHUNK)
        assert batch.theta is not None
        assert batch.mask is not None
        values = vars(batch.theta) | {"image": _as_bytes(batch.image), "mask": _as_bytes(batch.mask), "landmarks": batch.landmarks}
        for name, value in values.items():
            parts.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(values)[:count] for name, values in parts.items()}


def _read(file: Path, key: str) -> dict[str, Tensor] | None:
    """The faces of a file, None where there is none for this key."""
    if not file.is_file():
        return None
    try:
        tensors, description = read_tensors(file, _KIND)
    except WeightsError:  # cut off by a kill: drawn again
        return None
    return tensors if description.get("key") == key else None


def _as_bytes(values: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return (values.clamp(0, 1) * 255 + 0.5).byte()


def _as_floats(values: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.float() / 255


def _everywhere(values: UInt8[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    return torch.ones_like(values, dtype=torch.bool)
