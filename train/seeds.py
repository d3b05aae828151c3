"""Seeds that hang on several numbers: of the run, a step, a process."""

from __future__ import annotations


def mixed(*numbers: int) -> int:
    """One seed of several numbers, the same in every process and on every machine."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 62)
    return seed
