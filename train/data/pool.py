"""Faces that are drawn once and used again: for machines on which drawing takes longer than learning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from focus_backend.networks.mirror import FaceMirror
from focus_backend.networks.theta import Theta
from train.data.batch import FaceBatch, FaceSource, pack
from train.data.people import PeopleWorkers
from train.data.pool_store import PoolStore
from train.seeds import mixed

_CHUNK = 64
# Apart from the order's numbers.
_MIRRORED = 1_000_003


class PooledFaces:
    """A `FaceSource` over the first `count` faces of another one, in a new order every epoch; kept as bytes on the training device.

    Args:
        source: of the faces; all of them with landmarks, mask and theta.
        workers: draw the same faces as `source`; None to draw them here.
        mirror: by which half of the faces are mirrored; None for none.
        count: how many.
        seed: of the order.
        rank: of this process; it has a pool of its own if `source` has.
        folder: keeps the faces from one stage to the next; a stopped run goes on with those that are there.
        key: what the faces depend on; a folder with others is replaced.
        device: where the faces are kept; of a folder on the CPU, only what is looked at comes into memory.
        report: is told how many faces are drawn, now and then.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        source: FaceSource,
        count: int,
        *,
        seed: int,
        rank: int = 0,
        folder: Path | None = None,
        key: str = "",
        device: torch.device | str = "cpu",
        workers: PeopleWorkers | None = None,
        mirror: FaceMirror | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._seed, self._rank, self._count, self._device, self._mirror = seed, rank, count, torch.device(device), mirror
        store = PoolStore(folder, key, count)
        chunks = range(-(-store.filled // _CHUNK), -(-count // _CHUNK))
        drawn = (pack(source.batch(chunk, _CHUNK)) for chunk in chunks) if workers is None else workers.batches(chunks, _CHUNK)
        for chunk in drawn:
            store.add(chunk)
            report(store.filled)
        self._tensors = {name: value.to(self._device) for name, value in store.tensors().items()}

    def batch(self, step: int, size: int) -> FaceBatch:
        """The faces of a step; every face once an epoch."""
        index = self._indices(step, size)
        # From pinned memory, so that nothing waits for the device.
        index = index.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else index
        chosen = {name: value[index] for name, value in self._tensors.items()}
        batch = FaceBatch(
            image=_as_floats(chosen["image"]),
            landmarks=chosen["landmarks"],
            landmark_weight=torch.ones(size, device=self._device),
            inside=chosen["inside"] > 0,
            mask=_as_floats(chosen["mask"]),
            theta=Theta(**{field.name: chosen[field.name] for field in dataclasses.fields(Theta)}),
            detected=chosen.get("detected"),
        )
        if self._mirror is None:
            return batch
        random = torch.Generator().manual_seed(mixed(self._seed, self._rank, _MIRRORED, step))
        return batch.mirrored(self._mirror, torch.rand(size, generator=random).to(self._device) < 0.5)

    def _indices(self, step: int, size: int) -> Int[Tensor, "size"]:
        place = torch.arange(step * size, (step + 1) * size)
        first, last = step * size // self._count, ((step + 1) * size - 1) // self._count
        return torch.cat([self._order(epoch) for epoch in range(first, last + 1)])[place - first * self._count]

    def _order(self, epoch: int) -> Int[Tensor, "count"]:
        random = torch.Generator().manual_seed(mixed(self._seed, self._rank, epoch))
        return torch.randperm(self._count, generator=random)


def _as_floats(values: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.float() / 255
