"""Answers to order requests and the life of orders, against dialogues written by hand."""

from __future__ import annotations

from typing import Any

from akbypass.config import Config, parse
from akbypass.processors.latency.topology import TOPOLOGY
from tests.processors.latency.messages import UNIT, Dialogue
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.wire import Wire, at


def run(dialogue: Dialogue) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Latency and order_events rows."""
    made = drive(TOPOLOGY, Config(), {"orders": dialogue.orders()})
    return made["latency"].to_dicts(), made["order_events"].to_dicts()


def delays(dialogue: Dialogue) -> list[tuple[str, str, str, float]]:
    """(kind, ClOrdID, outcome, delay in ms) of each latency row."""
    return [(r["kind"], r["cl_ord_id"], r["outcome"], r["value_ns"] / 1e6) for r in run(dialogue)[0]]


def states(dialogue: Dialogue) -> list[tuple[str, str, float]]:
    """(kind, state after it, filled quantity) of each order event."""
    return [(r["kind"], r["state"], r["filled_quantity_nanos"] / UNIT) for r in run(dialogue)[1]]


def test_first_report_ends_the_delay_whatever_it_says() -> None:
    """Accepted, rejected, pending and immediately filled orders: the first report decides the outcome, once."""
    d = Dialogue()
    for ms, name in enumerate("abcd"):
        d.say(ms, "new", name, quantity=100)
    d.say(10, "ack", "a")
    d.say(11, "reject", "b")
    d.say(12, "pending", "c")
    d.say(13, "ack", "c")
    d.say(14, "fill", "d", last=100, cum=100, leaves=0)
    assert delays(d) == [
        ("order_ack", "a", "accepted", 10),
        ("order_ack", "b", "rejected", 10),
        ("order_ack", "c", "pending", 10),
        ("order_ack", "d", "accepted", 11),
        ("order_fill", "d", "filled", 11),
    ]


def test_the_clock_runs_from_first_byte_to_last_byte() -> None:
    """A request over two packets counts from its first, an answer to its last; the row is the answer's frame."""
    d = Dialogue()
    d.say(5, "new", "a", first_ms=3, quantity=1)
    d.say(9, "ack", "a", first_ms=8)
    row = run(d)[0][0]
    assert (row["value_ns"], row["ts_start_ns"], row["ts_capture_ns"], row["capture_pos"]) == (
        6_000_000,
        at(3),
        at(9),
        124,
    )
    assert (row["u_ns"], row["n"], row["lost_n"], row["leg"], row["symbol"]) == (1_000, 1, 0, "none", "ABC")
    assert (row["src_ip"], row["dst_ip"], row["dst_port"]) == ("10.0.0.5", "198.51.100.10", 4_001)


def test_cancel_and_replace_are_matched_by_their_own_id() -> None:
    """Tag 11 of the report is the request's id and 41 the order's; a refusal and a pending are answers as well."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=100, price=10)
    d.say(1, "ack", "a")
    d.say(2, "replace", "b", "a", quantity=150, price=11)
    d.say(5, "replaced", "b", "a")
    d.say(6, "cancel", "c", "b")
    d.say(7, "cancel_reject", "c", "b")
    d.say(8, "cancel", "e", "b")
    d.say(9, "pending", "e", "b")
    d.say(12, "canceled", "e", "b")
    assert delays(d) == [
        ("order_ack", "a", "accepted", 1),
        ("replace_ack", "b", "replaced", 3),
        ("cancel_ack", "c", "rejected", 1),
        ("cancel_ack", "e", "pending", 1),
    ]


def test_an_order_keeps_its_key_over_replaces() -> None:
    """One key for all ids of a chain; terms change when the venue says so; the first fill is measured from the new order."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=100, price=10)
    d.say(1, "ack", "a")
    d.say(2, "replace", "b", "a", quantity=150, price=11)
    d.say(3, "replaced", "b", "a", symbol="")
    d.say(4, "fill", "b", last=60)
    d.say(5, "fill", "b", last=90)
    latency, events = run(d)
    assert len({e["order_key"] for e in events}) == 1
    assert [(e["price_nanos"] or 0) / UNIT for e in events] == [10, 10, 10, 11, 11, 11]
    assert [e["symbol"] for e in events] == ["ABC"] * 6
    assert [(e["kind"], e["delay_ns"]) for e in events][3:] == [
        ("replaced", 1_000_000), ("fill", 4_000_000), ("fill", 5_000_000),
    ]  # fmt: skip
    assert [(r["kind"], r["cl_ord_id"], r["value_ns"]) for r in latency][-1] == ("order_fill", "a", 4_000_000)
    assert states(d) == [
        ("new", "pending", 0), ("ack", "open", 0), ("replace", "open", 0), ("replaced", "open", 0),
        ("fill", "partially_filled", 60), ("fill", "filled", 150),
    ]  # fmt: skip


