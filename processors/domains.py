"""What arbitration keeps of a session, and what it tells about it; the rule itself is in sequencing.py."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from akbypass.processors.intervals import Range, Ranges
from akbypass.rows import Array

Cause = tuple[int, int, int]  # run_ns, capture_id, capture_pos
Hole = tuple[int, int, Cause]  # first, end, what opened it


@dataclass(slots=True, eq=False)
class Domain:
    """One session of a feed; `state` is waiting (for its start), open or closed."""

    serial: int
    slot: int
    feed: bytes
    venue: bytes
    session: bytes
    state: str
    due_ns: int  # when a waiting domain starts
    cause: Cause  # the frame that made it
    start: int = 0
    next: int = 0
    top: int = 0
    lines: dict[bytes, int] = field(default_factory=dict)  # line → line slot
    left: set[bytes] = field(default_factory=set)  # lines that speak in a later session
    holes: list[Hole] = field(default_factory=list)  # first, end, opened
    held: list[tuple[int, int, int]] = field(default_factory=list)  # first, end, frame number
    held_count: int = 0
    lost: Ranges = field(default_factory=Ranges)
    closed_ns: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a domain. `at`: it applies before frame `at` of the step.

    kind    joined (a line speaks in it for the first time; first = its line slot), started (first = its start), lost,
            late (first, end: the range), moved (a line left another session for it; first = its line slot),
            closed (end = its `next`), dropped (its slots are forgotten, and used again in a later step)
    before  segments filled before it
    left    of a closed domain, the lines that speak in a later session
    """

    kind: str
    at: int
    cause: Cause
    domain: Domain
    first: int
    end: int
    before: int
    left: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Arbitrated:
    """One step's frames, judged. Arrays have one entry per frame.

    slot         line slot (an index that lives until the line's domain is dropped), −1 for an ignored frame
    fresh_count  numbers that no line had brought before and that are not late; they begin at fresh_first and end with
                 the frame, but where fresh_first is −1 `firsts` has them by frame, the late ones with them
    copies       numbers that some line had brought before
    late         numbers that had been declared lost
    segments     (m, 6) what was released, in order: frame number, first, end, cause
    """

    slot: Array
    fresh_first: Array
    fresh_count: Array
    copies: Array
    late: Array
    segments: Array
    events: list[Event]
    number: int  # frame number of the first frame
    firsts: dict[int, list[Range]] = field(default_factory=dict)


def fill(holes: list[Hole], first: int, end: int) -> list[Range]:
    """Take [first, end) out of the holes and return what was in them."""
    if not holes or end <= holes[0][0] or first >= holes[-1][1]:
        return []
    at = max(0, bisect_right(holes, first, key=itemgetter(0)) - 1)
    keep: list[Hole] = []
    parts: list[Range] = []
    stop = at
    while stop < len(holes) and holes[stop][0] < end:
        a, b, opened = holes[stop]
        if max(a, first) < min(b, end):
            parts.append((max(a, first), min(b, end)))
            keep += [(x, y, opened) for x, y in ((a, min(b, first)), (max(a, end), b)) if x < y]
        else:
            keep.append(holes[stop])
        stop += 1
    holes[at:stop] = keep
    return parts


def text(value: bytes) -> str:
    """A name from the wire as text; encode("latin-1") takes it back."""
    return value.decode("latin-1")


def pack(domain: Domain) -> list[Any]:
    """As plain values, for a snapshot."""
    return [
        domain.serial, domain.slot, text(domain.feed), text(domain.venue), text(domain.session), domain.state,
        domain.due_ns, domain.cause, domain.start, domain.next, domain.top,
        [[text(k), v] for k, v in domain.lines.items()], sorted(text(x) for x in domain.left),
        domain.holes, domain.held, domain.held_count, domain.lost.ranges, domain.closed_ns,
    ]  # fmt: skip


def unpack(packed: list[Any]) -> Domain:
    """From plain values."""
    serial, slot, feed, venue, session, state, due, cause, start, following, top = packed[:11]
    lines, left, holes, held, held_count, lost, closed = packed[11:]
    return Domain(
        serial, slot, feed.encode("latin-1"), venue.encode("latin-1"), session.encode("latin-1"), state, due, tuple(cause),
        start, following, top, {k.encode("latin-1"): v for k, v in lines}, {x.encode("latin-1") for x in left},
        [(a, b, tuple(c)) for a, b, c in holes], [tuple(h) for h in held], held_count,
        Ranges([(a, b) for a, b in lost]), closed,
    )  # fmt: skip
