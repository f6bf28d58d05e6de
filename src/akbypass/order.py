"""Order keys, identities and the merge below a watermark; knows rows, not Kafka."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from akbypass.kernel import kernel
from akbypass.numbering import Taken
from akbypass.rows import Array, Rows

END_NS = int(np.iinfo(np.int64).max)  # watermark of a source that has ended
START_NS = int(np.iinfo(np.int64).min) + 1  # watermark of a source that has not spoken
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bit

CAPTURE_TOPICS = ("packets", "feed_frames", "market_data", "orders", "captures", "rejected")

OrderKey = tuple[int, int, int, int]
BEFORE_ALL: OrderKey = (START_NS, -1, -1, -1)


@kernel
def _fnv1a(matrix: Any, out: Any, stop_at_nul: bool) -> None:
    """Continue the hashes `out` (n) over the bytes of `matrix` (n, width); NUL padding does not count for strings."""
    for i in range(matrix.shape[0]):
        h = out[i]
        for j in range(matrix.shape[1]):
            b = matrix[i, j]
            if stop_at_nul and b == 0:
                break
            h = (h ^ np.uint64(b)) * FNV_PRIME
        out[i] = h


@kernel
def _avalanche(h: Any) -> None:
    """Mix every bit of `h` into every other (the 64-bit finaliser of MurmurHash3)."""
    for i in range(h.shape[0]):
        x = h[i]
        x ^= x >> np.uint64(33)
        x *= np.uint64(0xFF51AFD7ED558CCD)
        x ^= x >> np.uint64(33)
        x *= np.uint64(0xC4CEB9FE1A85EC53)
        x ^= x >> np.uint64(33)
        h[i] = x


def hash_columns(*columns: Array) -> Array:
    """Hash rows of columns (strings, addresses, integers) to uint64, the same on every machine and in every batch."""
    out = np.full(len(columns[0]), FNV_OFFSET, np.uint64)
    for column in columns:
        array = np.ascontiguousarray(column)
        matrix = array.view(np.uint8).reshape(len(array), array.dtype.itemsize)
        _fnv1a(matrix, out, array.dtype.kind == "S")
        if array.dtype.kind == "S":  # a separator, so that ("ab", "c") and ("a", "bc") differ
            out *= FNV_PRIME
    _avalanche(out)
    return out


_HEX = np.array([f"{i:02x}".encode() for i in range(256)], "S2").view(np.uint16)


def hex_ids(hashes: Array) -> Array:
    """Write uint64 hashes as 16 hexadecimal digits (S16)."""
    digits = _HEX[hashes.astype(">u8").view(np.uint8)]
    return digits.view("S16").reshape(len(hashes))


def make_ids(topology: str, run_id: str, *columns: Array) -> Array:
    """Derive ids (S16) from the topology, the run and the columns that tell one cause from another."""
    n = len(columns[0])
    return hex_ids(hash_columns(np.full(n, topology.encode()), np.full(n, run_id.encode()), *columns))


def make_id(topology: str, run_id: str, *cause: int | str | bytes) -> bytes:
    """Derive one id from a cause, for a core that makes rows one by one; order and types of `cause` matter."""
    text = "\x1f".join(
        [topology, run_id, *(c.decode("ascii", "replace") if isinstance(c, bytes) else str(c) for c in cause)]
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest().encode()


def number_rows(rows: Rows, topology: str, run_id: str) -> Rows:
    """Sort a core's output by its cause and give it `sub` and, where the core set none, `id`.

    `rows` holds every row of its run_ns values (the merge releases whole nanoseconds), so the numbers do not
    depend on batches. Rows of one cause keep the order in which the core made them.
    """
    n = len(rows)
    if n == 0:
        return rows
    cause = ("run_ns", "capture_id", "capture_pos")
    if not rows.rises(cause):
        rows = rows.take(np.lexsort((np.arange(n), rows["capture_pos"], rows["capture_id"], rows["run_ns"])))
    same = np.ones(n, bool)
    same[0] = False
    for column in cause:
        same[1:] &= rows[column][1:] == rows[column][:-1]
    starts = np.flatnonzero(~same)
    sub = (np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))).astype(np.int32)
    rows = rows.with_columns(sub=sub)
    if not rows.schema.has_life:
        return rows
    ids = rows["id"]
    missing = ids == b""
    if missing.any():
        made = make_ids(f"{topology}/{rows.schema.name}", run_id, *(rows[k] for k in (*cause, "sub")))
        rows = rows.with_columns(id=np.where(missing, made, ids))
    return rows


@dataclass
class Source:
    """What one writer of one input has sent: rows not yet released, and how far it has spoken."""

    watermark_ns: int = START_NS
    end_ns: int | None = None
    last_key: OrderKey = BEFORE_ALL
    pending: list[tuple[int | None, Rows]] = field(default_factory=list)  # with the number of the first of them
    taken: Taken = field(default_factory=Taken)


@dataclass
class Released:
    """Rows below the watermark, sorted, by input; `end_ns` is set once, with the run's last rows."""

    rows: dict[str, Rows]
    watermark_ns: int
    end_ns: int | None


