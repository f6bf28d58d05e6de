"""What the arbitration kernel sees: sessions and lines as slots of arrays, and the kernel for frames without surprises.

Slots of a dropped session are used again only after `free_dropped`, so that a step's results may refer to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.rows import Array

NEXT, LOOK, CLEAN = 0, 1, 2  # columns of Slots.domain_state
FREE, WAS_USED = -1, -2  # values of the table without a line


@kernel
def advance(
    i: int, limit: int, number: int, hashes: Any, kind: Any, first: Any, count: Any, keys: Any, values: Any,
    line_domain: Any, expected: Any, current: Any, domain_state: Any,
    slot: Any, fresh_first: Any, fresh_count: Any, copies: Any, order: Any, segments: Any, filled: int,
) -> tuple[int, int]:  # fmt: skip
    """Settle frames i, i+1, … while they need no thought; returns where it stopped and the segments filled.

    Needs none: a known line's frame in a domain without holes that does not start behind `next`, nor so low that
    it may be late. `segments` gets (frame number, first, end, run, capture, position) of what is released.
    """
    mask = len(keys) - 1
    while i < limit:
        h = hashes[i]
        at = np.int64(h & np.uint64(mask))
        while values[at] != -1 and keys[at] != h:
            at = (at + 1) & mask
        line = values[at]
        if line < 0 or current[line] == 0:
            break
        d = line_domain[line]
        a = first[i]
        following = domain_state[d, 0]
        if domain_state[d, 2] == 0 or a > following or a < domain_state[d, 1]:
            break
        n = np.int64(count[i]) if kind[i] == 0 else np.int64(0)
        if n < 0:
            break
        b = a + n
        slot[i] = line
        expected[line] = max(expected[line], b)
        fresh = max(np.int64(0), b - following)
        fresh_first[i] = following
        fresh_count[i] = fresh
        copies[i] = n - fresh
        if fresh > 0:
            segments[filled, 0] = number + i
            segments[filled, 1] = following
            segments[filled, 2] = b
            for k in range(3):
                segments[filled, 3 + k] = order[i, k]
            filled += 1
            domain_state[d, 0] = b
        i += 1
    return i, filled


class Slots:
    """Arrays by session slot and line slot, and the open-addressing table from a line's hash to its slot.

    domain_state  (sessions, 3): `next`; numbers below LOOK may be late; CLEAN 1 when open and without holes
    line_domain   line slot → session slot
    expected      line slot → the line's next number, −1 before its first frame
    current       line slot → 1 while the line speaks in that session
    """

    def __init__(self) -> None:
        self.domain_state = np.zeros((8, 3), np.int64)
        self.line_domain = np.zeros(16, np.int64)
        self.expected = np.full(16, -1, np.int64)
        self.current = np.zeros(16, np.int8)
        self.domains_made = self.lines_made = 0
        self.free_domains: list[int] = []
        self.free_lines: list[int] = []
        self.dropped: list[tuple[int, list[int]]] = []
        self.lines: dict[int, int] = {}  # line slot → hash of feed, session and line
        self._index_all()

    def new_domain(self) -> int:
        """Take a session slot."""
        if self.free_domains:
            return self.free_domains.pop()
        self.domains_made += 1
        if self.domains_made > len(self.domain_state):
            self.domain_state = np.concatenate([self.domain_state, np.zeros_like(self.domain_state)])
        return self.domains_made - 1

    def new_line(self, domain: int, line_hash: int) -> int:
        """Take a line slot in a session."""
        if self.free_lines:
            slot = self.free_lines.pop()
        else:
            slot = self.lines_made
            self.lines_made += 1
        if slot >= len(self.line_domain):
            self.line_domain = np.concatenate([self.line_domain, np.zeros_like(self.line_domain)])
            self.expected = np.concatenate([self.expected, np.full_like(self.expected, -1)])
            self.current = np.concatenate([self.current, np.zeros_like(self.current)])
        self.line_domain[slot], self.expected[slot], self.current[slot] = domain, -1, 0
        self.lines[slot] = line_hash
        self._index(slot)
        return slot

    def drop(self, domain: int, lines: Iterable[int]) -> None:
        """Forget a session and its lines."""
        self.dropped.append((domain, list(lines)))
        for slot in self.dropped[-1][1]:
            at = self._place_of(self.lines.pop(slot))
            self.keys[at], self.values[at] = 0, WAS_USED

    def free_dropped(self) -> None:
        """Let the slots of dropped sessions be used again."""
        for domain, lines in self.dropped:
            self.free_domains.append(domain)
            self.free_lines += lines
        self.dropped = []

    def _index_all(self) -> None:
        size = 16
        while size < 4 * len(self.lines):
            size *= 2
        self.keys, self.values, self._used = np.zeros(size, np.uint64), np.full(size, FREE, np.int64), 0
        for slot in self.lines:
            self._index(slot)

    def _index(self, slot: int) -> None:
        if 2 * self._used >= len(self.values):
            self._index_all()  # it takes this line in as well
            return
        at = self._place_of(self.lines[slot])
        self.keys[at], self.values[at] = self.lines[slot], slot
        self._used += 1

    def _place_of(self, line_hash: int) -> int:
        mask = len(self.values) - 1
        at = line_hash & mask
        while self.values[at] != FREE and int(self.keys[at]) != line_hash:
            at = (at + 1) & mask
        return at

    def arrays(self) -> dict[str, Array]:
        """Copies of the arrays, for a snapshot."""
        return {n: getattr(self, n).copy() for n in ("line_domain", "expected", "current", "domain_state")}

    def pack(self) -> list[Any]:
        """The rest, as plain values."""
        return [self.domains_made, self.lines_made, self.free_domains, self.free_lines, list(self.lines.items())]

    def restore(self, packed: list[Any], arrays: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        for name in ("line_domain", "expected", "current", "domain_state"):
            setattr(self, name, arrays[name].copy())
        self.domains_made, self.lines_made, self.free_domains, self.free_lines, lines = packed
        self.lines, self.dropped = dict(lines), []
        self._index_all()
