"""Gaps of one line, or of all lines of a feed together: what is missing, who delivered it after all, and their fate.

Knows no frames, no windows and no rows. A gap is a maximal run of missing numbers; when it is settled it falls into
pieces, each a maximal run of one fate:

    filled_late            the line itself delivered it later
    recovered_other_line   else, another line delivered it, before or after the gap opened
    lost                   else
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from akbypass.processors.intervals import Ranges
from akbypass.processors.sequencing import Cause

FEED = -1  # line slot of gaps on all lines
OPEN, RECOVERED, FILLED, LOST = 0, 1, 2, 3  # ordinals of feed_gaps.fate

Delivery = tuple[int, int, int | None, int]  # first, end, ts_capture_ns (None: too long ago), its resolution in ns


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one fate; `delivered_ns` is when its last message came, None for a loss or when that is unknown."""

    first: int
    end: int
    fate: int
    delivered_ns: int | None
    resolution_ns: int


@dataclass(slots=True, eq=False)
class Gap:
    """An open gap. `opened` is its cause, `opened_ns` the capture time of the packet that revealed it."""

    serial: int
    id: bytes
    revision: int
    line: int
    domain: int
    first: int
    end: int
    opened: Cause
    opened_ns: int
    resolution_ns: int
    fills: list[Delivery] = field(default_factory=list)  # by the line itself; do not overlap
    others: list[Delivery] = field(default_factory=list)  # by other lines; do not overlap
    filled: Ranges = field(default_factory=Ranges)  # what `fills` covers
    recovered: Ranges = field(default_factory=Ranges)  # what `others` covers

    def fill(self, first: int, end: int, ts_ns: int, resolution_ns: int) -> None:
        """Note that the line itself delivered part of it."""
        self._note(self.fills, self.filled, first, end, ts_ns, resolution_ns)

    def recover(self, first: int, end: int, ts_ns: int | None, resolution_ns: int) -> None:
        """Note that another line delivered part of it; the first to do so counts."""
        self._note(self.others, self.recovered, first, end, ts_ns, resolution_ns)

    def _note(
        self, to: list[Delivery], known: Ranges, first: int, end: int, ts_ns: int | None, resolution_ns: int
    ) -> None:
        first, end = max(first, self.first), min(end, self.end)
        if first < end:
            to += [(a, b, ts_ns, resolution_ns) for a, b in known.without(first, end)]
            known.add(first, end)

    @property
    def is_filled(self) -> bool:
        """Whether the line itself has delivered all of it."""
        return self.filled.ranges == [(self.first, self.end)]

    def unknown(self) -> list[tuple[int, int]]:
        """Parts that no line is known to have delivered."""
        return [p for a, b in self.filled.without(self.first, self.end) for p in self.recovered.without(a, b)]

    def pieces(self) -> list[Piece]:
        """Split into maximal runs of one fate, ascending."""
        parts = [(a, b, FILLED) for a, b in self.filled.common(self.first, self.end)]
        for a, b in self.filled.without(self.first, self.end):
            parts += [(x, y, RECOVERED) for x, y in self.recovered.common(a, b)]
            parts += [(x, y, LOST) for x, y in self.recovered.without(a, b)]
        return [self._piece(a, b, fate) for a, b, fate in sorted(parts)]

    def _piece(self, first: int, end: int, fate: int) -> Piece:
        known = {FILLED: self.fills, RECOVERED: self.others, LOST: []}[fate]
        here = [d for d in known if d[0] < end and d[1] > first]
        resolution = max((d[3] for d in here), default=0)
        times = [d[2] for d in here if d[2] is not None]
        complete = bool(here) and len(times) == len(here)
        return Piece(first, end, fate, max(times) if complete else None, resolution)

    def pack(self) -> list[Any]:
        """As plain values, for a snapshot."""
        return [
            self.serial, self.id.decode(), self.revision, self.line, self.domain, self.first, self.end,
            self.opened, self.opened_ns, self.resolution_ns, self.fills, self.others,
        ]  # fmt: skip

    @classmethod
    def unpack(cls, packed: list[Any]) -> Gap:
        """From plain values."""
        serial, gap_id, *rest = packed
        revision, line, domain, first, end, opened, opened_ns, resolution, fills, others = rest
        gap = cls(serial, gap_id.encode(), revision, line, domain, first, end, tuple(opened), opened_ns, resolution)
        for delivery in fills:
            gap.fill(*delivery)
        for delivery in others:
            gap.recover(*delivery)
        return gap


@dataclass(slots=True, eq=False)
class Line:
    """What one line of one session has shown: everything from `start` up to its next expected number, less `missing`."""

    slot: int
    name: bytes
    start: int
    opened: Cause  # its first packet
    opened_ns: int
    resolution_ns: int
    missing: Ranges = field(default_factory=Ranges)
    gaps: list[Gap] = field(default_factory=list)  # open ones, in the order in which they opened

    def delivered(self, first: int, end: int, expected: int) -> list[tuple[int, int]]:
        """Parts of [first, end) that the line has delivered, when it expects `expected` next."""
        first, end = max(first, self.start), min(end, expected)
        return self.missing.without(first, end) if first < end else []

    def forget(self, ranges_max: int) -> None:
        """Bound the memory of what is missing; below what is forgotten the line counts as not yet listened to."""
        over = len(self.missing) - ranges_max
        if over > 0:
            self.start = max(self.start, self.missing.ranges[over - 1][1])
            self.missing.forget_oldest(ranges_max)

    def pack(self) -> list[Any]:
        """As plain values, for a snapshot; open gaps are kept elsewhere."""
        missing = self.missing.ranges
        return [
            self.slot,
            self.name.decode("latin-1"),
            self.start,
            self.opened,
            self.opened_ns,
            self.resolution_ns,
            missing,
        ]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Line:
        """From plain values."""
        slot, name, start, opened, opened_ns, resolution, missing = packed
        ranges = Ranges([(a, b) for a, b in missing])
        return cls(slot, name.encode("latin-1"), start, tuple(opened), opened_ns, resolution, ranges)