class Merge:
    """Merge the inputs of one partition of one run by order key below the smallest watermark.

    Rows at or below the last order key of their source are repeats and dropped (design rule 6); rows below what was
    released before a restart are dropped too, so a reader may be handed messages again from any earlier offset.
    Rows of one of several captures that are no repeats and lie below its own watermark are late: somebody has spoken for
    it while it was silent. So the log of one partition decides what is late, and never a clock or another input.
    """

    def __init__(
        self, inputs: Sequence[str], released_ns: int = START_NS, taken: Mapping[tuple[str, int], Taken] | None = None
    ) -> None:
        self.inputs = tuple(inputs)
        self._restored = dict(taken or {})  # what was counted before a restart, by input and source
        self.sources: dict[str, dict[int, Source]] = {name: {} for name in inputs}
        self.expected: dict[str, int] = {}
        self.released_ns = released_ns
        self.repeats = 0
        self.done = False

    def add(
        self, name: str, source: int, sources: int, rows: Rows | None, watermark_ns: int, end_ns: int | None,
        rows_before: int | None = None, last_key: OrderKey = BEFORE_ALL,
    ) -> Rows | None:  # fmt: skip
        """Take one batch of `source`, one of `sources` writers of the input `name`; returns its late rows, if any.

        `rows_before` are the rows that it sent to this partition before the batch (count); None when it did not say.
        `last_key` is that of rows that came before, for a batch without rows that stands for them.
        """
        self.expected[name] = sources
        state = self.sources[name].get(source)
        if state is None:
            state = self.sources[name][source] = Source(taken=self._restored.pop((name, source), Taken()))
        n, late = 0 if rows is None else len(rows), None
        state.last_key = max(state.last_key, last_key)
        if rows is not None and n:
            # others speak for one of several captures only; what topologies send again after a kill is never late
            spoken_for = sources > 1 and name in CAPTURE_TOPICS
            if spoken_for and int(rows["run_ns"][0]) < state.watermark_ns:
                late, rows = self._split_late(state, rows, rows_before)
            fresh = self._fresh(state, rows)
            if len(fresh):  # the last ones of the batch, as it is in order
                number = None if rows_before is None else rows_before + n - len(fresh)
                state.pending.append((number, fresh))
                state.last_key = key_at(fresh, -1)
        state.watermark_ns = max(state.watermark_ns, END_NS if end_ns is not None else watermark_ns)
        if end_ns is not None:
            state.end_ns = end_ns
            if rows_before is not None:
                state.taken.total = rows_before + n
        return late

    def _split_late(self, state: Source, rows: Rows, rows_before: int | None) -> tuple[Rows | None, Rows]:
        """Part rows into those that are late and the others, repeats among them."""
        stop = int(np.searchsorted(rows["run_ns"], state.watermark_ns, "left"))
        start = 0
        while start < stop and key_at(rows, start) <= state.last_key:
            start += 1
        if start == stop:
            return None, rows
        late = rows.take(slice(start, stop))
        state.taken.set_aside(None if rows_before is None else rows_before + start, stop - start)
        state.last_key = key_at(late, -1)
        self.repeats += start
        return late, rows.take(slice(stop, None))

    def _fresh(self, state: Source, rows: Rows) -> Rows:
        if not len(rows):
            return rows
        first, last = key_at(rows, 0), key_at(rows, -1)
        floor = (self.released_ns, -1, -1, -1)
        bar = max(state.last_key, floor)
        if first > bar:
            return rows
        if last <= state.last_key or last < floor:
            self.repeats += len(rows)
            return rows.take(slice(0, 0))
        keep = np.fromiter((key_at(rows, i) > bar for i in range(len(rows))), bool, len(rows))
        self.repeats += int(len(rows) - keep.sum())
        return rows.take(keep)

    def waiting_rows(self, name: str) -> int:
        """Rows of an input that wait for the other inputs (count); none while it waits for a source of its own."""
        if self.spoken_ns(name) <= self.watermark_ns():
            return 0
        return sum(len(rows) for s in self.sources[name].values() for _, rows in s.pending)

    def spoken_ns(self, name: str) -> int:
        """Smallest watermark of the sources of one input; START_NS while one has not spoken."""
        by = self.sources[name]
        if len(by) < self.expected.get(name, 1):
            return START_NS
        return min(s.watermark_ns for s in by.values())

    def watermark_ns(self) -> int:
        """Smallest watermark of all sources of all inputs."""
        return min(self.spoken_ns(name) for name in self.inputs)

    def release(self, until_ns: int = END_NS) -> Released | None:
        """Return the rows below the watermark, or below `until_ns` if that is less; None when it has not moved."""
        watermark = min(self.watermark_ns(), until_ns)
        if self.done or watermark <= self.released_ns:
            return None
        out = {name: rows for name in self.inputs if (rows := self._below(name, watermark)) is not None}
        end_ns = None
        if watermark == END_NS:
            every = [s for by in self.sources.values() for s in by.values()]
            end_ns = max(s.end_ns or START_NS for s in every)
            for state in every:
                state.taken.finish(end_ns)
            self.done = True
        self.released_ns = watermark
        return Released(out, watermark if end_ns is None else end_ns, end_ns)

    def _below(self, name: str, watermark_ns: int) -> Rows | None:
        """Take the rows of one input below the watermark, sorted; None when there are none."""
        ready: list[Rows] = []
        for _, state in sorted(self.sources[name].items()):
            keep: list[tuple[int | None, Rows]] = []
            for number, rows in state.pending:
                cut = len(rows)
                if watermark_ns != END_NS:
                    cut = int(np.searchsorted(rows["run_ns"], watermark_ns, "left"))
                if cut:
                    part = rows if cut == len(rows) else rows.take(slice(0, cut))
                    state.taken.take(number, part)
                    ready.append(part)
                if cut < len(rows):
                    rest = rows if cut == 0 else rows.take(slice(cut, None))
                    keep.append((None if number is None else number + cut, rest))
            state.pending = keep
        return Rows.concat(ready).sorted_by_order() if ready else None

    def taken(self) -> dict[tuple[str, int], Taken]:
        """What was released of every source's rows, by input and source."""
        return {(name, i): state.taken for name in self.inputs for i, state in sorted(self.sources[name].items())}


def key_at(rows: Rows, i: int) -> OrderKey:
    """Order key of one row."""
    return int(rows["run_ns"][i]), int(rows["capture_id"][i]), int(rows["capture_pos"][i]), int(rows["sub"][i])


def restrict(rows: Mapping[str, Rows], name: str, row_type: str) -> Rows:
    """Return the rows of one input, or none of its type."""
    found = rows.get(name)
    return Rows.empty(row_type) if found is None else found
