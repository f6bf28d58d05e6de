"""What a core fails at is set aside, and the rest gives the rows that it gives without; whatever the cuts and restarts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass.config import Config, Rejects
from akbypass.order import START_NS
from akbypass.rows import ORDER, Array, Rows
from akbypass.topology import CoreError, Topology, TopologyPartition
from tests.spine.test_progress import TOY, RunningSum

POISON = -7  # a length at which the core fails
TIMER = -8  # a length after which a timer fails, 5 ns later
AT_END = -9  # a length after which the end fails


class Fussy(RunningSum):
    """A running sum that fails at some lengths, or later because of them; its state must survive a failure half-way."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        super().__init__(config, run_id, partition)
        self.due_ns = 0
        self.broken = False

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Change the state row by row and fail in the middle."""
        rows = inputs.get("packets")
        for i in range(0 if rows is None else len(rows)):
            assert rows is not None
            self._timer(int(rows["run_ns"][i]) + 1)
            length = int(rows["wire_length"][i])
            if length == POISON:
                self.total += 1_000_000
                raise ZeroDivisionError("poison")
            if length == TIMER:
                self.due_ns = int(rows["run_ns"][i]) + 5
            self.broken |= length == AT_END
        self._timer(watermark_ns)
        if end and self.broken:
            raise IndexError("at the end")
        return super().step(inputs, watermark_ns, end)

    def _timer(self, now_ns: int) -> None:
        if 0 < self.due_ns < now_ns:
            raise KeyError("timer")

    def snapshot(self) -> dict[str, Array]:
        """Everything."""
        return super().snapshot() | {"due": np.array([self.due_ns, self.broken])}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Everything."""
        super().restore(state)
        self.due_ns, self.broken = int(state["due"][0]), bool(state["due"][1])


FUSSY = dataclasses.replace(TOY, name="fussy", make_core=Fussy)


def packets(lengths: list[int], times: list[int]) -> Rows:
    """Packets of these lengths at these times, in order."""
    n = len(lengths)
    return Rows.build(
        "packets", n, run_ns=np.array(sorted(times), np.int64), capture_pos=np.arange(n), wire_length=np.array(lengths, np.int32)
    )  # fmt: skip


def drive(topology: Topology, rows: Rows, cuts: list[int], config: Config, restart_at: int = -1) -> TopologyPartition:
    """Feed rows in these cuts to a careful partition that may be restarted after one of them; `made` are its rows."""
    partition = TopologyPartition(topology, config, 0)
    partition.careful = True
    made: list[dict[str, object]] = []
    aside = []
    edges = [0, *sorted(cuts), len(rows)]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = rows.take(slice(start, stop))
        last = stop == len(rows)
        watermark = int(rows["run_ns"][stop]) if not last else int(rows["run_ns"][-1])
        end = watermark + 20 if last else None
        for topic, sent in (("packets", part), ("orders", None)):
            partition.add(topic, "r1", 0, 1, sent if sent is not None and len(sent) else None, watermark, end)
        for emission in partition.advance():
            made += emission.rows["verdicts"].to_dicts() if "verdicts" in emission.rows else []
        aside += partition.aside
        if number == restart_at and not last:
            arrays, released = partition.snapshot()
            again = TopologyPartition(topology, config, 0)
            again.careful = True
            again.restore(arrays, released, partition.ended)
            for topic in ("packets", "orders"):
                again.add(topic, "r1", 0, 1, None, watermark, None)
            read = rows.take(slice(0, stop))
            waiting = read.take(read["run_ns"] >= released.get("r1", START_NS))
            if len(waiting):
                again.add("packets", "r1", 0, 1, waiting, watermark, None)
            partition = again
        else:
            partition.aside = []
    partition.aside, partition.made = aside, made  # type: ignore[attr-defined]
    return partition


