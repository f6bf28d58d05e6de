"""What a capture point counted, per second of event time, as captures rows; counts, and decides nothing.

A second is over when a frame of a later one arrives; its row carries that frame's order key, so that it stands behind
everything already announced. The last second's row stands at the end of the capture. The rows add up exactly to the
totals.
"""

from __future__ import annotations

import numpy as np

from akbypass.order import OrderKey
from akbypass.producers.capture import layers
from akbypass.producers.capture.headers import ParsedFrames
from akbypass.producers.frames import FrameBatch
from akbypass.producers.spool.degrade import Lost
from akbypass.rows import Array, Rows

SECOND_NS = 1_000_000_000
OF_FRAMES = (
    "packets", "bytes", "captured_bytes", "published", "dropped_not_ip", "dropped_malformed", "dropped_link", "truncated",
    "dropped_duplicate",
)  # fmt: skip
OF_ROWS = ("fragments", "feed_messages", "order_messages", "rejected")
COUNTERS = (*OF_FRAMES, *OF_ROWS, "dropped_kernel")
MESSAGES = {
    "market_data": "feed_messages",
    "orders": "order_messages",
    "rejected": "rejected",
}  # rows that count as one each


class Seconds:
    """Counters of one capture; `totals` (count or bytes, by name) includes the second that is still open."""

    def __init__(self, capture_id: int, *, point: str, source: str, clock_source: str) -> None:
        self.totals = dict.fromkeys(COUNTERS, 0)
        self._same = {
            "capture_id": capture_id,
            "point": point.encode(),
            "source": source,
            "clock": clock_source.encode(),
        }
        self._second: int | None = None  # the open one, in seconds since the UNIX epoch
        self._counts = np.zeros(len(COUNTERS), np.int64)
        self._resolution = 0
        self._kernel_drops = 0

    def add(self, frames: FrameBatch, parsed: ParsedFrames, rows: dict[str, Rows], kernel_drops: int) -> Rows:
        """Count a batch of at least one frame with the rows made of it; returns the rows of the seconds that are over.

        Args:
            frames: The frames.
            parsed: What became of them.
            rows: Rows of market_data, orders and rejected.
            kernel_drops: Frames dropped since the capture began (count).
        """
        second = parsed.run_ns // SECOND_NS
        starts = np.concatenate([[0], np.flatnonzero(second[1:] != second[:-1]) + 1])
        seconds = second[starts]
        counts = np.zeros((len(COUNTERS), len(starts)), np.int64)
        counts[: len(OF_FRAMES)] = np.add.reduceat(_of_frames(frames, parsed.status), starts, axis=1)
        self._count_rows(counts, seconds, rows | {"packets": parsed.packets.packets})
        resolution = np.maximum.reduceat(frames.resolution_ns, starts)
        self.totals = {name: self.totals[name] + int(counts[i].sum()) for i, name in enumerate(COUNTERS)}
        at = starts
        if self._second == seconds[0]:
            counts[:, 0] += self._counts
            resolution[0] = max(int(resolution[0]), self._resolution)
        elif self._second is not None:
            seconds, at = np.concatenate([[self._second], seconds]), np.concatenate([[0], at])
            counts = np.concatenate([self._counts[:, None], counts], axis=1)
            resolution = np.concatenate([[self._resolution], resolution])
        counts[COUNTERS.index("dropped_kernel"), 0] += self._new_drops(kernel_drops)
        self._second, self._counts, self._resolution = int(seconds[-1]), counts[:, -1].copy(), int(resolution[-1])
        return self._rows(seconds[:-1], counts[:, :-1], resolution[:-1], parsed.run_ns[at[1:]], frames.position[at[1:]])

    def finish(self, run_ns: int, position: int, rows: dict[str, Rows], kernel_drops: int) -> Rows:
        """Count what the end brought and return the row of the last second; none when there never was a frame."""
        if self._second is None:
            return Rows.empty("captures")
        seconds = np.array([self._second])
        counts = np.zeros((len(COUNTERS), 1), np.int64)
        self._count_rows(counts, seconds, rows)
        self.totals = {name: self.totals[name] + int(counts[i, 0]) for i, name in enumerate(COUNTERS)}
        counts[COUNTERS.index("dropped_kernel"), 0] += self._new_drops(kernel_drops)
        counts[:, 0] += self._counts
        return self._rows(seconds, counts, np.array([self._resolution]), np.array([run_ns]), np.array([position]))

    def lost(self, lost: Lost, key: OrderKey) -> Rows:
        """The row, with this order key, about rows that were dropped behind the capture."""
        same = self._same
        return Rows.build(
            "captures", 1, run_ns=key[0], capture_id=key[1], capture_pos=key[2], ts_start_ns=lost.first_ns,
            ts_end_ns=lost.last_ns + 1, ts_resolution_ns=self._resolution, point=same["point"], source=[same["source"]],
            clock_source=same["clock"], **{f"dropped_spool_{topic}": n for topic, n in lost.rows.items()},
        )  # fmt: skip

    def _new_drops(self, kernel_drops: int) -> int:
        new = kernel_drops - self._kernel_drops
        self._kernel_drops = kernel_drops
        self.totals["dropped_kernel"] += new
        return new

    def _count_rows(self, counts: Array, seconds: Array, rows: dict[str, Rows]) -> None:
        for topic, counter in MESSAGES.items():
            if topic in rows:
                counts[COUNTERS.index(counter)] += _per_second(rows[topic]["run_ns"], seconds)
        if "packets" in rows:
            packets = rows["packets"]
            fragments = packets["ip_more_fragments"] | (packets["ip_fragment_offset"] > 0)
            counts[COUNTERS.index("fragments")] += _per_second(packets["run_ns"][fragments], seconds)

    def _rows(self, seconds: Array, counts: Array, resolution: Array, run_ns: Array, position: Array) -> Rows:
        same = self._same
        return Rows.build(
            "captures", len(seconds), run_ns=run_ns, capture_id=same["capture_id"], capture_pos=position,
            ts_start_ns=seconds * SECOND_NS, ts_end_ns=(seconds + 1) * SECOND_NS, ts_resolution_ns=resolution,
            point=np.full(len(seconds), same["point"]), source=[same["source"]] * len(seconds),
            clock_source=np.full(len(seconds), same["clock"]), **{name: counts[i] for i, name in enumerate(COUNTERS)},
        )  # fmt: skip


def _of_frames(frames: FrameBatch, status: Array) -> Array:
    made = np.empty((len(OF_FRAMES), len(frames)), np.int64)
    made[0] = 1
    made[1], made[2] = frames.wire_length, frames.captured_length
    made[3], made[4] = status == layers.PACKET, status == layers.NOT_IP
    made[5], made[6] = status > layers.LINK_UNKNOWN, status == layers.LINK_UNKNOWN
    made[7] = frames.captured_length < frames.wire_length
    made[8] = status == layers.COPY
    return made


def _per_second(run_ns: Array, seconds: Array) -> Array:
    # A decoder's row belongs to the second of its cause, at the earliest to the first one still open.
    index = np.maximum(np.searchsorted(seconds, run_ns // SECOND_NS, "right") - 1, 0)
    return np.bincount(index, minlength=len(seconds))
