"""Late rows: what somebody promised for a silent source is kept to, and the log alone decides what came too late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass import checkpoint
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.numbering import Taken
from akbypass.order import END_NS, Merge
from akbypass.progress import Progress
from akbypass.rows import Rows
from akbypass.topology import TopologyPartition
from tests.spine.test_progress import TOY


def packets(run_ns: list[int], source: int) -> Rows:
    """Packets rows at these times; positions tell rows of one time apart."""
    n = len(run_ns)
    return Rows.build(
        "packets", n, run_ns=np.array(run_ns, np.int64), capture_id=source, capture_pos=np.array(run_ns) * 10 + 1, wire_length=np.full(n, 1)
    )  # fmt: skip


def times(rows: Rows | None) -> list[int]:
    """run_ns of each row."""
    return [] if rows is None else rows["run_ns"].tolist()


def test_rows_below_what_was_said_for_their_source_are_late() -> None:
    """A source comes back behind a watermark that was spoken for it: rows below are late, at it and above not."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 2, packets([1, 5, 9], 0), 9, None, 0)
    merge.add("packets", 1, 2, packets([2], 1), 3, None, 0)
    merge.add("packets", 1, 2, None, 8, None)  # spoken for it
    late = merge.add("packets", 1, 2, packets([4, 7, 8, 9], 1), 9, None, 1)
    assert times(late) == [4, 7]
    released = merge.release()
    assert released is not None
    assert times(released.rows["packets"]) == [1, 2, 5, 8]
    assert (merge.repeats, merge.taken()["packets", 1].lost) == (0, 0)


def test_repeats_are_not_late() -> None:
    """A source that says everything again is repeating, also what was late the first time."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 2, packets([1], 0), 50, None)
    merge.add("packets", 1, 2, packets([2], 1), 3, None)
    merge.add("packets", 1, 2, None, 8, None)
    assert times(merge.add("packets", 1, 2, packets([2, 4, 7, 9], 1), 9, None)) == [4, 7]
    assert merge.add("packets", 1, 2, packets([2, 4, 7, 9], 1), 9, None) is None
    assert merge.repeats == 5
    assert times(merge.add("packets", 1, 2, packets([7, 8], 1), 9, None)) == []


def test_late_rows_are_not_lost() -> None:
    """Rows that came late count neither as taken nor as lost; those that never came count as lost."""
    taken = Taken()
    taken.take(0, packets([1, 2], 0))
    taken.set_aside(2, 3)
    taken.set_aside(4, 2)  # one of them said twice
    taken.set_aside(None, 9)
    again = Taken(*taken.pack())  # type: ignore[arg-type]
    for one in (taken, again):
        one.take(8, packets([9], 0))
        assert (one.rows, one.lost, one.aside, one.position) == (3, 2, 4, 9)


@dataclass
class Line:
    """The log of one partition: packets of two captures, one of which is silent for a while and spoken for."""

    messages: list[Batch]
    late: list[int]


def recorded(data: st.DataObject) -> Line:
    """A log in any interleaving that keeps each source's order."""
    cut = data.draw(st.integers(2, 30))
    promised = data.draw(st.integers(cut, 60))
    own = sorted(data.draw(st.sets(st.integers(1, 80), min_size=2, max_size=25)))
    silent = [Batch("packets", "r1", 1, 2, None, promised, None)]
    before = [t for t in own if t < cut]
    after = [t for t in own if t >= cut]
    speech = [*said(before, 1, cut), *silent, *said(after, 1, 90, 100)]
    other = said(sorted(data.draw(st.sets(st.integers(1, 80), min_size=1, max_size=25))), 0, 90, 100)
    merged = []
    while speech or other:
        take = speech if not other or (speech and data.draw(st.booleans())) else other
        merged.append(take.pop(0))
    return Line(merged, [t for t in after if t < promised])