def test_states_follow_the_reports() -> None:
    """Reject, cancel after a partial fill, bust, and a venue that says the total instead of the last quantity."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=10)
    d.say(1, "reject", "a")
    d.say(2, "new", "b", quantity=10)
    d.say(3, "fill", "b", cum=4, leaves=6)
    d.say(4, "canceled", "x", "b")
    d.say(5, "new", "c", quantity=10)
    d.say(6, "fill", "c", last=10)
    d.say(7, "bust", "c", last=10)
    d.say(8, "status", "c", status="4")
    assert states(d) == [
        ("new", "pending", 0), ("reject", "rejected", 0),
        ("new", "pending", 0), ("fill", "partially_filled", 4), ("canceled", "canceled", 4),
        ("new", "pending", 0), ("fill", "filled", 10), ("bust", "open", 0), ("status", "canceled", 0),
    ]  # fmt: skip


def test_sessions_and_generations_do_not_mix() -> None:
    """The same ClOrdID in two sessions is two orders; used again after its order ended it is a new order."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=1)
    d.say(1, "new", "a", quantity=1, session="XNAS/OTHER/XNAS")
    d.say(2, "ack", "a", session="XNAS/OTHER/XNAS")
    d.say(3, "reject", "a")
    d.say(4, "new", "a", quantity=1)
    d.say(6, "ack", "a")
    assert [r[3] for r in delays(d)] == [1, 3, 2]
    keys = [e["order_key"] for e in run(d)[1]]
    assert [keys.index(k) for k in keys] == [0, 1, 1, 0, 4, 4]


def test_repeats_are_ignored_and_counted() -> None:
    """Possible duplicates change nothing; a request sent again under its id does not restart the clock."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=1)
    d.say(1, "new", "a", quantity=1)
    d.say(2, "ack", "a", poss_dup=True)
    d.say(3, "ack", "a")
    d.say(4, "ack", "")
    assert delays(d) == [("order_ack", "a", "accepted", 3)]
    core = TOPOLOGY.make_core(Config(), "run", 0)
    core.step({"orders": d.orders()}, at(9), False)
    assert {k: v for k, v in core.counters.items() if v} == {"possible_duplicates": 1, "without_id": 1}  # type: ignore[attr-defined]


def test_an_order_from_before_the_capture_is_followed_without_delay() -> None:
    """A fill of an unknown order has a key and a state, but no delay."""
    d = Dialogue()
    d.say(0, "fill", "a", last=5, cum=5, leaves=5)
    d.say(1, "fill", "a", last=5, cum=10, leaves=0)
    latency, events = run(d)
    assert latency == [] and [(e["state"], e["delay_ns"]) for e in events] == [
        ("partially_filled", None),
        ("filled", None),
    ]
    assert events[0]["order_key"] == events[1]["order_key"]


def test_state_is_bounded_and_drops_are_counted() -> None:
    """Above orders_max the oldest unanswered request goes, and of the orders first one that has ended."""
    d = Dialogue()
    d.say(0, "new", "open", quantity=1)
    d.say(1, "ack", "open")
    d.say(2, "new", "done", quantity=1)
    d.say(3, "reject", "done")
    for i in range(1_001):
        d.say(10 + i, "new", f"n{i}", quantity=1)
    d.say(2_000, "ack", "n0")  # its request was dropped, and its order: done, open and n0 made room for 1,003 − 1,000
    d.say(2_001, "ack", "n1")  # its order made room for n0's second life, and n2's now makes room for this one
    core = TOPOLOGY.make_core(parse("thresholds: {orders_max: 1000}"), "run", 0)
    made = core.step({"orders": d.orders()}, at(3_000), False)
    assert [r["cl_ord_id"] for r in made["latency"].to_dicts()] == ["open", "done", "n1"]
    assert {k: v for k, v in core.counters.items() if v} == {"requests_dropped": 1, "orders_dropped": 5}  # type: ignore[attr-defined]


def test_rows_of_one_frame_have_ids_of_their_own() -> None:
    """A packet's round trip and two answers in the same frame are three rows with three ids, whatever the partition."""
    d = Dialogue()
    d.say(0, "new", "a", quantity=1)
    d.say(0, "new", "b", quantity=1)
    d.say(2, "ack", "a")
    d.say(2, "fill", "b", last=1)
    wire = Wire()
    wire.packet(0, ("10.0.0.5", 40_000), ("198.51.100.10", 4_001), "PA", seq=1, ack=1, size=90)
    wire.packet(2, ("198.51.100.10", 4_001), ("10.0.0.5", 40_000), "PA", seq=1, ack=91, size=90)
    together = drive(TOPOLOGY, Config(), {"packets": wire.packets(), "orders": d.orders()})
    apart = [drive(TOPOLOGY, Config(), i) for i in ({"packets": wire.packets()}, {"orders": d.orders()})]
    ids = {r["id"] for r in together["latency"].to_dicts()}
    assert len(ids) == 4 and ids == {r["id"] for part in apart for r in part["latency"].to_dicts()}


def test_cuts_and_checkpoints_change_nothing() -> None:
    """Rows per step and restarts from a snapshot change no delay, key or state, with requests and orders being dropped."""
    d = Dialogue()
    for i in range(400):
        d.say(i, "new", f"n{i}", quantity=10, price=i)
        if i % 3 == 0:
            d.say(i + 0.25, "replace", f"r{i}", f"n{i}", quantity=20, price=i + 1)
            d.say(i + 0.5, "replaced", f"r{i}", f"n{i}")
        if i % 5 == 0:
            d.say(i + 0.5, "fill", f"n{max(0, i - 7)}", last=5)
    config = Config.model_construct(
        **{**dict(Config()), "thresholds": Config().thresholds.model_copy(update={"orders_max": 50})}
    )
    made = assert_cut_invariant(TOPOLOGY, config, {"orders": d.orders()})
    assert len(made["latency"]) > 150
