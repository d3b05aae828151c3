"""Random numbers of one batch, all drawn on the device from one generator."""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Draws:
    """A generator on a device and the few distributions the scenes need; nothing here waits for the device.

    Args:
        device: where the numbers are drawn and stay.
        key: whatever the numbers are to depend on.
        constants: of the device, kept from batch to batch; copying them there anew would wait for it.
    """

    def __init__(self, device: torch.device | str, *key: int | str, constants: dict[tuple[float, ...], Tensor] | None = None) -> None:
        self.device = torch.device(device)
        self._constants = {} if constants is None else constants
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(int.from_bytes(digest, "big") >> 1)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "*shape"]:
        """Even between `low` and `high`."""
        # In place, for it is one kernel instead of three.
        return torch.empty(shape, device=self.device).uniform_(low, high, generator=self.generator)

    def normal(self, *shape: int, scale: float = 1.0) -> Float[Tensor, "*shape"]:
        """Normal around zero."""
        return torch.empty(shape, device=self.device).normal_(0, scale, generator=self.generator)

    def log_uniform(self, *shape: int, low: float, high: float) -> Float[Tensor, "*shape"]:
        """Positive, every octave alike."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def chance(self, share: float, *shape: int) -> Bool[Tensor, "*shape"]:
        """True with probability `share`."""
        return self.uniform(*shape) < share

    def integers(self, count: int, *shape: int) -> Int[Tensor, "*shape"]:
        """0 ... count - 1."""
        return torch.randint(count, shape, generator=self.generator, device=self.device)

    def constant(self, *values: float) -> Float[Tensor, "values"]:
        """A vector of fixed numbers on the device, copied there once."""
        if values not in self._constants:
            self._constants[values] = torch.tensor(values, dtype=torch.float32, device=self.device)
        return self._constants[values]
