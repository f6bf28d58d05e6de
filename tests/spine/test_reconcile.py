"""The balance of a run, by hand-made counts: what holds, what is lost where, and what is merely under way."""

from __future__ import annotations

from typing import Any

from akbypass.reconcile import Evidence, Line, Reader, balance, rows_lost

LINE = Line(2, {"filtering": ("verdicts",)}, [Reader("filtering", ("packets",))], frozenset({"captures"}))


def account(stage: str, number: int, direction: str, topic: str, rows: int, **changed: Any) -> dict[str, Any]:
    """A ledger row."""
    made = {
        "stage": stage,
        "number": number,
        "direction": direction,
        "topic": topic,
        "rows": rows,
        "lost": 0,
        "until_ns": 9,
    }
    return made | {"ended": True} | changed


def evidence(**changed: Any) -> Evidence:
    """A run of one capture: 12 frames, 2 of them no IP; 10 packets in two partitions; 3 verdicts, stored."""
    known: dict[str, Any] = {
        "run_id": "r1",
        "captures": {0: {"point": "tap", "packets": 12, "published": 10, "feed_messages": 0, "order_messages": 0,
                         "rejected": 0, "dropped_not_ip": 2, "dropped_kernel": 0}},
        "accounts": [
            account("capture", 0, "out", "packets", 10),
            account("filtering", 0, "in", "packets", 6), account("filtering", 1, "in", "packets", 4),
            account("filtering", 0, "out", "verdicts", 1), account("filtering", 1, "out", "verdicts", 2),
        ],
        "stored": {("clickhouse", "verdicts"): 3}, "ends": {("clickhouse", "verdicts"): 4},
        "ends_wanted": {("clickhouse", "verdicts"): 4},
    }  # fmt: skip
    return Evidence(**(known | changed))


def with_account(number: int, **changed: Any) -> list[Any]:
    """The accounts with one of them changed."""
    rows = list(evidence().accounts)
    rows[number] = rows[number] | changed
    return rows


def test_a_whole_run_balances() -> None:
    """Every hop holds; frames that were dropped for a reason are no loss."""
    found = balance(LINE, evidence())
    assert (found.state, found.holds, found.open) == ("balanced", True, False)
    assert [(h.kind, h.topic, h.expected, h.found, h.drops) for h in found.hops] == [
        ("captured", "", 12, 10, {"dropped_not_ip": 2}), ("published", "packets", 10, 10, {}),
        ("taken", "packets", 10, 10, {}), ("stored", "verdicts", 3, 3, {}),
    ]  # fmt: skip
    assert rows_lost([found]) == {}


def test_the_hop_that_lost_rows_is_named() -> None:
    """Rows that a topology did not get, and rows that a table does not have, count for the hop that lost them."""
    found = balance(LINE, evidence(accounts=with_account(1, rows=1, lost=5), stored={("clickhouse", "verdicts"): 1}))
    assert found.state == "unbalanced"
    assert [(h.kind, h.lost) for h in found.hops if h.lost] == [("taken", 5), ("stored", 2)]
    assert rows_lost([found, found]) == {
        ("taken", "packets", "filtering"): 10, ("stored", "verdicts", "clickhouse"): 4,
    }  # fmt: skip


def test_rows_that_count_twice_are_no_balance() -> None:
    """More rows in a table than were handed on is as wrong as fewer."""
    found = balance(LINE, evidence(stored={("clickhouse", "verdicts"): 4}))
    assert (found.state, [h.extra for h in found.hops]) == ("unbalanced", [0, 0, 0, 1])


def test_frames_without_a_reason_are_lost() -> None:
    """A frame that was seen, and neither published nor dropped for a reason, is found; so is a row nobody accounts for."""
    sums = dict(evidence().captures[0]) | {"packets": 13, "published": 11}
    found = balance(LINE, evidence(captures={0: sums}))
    assert [(h.kind, h.lost) for h in found.hops[:2]] == [("captured", 0), ("published", 1)]
    found = balance(LINE, evidence(captures={0: sums | {"published": 10}}))
    assert [(h.kind, h.lost) for h in found.hops[:2]] == [("captured", 1), ("published", 0)]


def test_what_is_under_way_is_not_lost() -> None:
    """While anybody on a hop has not ended the run, a difference says nothing; what a reader itself missed does."""
    going_on = balance(LINE, evidence(accounts=with_account(1, rows=1, ended=False), ends={}))
    assert (going_on.state, going_on.holds) == ("open", True)
    assert [h.open for h in going_on.hops] == [False, False, True, True]
    told = balance(LINE, evidence(accounts=with_account(1, rows=1, lost=2, ended=False)))
    assert (told.state, told.open, [h.lost for h in told.hops]) == ("unbalanced", True, [0, 0, 2, 0])
    later = balance(LINE, evidence(ends={}, ends_wanted={("clickhouse", "captures"): 1}))  # drops may still come
    assert [h.open for h in later.hops] == [True, True, True]
    other = balance(LINE, evidence(sources=2))  # a second capture has not stated its account
    assert [h.open for h in other.hops] == [False, False, True, False]


def test_counted_drops_are_no_loss() -> None:
    """Rows that a full spool dropped, and rows set aside as dead letters, explain a difference exactly."""
    sums = dict(evidence().captures[0]) | {"dropped_spool_packets": 3}
    found = balance(LINE, evidence(
        captures={0: sums}, letters={("filtering", "packets"): 2, ("clickhouse", "verdicts"): 1},
        accounts=with_account(1, rows=1, lost=5), stored={("clickhouse", "verdicts"): 2},
    ))  # fmt: skip
    assert found.state == "balanced"
    assert [h.drops for h in found.hops[2:]] == [{"spool_full": 3, "rejected": 2}, {"rejected": 1}]


def test_rows_for_everybody_are_expected_in_every_partition() -> None:
    """A topic whose rows go to all partitions is taken once in each, and stored once."""
    line = Line(2, {"merge": ()}, [Reader("merge", ("captures",))], frozenset({"captures"}))
    rows = [account("capture", 0, "out", "captures", 4), *(account("merge", p, "in", "captures", 4) for p in range(2))]
    wanted = {("clickhouse", "captures"): 1}
    stored = {("clickhouse", "captures"): 4}
    found = balance(line, evidence(captures={}, accounts=rows, stored=stored, ends=wanted, ends_wanted=wanted))
    assert [(h.kind, h.expected, h.found) for h in found.hops] == [("taken", 8, 8), ("stored", 4, 4)]
    assert found.state == "balanced"