def said(run_ns: list[int], source: int, watermark: int, end: int | None = None) -> list[Batch]:
    """One message a row, then the watermark or the end."""
    made = [Batch("packets", "r1", source, 2, packets([t], source), t, None) for t in run_ns]
    return [*made, Batch("packets", "r1", source, 2, None, watermark, end)]


def drive(messages: list[Batch], step: int, crashes: set[int], save_every: int) -> tuple[list[object], list[int]]:
    """Read a log, with crashes, from the last save; returns the rows made and what was late, each once."""
    made: dict[str, object] = {}
    late: dict[int, int] = {}
    saved: tuple[list[memoryview], dict[str, object]] | None = None
    progress, at, count = Progress(TopologyPartition(TOY, Config(), 0)), 0, 0
    orders = [Batch("orders", "r1", s, 2, None, END_NS, 100) for s in range(2)]
    for offset, batch in enumerate(orders):
        progress.take("orders", offset, batch, None)
    while at < len(messages):
        progress.take("packets", at, messages[at], None)
        for found in progress.late:
            late |= dict.fromkeys(times(found.rows), at)
        progress.late = []
        at, count = at + 1, count + 1
        if count % step == 0 or at == len(messages):
            for emission in progress.partition.advance():
                made |= (
                    {r["id"]: r for r in emission.rows["verdicts"].to_dicts()} if "verdicts" in emission.rows else {}
                )
        if count % save_every == 0:
            progress.settle()
            arrays, released = progress.partition.snapshot()
            saved = checkpoint.pack(arrays), dict(progress.meta(released))
        if count in crashes:
            progress = Progress(TopologyPartition(TOY, Config(), 0))
            if saved is not None:
                progress.restore(saved[1], checkpoint.unpack(saved[0]))
            for offset in range(progress.next_offset.get("orders", 0), 2):
                progress.take("orders", offset, orders[offset], None)
            at = progress.next_offset.get("packets", 0)
    return [made[k] for k in sorted(made)], sorted(late)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_log_alone_decides(data: st.DataObject) -> None:
    """However a recorded log is read, with any steps, saves and crashes, the same rows are late and the others the same."""
    line = recorded(data)
    rows, late = drive(line.messages, 1, set(), 1_000)
    assert late == line.late
    step, save_every = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    crashes = data.draw(st.sets(st.integers(1, 60), max_size=3))
    assert drive(line.messages, step, crashes, save_every) == (rows, late)
    in_time = [
        t for b in line.messages if b.rows is not None for t in times(b.rows) if not (b.source == 1 and t in late)
    ]
    assert len(rows) == len(in_time)


def test_rows_after_an_end_that_was_spoken_are_late() -> None:
    """A run ended without its silent capture: what comes of it then is late, what it had sent before is a repeat."""
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    log = [*said([1, 5], 0, 90, 100), *said([2], 1, 3), Batch("packets", "r1", 1, 2, None, END_NS, 100)]
    for offset, batch in enumerate([Batch("orders", "r1", s, 2, None, END_NS, 100) for s in range(2)]):
        progress.take("orders", offset, batch, None)
    for offset, batch in enumerate(log):
        progress.take("packets", offset, batch, None)
    progress.partition.advance()
    assert "r1" in progress.partition.ended
    progress.settle()
    arrays, released = progress.partition.snapshot()
    again = Progress(TopologyPartition(TOY, Config(), 0))
    again.restore(progress.meta(released), arrays)
    for reader in (progress, again):
        for number in range(2):
            offset = len(log) + number
            reader.take("packets", offset, Batch("packets", "r1", 1, 2, packets([2, 4, 7], 1), 7, None), None)
        assert [(late.source, times(late.rows)) for late in reader.late] == [(1, [4, 7])]


def test_rows_of_a_topology_that_come_again_are_never_late() -> None:
    """A message of a topology that was sent again after a kill, behind a watermark, is a matter of order keys alone."""
    merge = Merge(["quotes"])
    merge.add("quotes", 0, 4, None, 50, None)
    assert merge.add("quotes", 0, 4, Rows.build("quotes", 2, run_ns=np.array([10, 20])), 50, None) is None
