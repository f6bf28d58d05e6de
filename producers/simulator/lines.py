"""How a venue's packets come over lines A and B to the tap: delay, jitter, loss, duplicates, late ones; reads no payload.

A line delivers in order except for planned late packets. Faults lie in cells of packets, one fault a cell, so that
no two of them touch: what is missing in one cell is one gap. Only `both` loses packets on all lines.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from akbypass.producers.simulator import network
from akbypass.producers.simulator.day import MS, SECOND, VENUES, Plan
from akbypass.producers.simulator.draws import Draws
from akbypass.producers.simulator.exchange import Stream
from akbypass.producers.simulator.writer import Tape
from akbypass.rows import Array

LINES = ("A", "B")
CELL = 24  # packets that a fault has for itself; days with few packets use smaller cells
SERIAL_NS = 700  # a line puts no two frames closer than this
LATE_NS_MIN, LATE_NS_MAX = 600_000, 1_900 * MS  # late by more than any jitter, by less than a gap takes to settle
SETTLE_NS = 3 * SECOND  # nothing is late so near the end that its gap could still be open


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one line brought to the tap: `packet` (int64) is the index in the stream, `ts_ns` the time, in any order."""

    packet: Array
    ts_ns: Array


@dataclass(slots=True)
class Faults:
    """Planned faults of one feed, as packet indexes by line."""

    lost: dict[str, list[int]]
    doubled: dict[str, list[int]]
    late: dict[str, list[list[int]]]
    both: list[int]


def plan_faults(plan: Plan, venue: int, stream: Stream) -> Faults:
    """Choose faults: several of each kind on each line, and on one feed one loss on both lines."""
    draws = Draws(plan.seed, f"faults/{venue}")
    faults = Faults({"A": [], "B": []}, {"A": [], "B": []}, {"A": [], "B": []}, [])
    count = len(stream.sent_ns)
    cell = max(6, min(CELL, count // 60))
    free = list(range(2, count // cell - 2))  # neither the first packets nor the last ones
    quiet = bisect.bisect_left(stream.sent_ns, plan.quiet[0]) - 1
    faults.lost[draws.choice(LINES)].append(quiet)  # the tail before the silence: only a heartbeat tells
    _claim(free, quiet // cell)
    if venue == plan.lost_venue:
        first = bisect.bisect_left(stream.sent_ns, plan.lost_ns)
        faults.both = [first + 1, first + 2]
        faults.lost["A"] += range(first, first + 4)
        faults.lost["B"] += faults.both
        _claim(free, first // cell, (first + 4) // cell)
    for opening in stream.openings[::3]:  # an edge that waits for the other line's copy of the packet before it
        if opening // cell in free and stream.count[opening - 1] > 0:
            faults.lost["A"].append(opening - 1)
            _claim(free, opening // cell)
    latest = bisect.bisect_left(stream.sent_ns, max(plan.end_ns - SETTLE_NS, plan.quiet[0])) // cell
    draws.rng.shuffle(free)
    for k in range(min(len(free) // 2, max(8, count // 700))):
        line, kind = LINES[k % 2], k // 2 % 4
        early = next((c for c in free if c < latest), None) if kind == 2 else None
        mine = free.pop() if early is None else free.pop(free.index(early))
        first = mine * cell + 1 + draws.below(cell - 5)
        if early is not None:
            faults.late[line].append(list(range(first, first + 1 + draws.below(2))))
        elif kind in (1, 2):
            faults.doubled[line].append(first)
        else:
            faults.lost[line] += range(first, first + 1 + draws.below(4))
    return faults


def _claim(free: list[int], *cells: int) -> None:
    """Take cells, and their neighbours, out of those for further faults."""
    for c in cells:
        for near in (c - 1, c, c + 1):
            if near in free:
                free.remove(near)


def deliver(plan: Plan, venue: int, stream: Stream, faults: Faults) -> dict[str, Delivery]:
    """Carry a stream over both lines."""
    draws = Draws(plan.seed, f"lines/{venue}")
    sent = np.array(stream.sent_ns)
    deliveries = {}
    for line, (behind, jitter_ns) in zip(LINES, ((0, 2_500), (22_000, 7_000)), strict=True):
        delay = VENUES[venue].delay_ns + behind + draws.rng.gamma(2.0, jitter_ns, len(sent)).astype(np.int64)
        swap = draws.rng.random(len(sent)) < 0.04
        delay -= np.where(swap, behind + 4_000, 0)  # so that line B is the first one now and then
        serial = np.arange(len(sent)) * SERIAL_NS
        ts = np.maximum.accumulate(sent + delay - serial) + serial
        again = np.array(faults.doubled[line], np.int64)
        copies = ts[again] + draws.rng.integers(1_000, 60_000, len(again))
        for group in faults.late[line]:
            after = ts[group[-1] + 1] + LATE_NS_MIN  # behind the next one: else it would not be late
            ts[group] += max(draws.log_between(LATE_NS_MIN, _late_max(plan)), int(after - ts[group[0]]))
        kept = np.ones(len(sent), bool)
        kept[faults.lost[line]] = False
        index = np.concatenate([np.flatnonzero(kept), again])
        deliveries[line] = Delivery(index, np.concatenate([ts[kept], copies]))
    return deliveries


def _late_max(plan: Plan) -> int:
    return min(LATE_NS_MAX, int(plan.seconds * SECOND) // 20)


def tape(venue: int, line: str, stream: Stream, delivery: Delivery, sums: Array) -> Tape:
    """Write the frames of one line; copies have IP ids of their own, as what a sender sends twice has."""
    payloads = [stream.payload[i] for i in delivery.packet.tolist()]
    source, group = VENUES[venue].sources[line], VENUES[venue].groups[line]
    idents = np.arange(len(payloads)) + 1_000
    return Tape(delivery.ts_ns, network.udp_frames(source, group, idents, payloads, sums[delivery.packet]))
