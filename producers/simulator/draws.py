"""Random numbers one at a time at the price of a list access; does not choose distributions for anyone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
BLOCK = 1 << 14  # drawn at once; only speed depends on it


class Draws:
    """A stream of uniform numbers of its own, set by the day's seed and a purpose, so that parts do not disturb each other.

    >>> Draws(7, "market/XNAS").below(10) == Draws(7, "market/XNAS").below(10)
    True
    """

    __slots__ = ("_block", "rng")

    def __init__(self, seed: int, purpose: str) -> None:
        self.rng = np.random.Generator(np.random.PCG64([seed, *purpose.encode()]))
        self._block: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self.rng.random(BLOCK).tolist()
        return self._block.pop()

    def below(self, n: int) -> int:
        """Uniform integer in [0, n)."""
        return int(self.unit() * n)

    def between(self, low: int, high: int) -> int:
        """Uniform integer in [low, high)."""
        return low + int(self.unit() * (high - low))

    def log_between(self, low: float, high: float) -> int:
        """Integer whose logarithm is uniform: short ones are as frequent as long ones."""
        return int(low * math.exp(self.unit() * math.log(high / low)))

    def exponential(self, mean: float) -> float:
        """Exponential with this mean."""
        return -mean * math.log(1.0 - self.unit())

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.unit() * len(items))]
