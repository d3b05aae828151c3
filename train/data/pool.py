"""Faces that are drawn once and used again: for machines on which drawing takes longer than learning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from focus_backend.errors import WeightsError
from focus_backend.networks.checkpoint import read_tensors, write_tensors
from focus_backend.networks.mirror import FaceMirror
from focus_backend.networks.theta import Theta
from train.data.batch import FaceBatch, FaceSource, pack
from train.data.people import PeopleWorkers
from train.seeds import mixed

_CHUNK = 64
_KIND = "faces"
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
        file: keeps the faces from one stage to the next.
        key: what the faces depend on; a file with another one is replaced.
        device: where the faces are kept.
        report: is told how many faces are drawn, now and then.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(
        self,
        source: FaceSource,
        count: int,
        *,
        seed: int,
        rank: int = 0,
        file: Path | None = None,
        key: str = "",
        device: torch.device | str = "cpu",
        workers: PeopleWorkers | None = None,
        mirror: FaceMirror | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._seed, self._rank, self._count, self._device, self._mirror = seed, rank, count, torch.device(device), mirror
        tensors = _read(file, key) if file is not None else None
        if tensors is None:
            chunks = -(-count // _CHUNK)
            drawn = (pack(source.batch(chunk, _CHUNK)) for chunk in range(chunks)) if workers is None else workers.batches(chunks, _CHUNK)
            tensors = _joined(drawn, count, report)
            if file is not None:
                write_tensors(file, _KIND, tensors, {"key": key})
        self._tensors = {name: value.to(self._device) for name, value in tensors.items()}

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


def _joined(chunks: Iterable[dict[str, Tensor]], count: int, report: Callable[[int], None]) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    for done, chunk in enumerate(chunks, 1):
        for name, value in chunk.items():
            parts.setdefault(name, []).append(value)
        report(min(count, done * _CHUNK))
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


def _as_floats(values: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.float() / 255
