"""Kernels that count packets per line and measure which line leads; they know no gaps and open no windows.

The lead of a line is measured per packet: a packet that brings nothing new to the feed is paired with the packet by
which another line brought the same number first. `ring` remembers those first arrivals per session, ascending.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.kernel import kernel

# Columns of the counters of a line's window (counts; RESOLUTION: the coarsest stamp, ns).
(PACKETS, MESSAGES, BYTES, LARGE, HEARTBEATS, FIRST, COPIES, DUPLICATES, GAPS, MISSING, RECOVERED, FILLED, LOST, RESETS,
 UNSAMPLED, RESOLUTION) = range(16)  # fmt: skip
COUNTERS = 16
RING_MAX = 2_048  # first arrivals remembered per session; half are kept when it is full
RING_FIRST, RING_END, RING_TS, RING_LINE, RING_PAIRED = range(5)
HEARTBEAT = 1  # ordinal of feed_frames.kind heartbeat


@kernel
def remember(ring: Any, ring_n: Any, d: Any, first: Any, end: Any, ts: Any, line: Any) -> None:
    """Insert a first arrival in order of its number; almost always it is the highest."""
    n = ring_n[d]
    if n == ring.shape[1]:
        half = n // 2
        for k in range(half):
            for c in range(5):
                ring[d, k, c] = ring[d, n - half + k, c]
        n = half
    at = n
    while at > 0 and ring[d, at - 1, 0] > first:
        for c in range(5):
            ring[d, at, c] = ring[d, at - 1, c]
        at -= 1
    ring[d, at, 0], ring[d, at, 1], ring[d, at, 2], ring[d, at, 3], ring[d, at, 4] = first, end, ts, line, 0
    ring_n[d] = n + 1


@kernel
def _find(ring: Any, ring_n: Any, d: Any, number: Any) -> Any:
    """Index of the first arrival that brought `number`, −1 when it is not remembered."""
    low, high = 0, ring_n[d]
    while low < high:
        middle = (low + high) // 2
        if ring[d, middle, 0] <= number:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > 0 and ring[d, low - 1, 1] > number else -1


@kernel
def tally(
    i: int, limit: int, one_new: int, forced: bool,
    slot: Any, kind: Any, first: Any, count: Any, ts: Any, resolution: Any, wire: Any, large_bytes: int,
    fresh_first: Any, fresh_count: Any, copies: Any, line_domain: Any, expected: Any, watch: Any, ring_of: Any,
    counters: Any, ring: Any, ring_n: Any, samples: Any, filled: int,
) -> tuple[int, int]:  # fmt: skip
    """Count frames i, i+1, … and sample leads; returns where it stopped and the samples filled.

    Stops at a frame that its line did not expect, that brings numbers that another line misses (`watch`), or whose
    first arrivals are not one range (fresh_first −1; the caller then gives them to `remember`). With `forced` it counts
    just frame i, whose first number that is new on its line is `one_new` (−1: none).
    """
    while i < limit:
        line = slot[i]
        if line < 0:
            i += 1
            continue
        d = line_domain[line]
        a = first[i]
        n = np.int64(count[i]) if kind[i] == 0 else np.int64(0)
        new = a if n > 0 else np.int64(-1)
        if forced:
            new = np.int64(one_new)
        elif expected[line] != a or fresh_first[i] < 0 or (a < watch[d, 1] and a + n > watch[d, 0]):
            break
        else:
            expected[line] = a + n
        counters[line, 0] += 1
        counters[line, 1] += n
        counters[line, 2] += wire[i]
        counters[line, 3] += wire[i] > large_bytes
        counters[line, 4] += kind[i] == 1
        counters[line, 5] += fresh_count[i]
        counters[line, 6] += copies[i]
        counters[line, 15] = max(counters[line, 15], np.int64(resolution[i]))
        r = ring_of[d]
        if new >= 0 and r >= 0:
            if fresh_count[i] == 0 or fresh_first[i] < 0 or new < fresh_first[i]:
                k = _find(ring, ring_n, r, new)
                if k >= 0 and ring[r, k, 3] != line:
                    if filled + 2 > len(samples):
                        counters[line, 14] += 1
                    else:
                        lead = ts[i] - ring[r, k, 2]
                        samples[filled, 0], samples[filled, 1] = line, -lead
                        filled += 1
                        if ring[r, k, 4] == 0:
                            samples[filled, 0], samples[filled, 1] = ring[r, k, 3], lead
                            filled += 1
                        ring[r, k, 4] = 1
            if fresh_count[i] > 0 and fresh_first[i] >= 0:
                remember(ring, ring_n, r, fresh_first[i], a + n, ts[i], line)
        i += 1
        if forced:
            break
    return i, filled
