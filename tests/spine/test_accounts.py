"""What is counted of the rows on a hop: exactly what never came, once, whatever is cut, repeated or restarted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akbypass import batch, processors
from akbypass.accounts import Accounts, is_due
from akbypass.batch import Batch, BatchError
from akbypass.emitter import ORDINALS_MAX, account_source
from akbypass.numbering import Taken
from akbypass.order import START_NS, Merge
from akbypass.rows import Rows

MINUTE_NS = 60_000_000_000


def packets(numbers: list[int]) -> Rows:
    """One row for each number, a microsecond apart."""
    n = len(numbers)
    return Rows.build("packets", n, run_ns=np.array(numbers, np.int64) * 1000, capture_pos=np.array(numbers, np.int64))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_row_that_never_came_is_counted(data: st.DataObject) -> None:
    """Messages of a run vanish, come twice, and the reader restarts from its counts: taken and lost add up exactly."""
    cuts = sorted(data.draw(st.sets(st.integers(1, 59), max_size=12)))
    pieces = [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]
    gone = data.draw(st.sets(st.integers(0, len(pieces) - 1)))
    merge = Merge(["packets"])
    taken = 0
    for i, piece in enumerate(pieces):
        if i in gone:
            continue
        for _ in range(data.draw(st.integers(1, 2))):
            merge.add("packets", 0, 1, packets(piece), piece[-1] * 1000, None, piece[0])
        released = merge.release()
        taken += len(released.rows.get("packets", [])) if released else 0
        if data.draw(st.booleans()):  # restart: what waits comes again
            known = {key: Taken(*found.pack()) for key, found in merge.taken().items()}
            merge = Merge(["packets"], merge.released_ns, known)
            merge.add("packets", 0, 1, packets(piece), piece[-1] * 1000, None, piece[0])
    merge.add("packets", 0, 1, None, 60_000, 60_000, 60)
    last = merge.release()
    assert last is not None
    found = merge.taken()["packets", 0]
    assert (
        found.rows
        == taken + len(last.rows.get("packets", []))
        == sum(len(piece) for i, piece in enumerate(pieces) if i not in gone)
    )
    assert found.lost == 60 - found.rows
    assert found.total == 60


def test_a_loss_has_a_time_range() -> None:
    """The range runs from the row before the first loss to the row behind the last, or to the end."""
    taken = Taken()
    taken.take(0, packets([0, 1]))
    taken.take(5, packets([5, 6]))
    assert (taken.rows, taken.lost, taken.lost_from_ns, taken.lost_to_ns) == (4, 3, 1000, 5000)
    taken.total = 10
    taken.finish(99_000)
    assert (taken.rows, taken.lost, taken.lost_from_ns, taken.lost_to_ns) == (4, 6, 1000, 99_000)


def test_rows_without_numbers_are_not_lost() -> None:
    """A writer that does not number its rows is counted, and nothing is said to be missing."""
    merge = Merge(["packets"])
    merge.add("packets", 0, 1, packets([0, 7]), 7000, 8000)
    merge.release()
    assert (merge.taken()["packets", 0].rows, merge.taken()["packets", 0].lost) == (2, 0)


@pytest.mark.parametrize("topic", ["packets", "alerts.loss"])
def test_messages_carry_the_numbers_of_their_rows(topic: str) -> None:
    """However a batch is cut into messages, each names the number of its first row; the end has that of the run."""
    rows = packets(list(range(10)))
    if topic != "packets":
        rows = Rows.build("alerts", 10, run_ns=np.arange(10), id=np.array([b"%d" % i for i in range(10)]), entity=b"e",
                          description=["d"] * 10)  # fmt: skip
    sent = Batch(topic, "r1", 0, 1, rows, 10_000, 10_000, rows_before=100)
    messages = list(batch.encode(sent, 3, 1 << 20))
    found = [batch.decode(topic, m.value, m.headers) for m in messages]
    assert [b.rows_before for b in found] == list(
        np.cumsum([100, *(0 if b.rows is None else len(b.rows) for b in found[:-1])])
    )
    last = found[-1]
    assert (last.rows_before or 0) + (0 if last.rows is None else len(last.rows)) == 110
    with pytest.raises(BatchError, match="numbered from 0"):
        batch.decode(topic, messages[0].value, [*messages[0].headers[:-1], ("rows_before", b"-1")])


def test_accounts_are_stated_by_the_minute_and_at_the_end() -> None:
    """Nothing before the first watermark, then when a full minute of event time has passed."""
    assert [is_due(a, b) for a, b in ((START_NS, MINUTE_NS), (1, 2), (MINUTE_NS - 1, MINUTE_NS))] == [
        False,
        False,
        True,
    ]
    accounts = Accounts("r1", "latency", 2, ("latency",))
    taken = {("packets", 0): Taken(position=7)}
    assert accounts.advance({}, taken, 1, 2, False) == {}
    first = accounts.advance({"latency": packets([1, 2, 3])}, taken, 1, MINUTE_NS + 5, False)["ledger"].to_dicts()
    last = accounts.advance({"latency": packets([4])}, taken, MINUTE_NS + 5, MINUTE_NS + 9, True)["ledger"].to_dicts()
    assert [(r["direction"], r["topic"], r["rows"], r["ended"]) for r in (*first, *last)] == [
        ("in", "packets", 7, False), ("out", "latency", 3, False), ("in", "packets", 7, True), ("out", "latency", 4, True),
    ]  # fmt: skip
    assert [r["id"] for r in first] == [r["id"] for r in last]
    assert [r["revision"] for r in (first[0], last[0])] == [1, 2]
    assert len({(r["run_ns"], r["capture_pos"], r["sub"]) for r in (*first, *last)}) == 4


def test_a_loss_is_told_once_and_settled_at_the_end() -> None:
    """One alert when the first loss is found, its last revision with the whole count; a restart does not tell it again."""
    accounts = Accounts("r1", "latency", 2, ())
    lost = {("packets", 0): Taken(position=7, lost=3)}
    (first,) = accounts.advance({}, lost, 1, 2, False)["alerts.loss"].to_dicts()
    assert (first["kind"], first["value"], first["unit"], first["entity"]) == (
        "loss",
        3.0,
        "rows",
        "packets to latency[2]",
    )
    more = {("packets", 0): Taken(position=9, lost=4)}
    assert accounts.advance({}, more, 2, 3, False) == {}
    assert accounts.losses == {"packets": 4}
    again = Accounts("r1", "latency", 2, ())
    assert again.restore(accounts.pack(more)) == more
    assert again.advance({}, more, 3, 4, False) == {}
    (last,) = again.advance({}, more, 4, 5, True)["alerts.loss"].to_dicts()
    assert (last["id"], last["revision"], last["value"]) == (first["id"], 1, 4.0)
    assert again.losses.total() == 0


def test_accounts_of_all_topologies_have_sources_of_their_own() -> None:
    """No two partitions of topologies, and no capture, share a source of the topic ledger."""
    topologies = processors.all_topologies()
    sources = {account_source(t, p) for t in topologies for p in (0, 1, 1023)}
    assert len(sources) == 3 * len(topologies)
    assert 1024 <= min(sources) <= max(sources) < batch.SOURCES_MAX
    assert max(t.ordinal for t in topologies) < ORDINALS_MAX