def keys(rows: Rows) -> list[tuple[int, ...]]:
    """Order keys."""
    return [tuple(int(rows[k][i]) for k in ORDER) for i in range(len(rows))]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rest_is_as_if_poison_had_never_been(data: st.DataObject) -> None:
    """However the rows are cut, exactly the poison rows are set aside and the others give what they give alone."""
    times = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    lengths = data.draw(st.lists(st.sampled_from([1, 5, 9, POISON]), min_size=len(times), max_size=len(times)))
    rows = packets(lengths, times)
    cuts = data.draw(st.lists(st.integers(1, len(times)), max_size=4, unique=True))
    restart = data.draw(st.integers(-1, 3))
    found = drive(FUSSY, rows, [c for c in cuts if c < len(times)], Config(), restart)
    poison = rows["wire_length"] == POISON
    assert [key for a in found.aside for r in a.rows.values() for key in keys(r)] == keys(rows.take(poison))
    clean = rows.take(~poison)
    made: list[dict[str, object]] = found.made  # type: ignore[attr-defined]
    sums = np.cumsum(clean["wire_length"]).tolist()
    assert [(r["run_ns"], r["capture_pos"], r["priority"]) for r in made] == [
        (int(clean["run_ns"][i]), int(clean["capture_pos"][i]), sums[i]) for i in range(len(clean))
    ]
    assert "r1" in found.ended


def test_first_failure_is_raised() -> None:
    """Without care a failure is an error that names run, partition and time, and has its cause."""
    partition = TopologyPartition(FUSSY, Config(), 3)
    partition.add("packets", "r1", 0, 1, packets([1, POISON], [4, 8]), 9, None)
    partition.add("orders", "r1", 0, 1, None, 9, None)
    with pytest.raises(CoreError, match=r"run r1, partition 3, between .* and 9 ns: ZeroDivisionError") as caught:
        partition.advance()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("cuts", [[], [1, 2], [3]])
@pytest.mark.parametrize(
    ("length", "taken", "error"), [(TIMER, 2, "KeyError: 'timer'"), (AT_END, 4, "IndexError: at the end")]
)
def test_where_no_row_is_to_blame_the_run_is_given_up(
    length: int, taken: int, error: str, cuts: list[int]
) -> None:  # fmt: skip
    """A timer or the end that fails takes the run's rest with it: it says nothing more, ends, and counts what it left."""
    rows = packets([1, length, 3, 4], [10, 11, 30, 40])
    found = drive(FUSSY, rows, cuts, Config())
    assert [(a.rows, a.error) for a in found.aside] == [({}, error)]
    assert len(found.made) == taken  # type: ignore[attr-defined]
    assert "r1" in found.ended


def test_too_many_rows_to_blame() -> None:
    """At the limit the run is given up, also when it was half used before a restart."""
    config = Config(rejects=Rejects(core_rows_max=2))
    rows = packets([POISON, 1, POISON, 2, POISON, 3, 4], [1, 2, 3, 4, 5, 6, 7])
    for restart in (-1, 1):
        found = drive(FUSSY, rows, [2, 4, 6], config, restart)
        assert [len(a.rows) for a in found.aside] == [1, 1, 0]
        assert [r["priority"] for r in found.made] == [1, 3]  # type: ignore[attr-defined]
        assert "r1" in found.ended


def test_a_failure_that_does_not_come_again_sets_nothing_aside() -> None:
    """A core that fails once and then passes from the same state loses no row."""
    failures = iter([True])

    class Shaky(RunningSum):
        def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
            if next(failures, False):
                self.total += 1
                raise OSError("cosmic ray")
            return super().step(inputs, watermark_ns, end)

    found = drive(dataclasses.replace(TOY, make_core=Shaky), packets([1, 2], [1, 2]), [], Config())
    assert found.aside == []
    assert [r["priority"] for r in found.made] == [1, 3]  # type: ignore[attr-defined]


def test_rows_of_one_time_that_fail_only_together() -> None:
    """Where no single row is to blame, all of the nanosecond are set aside."""

    class NoTwo(RunningSum):
        def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
            rows = inputs.get("packets")
            if rows is not None and (np.unique(rows["run_ns"], return_counts=True)[1] > 1).any():
                raise ValueError("two at once")
            return super().step(inputs, watermark_ns, end)

    topology = dataclasses.replace(TOY, make_core=NoTwo)
    three = drive(topology, packets([1, 2, 3, 4], [1, 5, 5, 5]), [], Config())
    assert [len(a.rows["packets"]) for a in three.aside] == [3]
    two = drive(topology, packets([1, 2, 3, 4], [1, 5, 5, 6]), [], Config())
    assert [len(a.rows["packets"]) for a in two.aside] == [1]
