"""Sorted sets of whole numbers kept as half-open ranges [first, end); small and rare, so plain Python."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

Range = tuple[int, int]


class Ranges:
    """A set of whole numbers as sorted ranges that neither overlap nor touch.

    >>> seen = Ranges([(1, 5)])
    >>> seen.add(5, 8); seen.remove(2, 3); list(seen)
    [(1, 2), (3, 8)]
    >>> seen.common(0, 4), seen.without(0, 4)
    ([(1, 2), (3, 4)], [(0, 1), (2, 3)])
    """

    __slots__ = ("ranges",)

    def __init__(self, ranges: list[Range] | None = None) -> None:
        self.ranges: list[Range] = ranges or []

    def __iter__(self) -> Iterator[Range]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def _from(self, first: int) -> int:
        """Index of the first range that ends behind `first`."""
        i = bisect_right(self.ranges, (first, first)) - 1
        if i >= 0 and self.ranges[i][1] > first:
            return i
        return i + 1

    def common(self, first: int, end: int) -> list[Range]:
        """Parts of [first, end) that are in the set."""
        out = []
        for i in range(self._from(first), len(self.ranges)):
            a, b = self.ranges[i]
            if a >= end or first >= end:
                break
            out.append((max(a, first), min(b, end)))
        return out

    def without(self, first: int, end: int) -> list[Range]:
        """Parts of [first, end) that are not in the set."""
        out = []
        at = first
        for a, b in self.common(first, end):
            if a > at:
                out.append((at, a))
            at = b
        if at < end:
            out.append((at, end))
        return out

    def add(self, first: int, end: int) -> None:
        """Put [first, end) into the set."""
        if first >= end:
            return
        i = self._from(first)
        if i > 0 and self.ranges[i - 1][1] == first:
            i -= 1
        j = i
        while j < len(self.ranges) and self.ranges[j][0] <= end:
            first, end = min(first, self.ranges[j][0]), max(end, self.ranges[j][1])
            j += 1
        self.ranges[i:j] = [(first, end)]

    def remove(self, first: int, end: int) -> None:
        """Take [first, end) out of the set."""
        if first >= end:
            return
        i = self._from(first)
        j = i
        keep: list[Range] = []
        while j < len(self.ranges) and self.ranges[j][0] < end:
            a, b = self.ranges[j]
            if a < first:
                keep.append((a, first))
            if b > end:
                keep.append((end, b))
            j += 1
        self.ranges[i:j] = keep

    def forget_oldest(self, ranges_max: int) -> None:
        """Keep at most `ranges_max` ranges, the highest."""
        if len(self.ranges) > ranges_max:
            del self.ranges[: len(self.ranges) - ranges_max]


__all__ = ["Range", "Ranges"]
