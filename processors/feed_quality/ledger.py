"""The books of feed quality: sessions, their lines, and the gaps that are open; opens, extends and settles gaps.

It is told what happened and when, decides no sequence rule (scorer.py does), and writes gap rows as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.order import make_id
from akbypass.processors.feed_quality import tally as t
from akbypass.processors.feed_quality.gaps import FEED, FILLED, LOST, OPEN, RECOVERED, Gap, Line
from akbypass.processors.feed_quality.reports import EVIDENCE_MAX, GapRows
from akbypass.processors.sequencing import Cause, Domain
from akbypass.rows import Array

COUNTED = {RECOVERED: t.RECOVERED, FILLED: t.FILLED, LOST: t.LOST}  # fate → counter
FEED_NAME = b"feed"  # line name of rows about all lines


@dataclass(slots=True, eq=False)
class Session:
    """One session of a feed: its lines by slot, and its open gaps on all lines."""

    serial: int
    slot: int
    feed: bytes
    venue: bytes
    name: bytes
    start: int | None = None  # its first number, once known
    joined: int = 0  # lines that have spoken in it (count)
    lines: dict[int, Line] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)  # ids of feed gaps that opened in the open window
    unresolved: dict[int, Gap] = field(
        default_factory=dict
    )  # line gaps of which no line is known to have brought a part

    def pack(self) -> list[Any]:
        """As plain values, for a snapshot; open gaps are kept elsewhere."""
        names = [v.decode("latin-1") for v in (self.feed, self.venue, self.name)]
        lines = [line.pack() for line in self.lines.values()]
        return [self.serial, self.slot, *names, self.start, self.joined, lines, self.evidence]

    @classmethod
    def unpack(cls, packed: list[Any]) -> Session:
        """From plain values."""
        serial, slot, feed, venue, name, start, joined, lines, evidence = packed
        feed, venue, name = (v.encode("latin-1") for v in (feed, venue, name))
        return cls(serial, slot, feed, venue, name, start, joined, {x[0]: Line.unpack(x) for x in lines}, [], evidence)


class Ledger:
    """All sessions of one run and one partition. Arrays are indexed by line slot or session slot of the arbiter."""

    def __init__(self, config: Config, run_id: str) -> None:
        self.run_id = run_id
        self.gaps_max = config.thresholds.gaps_open_max
        self.rows = GapRows()
        self.sessions: dict[int, Session] = {}  # session slot → session, oldest first
        self.gaps: dict[int, Gap] = {}  # serial → open gap, oldest first
        self.serials = 0
        self.session_of = np.zeros(0, np.int64)  # line slot → session slot
        self.expected = np.zeros(0, np.int64)  # line slot → next number; −1 before its first packet
        self.counters = np.zeros((0, t.COUNTERS), np.int64)  # of lines
        self.feed_counters = np.zeros((0, t.COUNTERS), np.int64)  # of sessions: what only all lines together have
        self.watch = np.zeros((0, 2), np.int64)  # session slot → numbers that some line misses, [first, end)
        self.ring_of = np.zeros(0, np.int64)  # session slot → ring of first arrivals; −1 for a feed of one line
        self.ring = np.zeros((0, t.RING_MAX, 5), np.int64)
        self.ring_n = np.zeros(0, np.int64)  # ring → entries used; −1 for a free ring

    # -- sessions and lines --------------------------------------------------------------------------------------------

    def join(self, domain: Domain, slot: int, several: bool) -> None:
        """Make room for a line that speaks in a session for the first time; `several`: its feed has other lines."""
        self._reserve(domain.slot, slot)
        if domain.slot not in self.sessions:
            self.sessions[domain.slot] = Session(domain.serial, domain.slot, domain.feed, domain.venue, domain.session)
            self.feed_counters[domain.slot], self.watch[domain.slot], self.ring_of[domain.slot] = 0, 0, -1
        self.session_of[slot], self.expected[slot], self.counters[slot] = domain.slot, -1, 0
        session = self.sessions[domain.slot]
        session.joined += 1
        if self.ring_of[domain.slot] < 0 and (several or session.joined > 1):
            self.ring_of[domain.slot] = self._new_ring()

    def _new_ring(self) -> int:
        free = np.flatnonzero(self.ring_n < 0)
        if len(free) == 0:
            free = np.array([len(self.ring_n)])
            size = max(4, 2 * len(self.ring_n))
            self.ring, self.ring_n = (
                _grown(self.ring, size),
                np.append(self.ring_n, np.full(size - len(self.ring_n), -1)),
            )
        self.ring_n[free[0]] = 0
        return int(free[0])

    def _reserve(self, session: int, line: int) -> None:
        if line >= len(self.expected):
            size = max(16, 2 * line)
            self.session_of, self.expected = _grown(self.session_of, size), _grown(self.expected, size)
            self.counters = _grown(self.counters, size)
        if session >= len(self.watch):
            size = max(8, 2 * session)
            self.feed_counters, self.watch = _grown(self.feed_counters, size), _grown(self.watch, size)
            self.ring_of = _grown(self.ring_of, size)

    def first_packet(
        self, session: Session, slot: int, name: bytes, first: int, cause: Cause, ts: int, resolution: int
    ) -> Line:
        """Begin to follow a line at its first packet."""
        start = session.start if session.start is not None and session.start <= 1 else first
        line = session.lines[slot] = Line(slot, name, start, cause, ts, resolution)
        self.expected[slot] = start
        self._watch_again(session)
        return line

    def started(self, session: Session, start: int, cause: Cause) -> None:
        """Take the session's first number; lines that began behind number 1 have missed what lies before."""
        session.start = start
        for line in session.lines.values():
            if start <= 1 and line.start > start:
                end, line.start = line.start, start
                self.open_gap(session, line, start, end, cause, line.opened_ns, line.resolution_ns)

    def close(self, session: Session, left: frozenset[bytes], end: int, cause: Cause) -> None:
        """Settle everything; lines that left for a later session have missed what they did not bring below `end`."""
        for line in session.lines.values():
            expected = int(self.expected[line.slot])
            if line.name in left and expected < end:
                self.open_gap(session, line, expected, end, cause, cause[0], line.resolution_ns)
                self.expected[line.slot] = end
        self.settle_all(session, cause)

    def settle_all(self, session: Session, cause: Cause) -> None:
        """Settle every open gap of a session."""
        for gap in [g for line in session.lines.values() for g in line.gaps] + session.gaps:
            self.settle(gap, cause)

    def drop(self, session: Session) -> None:
        """Forget a session whose gaps are settled and whose windows are closed."""
        for slot in session.lines:
            self.expected[slot], self.counters[slot] = -1, 0
        if self.ring_of[session.slot] >= 0:
            self.ring_n[self.ring_of[session.slot]] = -1
        del self.sessions[session.slot]

    # -- gaps ----------------------------------------------------------------------------------------------------------

    def open_gap(
        self, session: Session, line: Line | None, first: int, end: int, cause: Cause, ts: int, resolution: int
    ) -> None:
        """Open a gap [first, end) of a line, or of the feed; a gap that ends where it begins is extended."""
        gaps = session.gaps if line is None else line.gaps
        counters = self.feed_counters[session.slot] if line is None else self.counters[line.slot]
        counters[t.MISSING] += end - first
        if line is not None:
            line.missing.add(first, end)
            line.forget(self.gaps_max)
        if gaps and gaps[-1].end == first:
            gap = gaps[-1]
            gap.end, gap.revision = end, gap.revision + 1
        else:
            gap = self._new_gap(session, line, first, end, cause, ts, resolution)
            gaps.append(gap)
            counters[t.GAPS] += 1
        if line is not None:
            self._ask_others(session, line, gap, first, end)
            session.unresolved[gap.serial] = gap
            self._watch_again(session)
        self.rows.add(gap, session, self.name_of(session, gap), cause, gap.first, gap.end, OPEN)
        if len(gaps) > self.gaps_max:
            self.settle(gaps[0], cause)

    def _new_gap(
        self, session: Session, line: Line | None, first: int, end: int, cause: Cause, ts: int, resolution: int
    ) -> Gap:
        name = FEED_NAME if line is None else line.name
        gap_id = make_id("feed_quality/feed_gaps", self.run_id, session.feed, session.name, name, first, *cause)
        slot = FEED if line is None else line.slot
        gap = Gap(self.serials, gap_id, 0, slot, session.slot, first, end, cause, ts, resolution)
        self.gaps[gap.serial] = gap
        self.serials += 1
        if line is None and len(session.evidence) < EVIDENCE_MAX:
            session.evidence.append(gap_id.decode())
        return gap

    def _ask_others(self, session: Session, line: Line, gap: Gap, first: int, end: int) -> None:
        """Note what other lines delivered before the gap opened, with the time where it is still remembered."""
        ring = int(self.ring_of[session.slot])
        near = self.ring[ring, : self.ring_n[ring]] if ring >= 0 else self.ring[:0, 0]
        near = near[(near[:, t.RING_FIRST] < end) & (near[:, t.RING_END] > first)]
        for a, b, ts, of, _ in near[np.argsort(near[:, t.RING_TS], kind="stable")].tolist():  # the earliest counts
            other = session.lines.get(of)
            if of != line.slot and other is not None:
                gap.recover(max(a, first), min(b, end), ts, other.resolution_ns)
        for other in session.lines.values():
            if other is not line:
                for a, b in other.delivered(first, end, int(self.expected[other.slot])):
                    gap.recover(a, b, None, 0)

    def delivered(self, session: Session, by: Line, first: int, end: int, ts: int, resolution: int) -> None:
        """Note that a line delivered [first, end), for the gaps of the others."""
        noted = [g for g in session.unresolved.values() if g.line != by.slot and g.first < end and g.end > first]
        for gap in noted:
            gap.recover(first, end, ts, resolution)
        if noted:
            self._watch_again(session)

    def fill(self, session: Session, line: Line, first: int, end: int, cause: Cause, ts: int, resolution: int) -> None:
        """Note that a line delivered late what it had missed; a gap that it fills wholly is settled at once."""
        line.missing.remove(first, end)
        rest = end - first
        for gap in list(line.gaps):
            if gap.first < end and gap.end > first:
                gap.fill(first, end, ts, resolution)
                rest -= min(gap.end, end) - max(gap.first, first)
                if gap.is_filled:
                    self.settle(gap, cause)
        self.counters[line.slot, t.FILLED] += rest  # its gap was settled before
        self._watch_again(session)

    def fill_feed(self, session: Session, first: int, end: int, cause: Cause, ts: int, resolution: int) -> None:
        """Note that some line delivered what had been lost on all."""
        for gap in list(session.gaps):
            if gap.first < end and gap.end > first:
                gap.fill(first, end, ts, resolution)
                if gap.is_filled:
                    self.settle(gap, cause)

    def settle(self, gap: Gap, cause: Cause) -> None:
        """Write the pieces of a gap with their fates and forget it."""
        session = self.sessions[gap.domain]
        name = self.name_of(session, gap)
        del self.gaps[gap.serial]
        (session.gaps if gap.line == FEED else session.lines[gap.line].gaps).remove(gap)
        counters = self.feed_counters[session.slot] if gap.line == FEED else self.counters[gap.line]
        for nth, piece in enumerate(gap.pieces()):
            counters[COUNTED[piece.fate]] += piece.end - piece.first
            piece_id = None
            if nth > 0:
                piece_id = make_id("feed_quality/feed_gaps/piece", gap.id.decode(), piece.first)
            self.rows.add(gap, session, name, cause, piece.first, piece.end, piece.fate, piece, piece_id)
        if session.unresolved.pop(gap.serial, None) is not None:
            self._watch_again(session)

    def name_of(self, session: Session, gap: Gap) -> bytes:
        """Line name of a gap."""
        return FEED_NAME if gap.line == FEED else session.lines[gap.line].name

    def _watch_again(self, session: Session) -> None:
        """Set the range of numbers that some line misses and no line is known to have brought."""
        low, high = 0, 0
        for gap in list(session.unresolved.values()):
            unknown = gap.unknown()
            if not unknown:
                del session.unresolved[gap.serial]
                continue
            low, high = min(low, unknown[0][0]) if high else unknown[0][0], max(high, unknown[-1][1])
        self.watch[session.slot] = (low, high) if len(session.lines) > 1 else (0, 0)

    # -- state ---------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """The part of the state that is not arrays, as plain values."""
        return {
            "serials": self.serials,
            "sessions": [s.pack() for s in self.sessions.values()],
            "gaps": [g.pack() for g in self.gaps.values()],
        }

    def arrays(self) -> dict[str, Array]:
        """Copies of the arrays; of the ring only what is used."""
        used = [self.ring[r, : max(n, 0)] for r, n in enumerate(self.ring_n.tolist())]
        names = ("session_of", "expected", "counters", "feed_counters", "watch", "ring_of", "ring_n")
        made: dict[str, Array] = {name: getattr(self, name).copy() for name in names}
        return {**made, "ring": np.concatenate([np.zeros((0, 5), np.int64), *used])}

    def restore(self, tree: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Take over what `pack` and `arrays` gave."""
        for name, array in arrays.items():
            setattr(self, name, array.copy())
        self.ring = np.zeros((len(self.ring_n), t.RING_MAX, 5), np.int64)
        at = 0
        for r, n in enumerate(self.ring_n.tolist()):
            self.ring[r, : max(n, 0)] = arrays["ring"][at : at + max(n, 0)]
            at += max(n, 0)
        self.serials = tree["serials"]
        self.sessions = {s[1]: Session.unpack(s) for s in tree["sessions"]}
        self.gaps = {}
        for packed in tree["gaps"]:
            gap = Gap.unpack(packed)
            self.gaps[gap.serial] = gap
            session = self.sessions[gap.domain]
            (session.gaps if gap.line == FEED else session.lines[gap.line].gaps).append(gap)
            if gap.line != FEED and gap.unknown():
                session.unresolved[gap.serial] = gap


def _grown(array: Array, size: int) -> Array:
    made = np.zeros((size, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made
