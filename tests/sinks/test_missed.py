"""Messages that retention took before a sink had them are counted by their offsets, and reach the ledger."""

from __future__ import annotations

from akbypass.sinks.clickhouse.missed import Missed
from akbypass.telemetry.metrics import LOST


def test_a_jump_in_the_offsets_is_what_retention_took() -> None:
    """Counted from the committed offset on, once; a partition that was never read, and one read again, miss nothing."""
    missed = Missed("clickhouse")
    missed.begin({("latency", 0): 5, ("latency", 1): -1001})
    assert missed.seen("latency", 1, 100) is None
    found = missed.seen("latency", 0, 8)
    assert found is not None
    (row,) = found[1].to_dicts()
    assert {k: row[k] for k in ("stage", "topic", "number", "messages_lost", "direction")} == {
        "stage": "sink.clickhouse", "topic": "latency", "number": 0, "messages_lost": 3, "direction": "in",
    }  # fmt: skip
    assert LOST.labels("clickhouse", "latency")._value.get() == 3
    assert missed.seen("latency", 0, 9) is None
    missed.begin({("latency", 0): 8})
    assert missed.seen("latency", 0, 8) is None


def test_a_loss_that_is_told_again_is_the_same_row() -> None:
    """A sink that dies before it commits finds at least as much missing: the same id, a revision that is not lower."""
    rows = []
    for offset in (8, 11):
        missed = Missed("clickhouse")
        missed.begin({("latency", 0): 5})
        found = missed.seen("latency", 0, offset)
        assert found is not None
        rows.append((found[0], found[1].to_dicts()[0]))
    (first_run, first), (second_run, second) = rows
    assert (first_run, first["id"]) == (second_run, second["id"])
    assert (first["revision"], second["revision"], second["messages_lost"]) == (3, 6, 6)
