"""What may be acknowledged, and that a restart from any point gives the same rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass import checkpoint
from akbypass.batch import Batch
from akbypass.config import Config
from akbypass.progress import LostMessagesError, Progress
from akbypass.rows import Array, Rows
from akbypass.topology import Topology, TopologyPartition


class RunningSum:
    """A core whose every output depends on all input before it."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self.total = 0

    @property
    def counters(self) -> Mapping[str, int]:
        """Nothing is set aside."""
        return {}

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Emit one verdict a packet with the running sum of lengths as its priority."""
        rows = inputs.get("packets")
        if rows is None:
            return {}
        sums = self.total + np.cumsum(rows["wire_length"])
        self.total = int(sums[-1])
        keys = {k: rows[k] for k in ("run_ns", "capture_id", "capture_pos", "src_ip", "dst_ip", "src_port", "dst_port")}
        return {"verdicts": Rows.build("verdicts", len(rows), **keys, priority=sums.astype(np.int32))}

    def snapshot(self) -> dict[str, Array]:
        """The sum."""
        return {"total": np.array([self.total])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """The sum."""
        self.total = int(state["total"][0])


TOY = Topology("toy", 1, ("packets", "orders"), ("verdicts",), RunningSum)


def messages() -> list[tuple[str, int, Batch]]:
    """(topic, offset, batch): packets of two captures, orders empty, watermarks of both, ends."""
    made: list[tuple[str, int, Batch]] = []
    offsets = {"packets": 0, "orders": 0}

    def put(topic: str, source: int, rows: Rows | None, watermark: int, end: int | None) -> None:
        made.append((topic, offsets[topic], Batch(topic, "r1", source, 2, rows, watermark, end)))
        offsets[topic] += 1

    for k in range(6):
        for source in range(2):
            run_ns = np.arange(k * 10 + source, k * 10 + 10, 3)
            n = len(run_ns)
            rows = Rows.build(
                "packets", n, run_ns=run_ns, capture_id=source, capture_pos=run_ns * 100, wire_length=np.full(n, 5 + source)
            )  # fmt: skip
            end = 61 if k == 5 else None
            put("packets", source, rows, int(run_ns[-1]), end)
            put("orders", source, None, int(run_ns[-1]), end)
    return made


def run(crashes: set[int], save_every: int) -> list[dict[str, object]]:
    """Feed all messages; at each crash start anew from the last save. Rows that come again must be identical."""
    saved: tuple[list[memoryview], dict[str, object]] | None = None
    out: dict[str, dict[str, object]] = {}
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    queue, at, count = messages(), 0, 0
    while at < len(queue):
        topic, offset, made = queue[at]
        progress.take(topic, offset, made, (topic, offset))
        at, count = at + 1, count + 1
        for emission in progress.partition.advance():
            for row in emission.rows["verdicts"].to_dicts() if "verdicts" in emission.rows else []:
                assert out.setdefault(str(row["id"]), row) == row
        if count % save_every == 0:
            progress.settle()
            arrays, released = progress.partition.snapshot()
            saved = checkpoint.pack(arrays), dict(progress.meta(released))
        if count in crashes:
            progress = Progress(TopologyPartition(TOY, Config(), 0))
            if saved is not None:
                progress.restore(saved[1], checkpoint.unpack(saved[0]))
            starts = progress.next_offset
            queue, at = [m for m in messages() if m[1] >= starts.get(m[0], 0)], 0
    return sorted(out.values(), key=lambda r: (r["run_ns"], r["capture_id"], r["sub"]))  # type: ignore[arg-type, return-value]


def test_whole_run_emits_every_packet() -> None:
    """Without a crash every packet has its verdict and the sums run on."""
    rows = run(set(), 5)
    assert [r["run_ns"] for r in rows] == sorted(int(t) for _, _, b in messages() if b.rows for t in b.rows["run_ns"])
    assert rows[-1]["priority"] == sum(int(b.rows["wire_length"].sum()) for _, _, b in messages() if b.rows)


@settings(max_examples=80, deadline=None)
@given(st.sets(st.integers(1, 60), max_size=4), st.integers(1, 9))
def test_crashes_change_nothing(crashes: set[int], save_every: int) -> None:
    """Crashes anywhere, with saves of any age, give the same rows with the same values."""
    assert run(crashes, save_every) == run(set(), 5)


def test_offsets_move_over_done_messages_only() -> None:
    """A message whose rows wait for another source is not acknowledged."""
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    queue = messages()
    progress.take(*queue[0], "first")
    progress.partition.advance()
    assert progress.settle() == []
    for message in queue[1:]:
        progress.take(*message, "later")
    progress.partition.advance()
    assert progress.settle()[0] in ("first", "later")
    assert progress.next_offset == {"packets": 12, "orders": 12}


def test_repeated_offsets_are_ignored() -> None:
    """The same message twice counts once."""
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    message = messages()[0]
    assert progress.take(*message, None)
    assert not progress.take(*message, None)


def test_a_hole_in_the_offsets_is_a_fault() -> None:
    """A message that is not the next one stops the reader; what retention took is counted at the start."""
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    queue = messages()
    progress.take(*queue[0], None)
    with pytest.raises(LostMessagesError, match="packets: expected offset 1, found 2"):
        progress.take(*queue[4], None)
    late = Progress(TopologyPartition(TOY, Config(), 0), next_offset={"packets": 3})
    assert (late.begin("packets", 5), late.begin("orders", 7)) == (2, 0)
    assert late.next_offset == {"packets": 5, "orders": 7}


def test_a_run_that_its_source_left_is_given_up() -> None:
    """After silence a run without an end no longer holds offsets back; captured again it begins anew."""
    progress = Progress(TopologyPartition(TOY, Config(), 0))
    queue = messages()
    for message in queue[:6]:
        progress.take(*message, "token", 10.0)
    progress.partition.advance()
    assert progress.settle() == ["token"] * 3  # those without rows; the rows at the watermark wait
    assert progress.abandon(100.0, 900.0) == []
    assert progress.abandon(1000.0, 900.0) == ["r1"]
    assert progress.settle() == ["token"] * 3
    assert progress.next_offset == {"packets": 3, "orders": 3}
    assert progress.partition.snapshot()[1] == {}
