"""Ranges against Python sets."""

from __future__ import annotations

import itertools
import random

import pytest

from akbypass.processors.intervals import Ranges


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {q for a, b in ranges for q in range(a, b)}


@pytest.mark.parametrize("seed", range(20))
def test_ranges_equal_sets(seed: int) -> None:
    """Any sequence of additions and removals holds what a set holds, in ranges that neither overlap nor touch."""
    rng = random.Random(seed)
    ranges, model = Ranges(), set[int]()
    for _ in range(60):
        first = rng.randint(0, 40)
        end = first + rng.randint(0, 12)
        if rng.random() < 0.6:
            ranges.add(first, end)
            model |= set(range(first, end))
        else:
            ranges.remove(first, end)
            model -= set(range(first, end))
        assert numbers(list(ranges)) == model
        assert all(a < b for a, b in ranges) and all(x[1] < y[0] for x, y in itertools.pairwise(ranges))
        low, high = sorted((rng.randint(0, 50), rng.randint(0, 50)))
        assert numbers(ranges.common(low, high)) == model & set(range(low, high))
        assert numbers(ranges.without(low, high)) == set(range(low, high)) - model


def test_forget_oldest() -> None:
    """The highest ranges stay."""
    ranges = Ranges([(1, 2), (4, 5), (7, 9)])
    ranges.forget_oldest(2)
    assert list(ranges) == [(4, 5), (7, 9)]
