"""Rows that a full spool dropped, as captures rows tell, reach what was measured meanwhile, however steps are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from akbypass.config import Config
from akbypass.processors import losses
from akbypass.processors.filtering.topology import TOPOLOGY as FILTERING
from akbypass.processors.latency.topology import LATENCY_WINDOWS
from akbypass.processors.latency.topology import TOPOLOGY as LATENCY
from akbypass.processors.losses import Losses
from akbypass.rows import Rows
from tests.processors.latency.messages import Dialogue
from tests.processors.support import assert_cut_invariant
from tests.processors.wire import Wire, at

Loss = tuple[float, float, float, int, int]  # told at ms, from ms to ms, packets, orders


def told(*lost: Loss) -> Rows:
    """Captures rows about losses, behind every frame of their time; one about nothing stands between them."""
    n = len(lost)
    quiet = Rows.build("captures", 1, run_ns=at(0), capture_pos=1, ts_start_ns=at(0), ts_end_ns=at(10_000), packets=5)
    rows = Rows.build(
        "captures", n, run_ns=[at(x[0]) for x in lost], capture_pos=np.arange(n) + 1_000_000, ts_start_ns=[at(x[1]) for x in lost],
        ts_end_ns=[at(x[2]) for x in lost], dropped_spool_packets=[x[3] for x in lost], dropped_spool_orders=[x[4] for x in lost],
    )  # fmt: skip
    return Rows.concat([quiet, rows])


def outcome(*lost: Loss) -> tuple[str, float]:
    """How an attempt at 100 ms that nobody answers ends, and when (ms)."""
    wire = Wire()
    wire.packet(100, ("10.0.0.5", 40_000), ("10.0.0.9", 443), "S", seq=1)
    wire.packet(5_000, ("10.0.0.6", 40_000), ("10.0.0.9", 443), "PA", seq=1, ack=1)
    made = assert_cut_invariant(FILTERING, Config(), {"packets": wire.packets(), "captures": told(*lost)})["contacts"]
    row = next(r for r in made.to_dicts() if r["src_ip"] == "10.0.0.5")
    return row["outcome"], (row["ts_capture_ns"] - at(0)) / 1e6


def test_silence_while_packets_were_lost_is_no_failure() -> None:
    """An attempt without answer stays open when packets were lost between its SYN and its due time (3,100 ms)."""
    assert outcome() == ("unanswered", 3_100)
    assert outcome((2_000, 1_990, 2_000, 7, 0)) == ("open", 3_100)
    assert outcome((3_100, 3_050, 3_200, 7, 0)) == ("open", 3_100)


def test_losses_before_after_or_of_others_change_nothing() -> None:
    """Neither a loss before the SYN, nor one that is told after the due time, nor one of orders makes it doubtful."""
    assert outcome((90, 10, 99, 7, 0)) == ("unanswered", 3_100)
    assert outcome((3_100.001, 3_000, 3_050, 7, 0)) == ("unanswered", 3_100)
    assert outcome((2_000, 1_000, 2_000, 0, 7)) == ("unanswered", 3_100)


def test_a_delay_says_what_was_lost_while_it_ran() -> None:
    """An order's delay counts orders, a round trip packets; one that ran before or after the loss counts none."""
    d, wire = Dialogue(), Wire()
    for i, ms in enumerate((10, 100, 300)):
        d.say(ms, "new", f"o{i}", quantity=1)
        d.say(ms + 50, "ack", f"o{i}")
    wire.packet(100, ("10.0.0.5", 40_000), ("10.0.0.9", 443), "PA", seq=1, ack=1, size=10)
    wire.packet(140, ("10.0.0.9", 443), ("10.0.0.5", 40_000), "A", seq=1, ack=11)
    inputs = {"orders": d.orders(), "packets": wire.packets(), "captures": told((130, 120, 130, 40, 3))}
    rows = assert_cut_invariant(LATENCY, Config(), inputs)["latency"].to_dicts()
    assert {(r["kind"], r["cl_ord_id"]): r["lost_n"] for r in rows} == {
        ("order_ack", "o0"): 0, ("order_ack", "o1"): 3, ("order_ack", "o2"): 0, ("tcp_rtt", None): 40
    }  # fmt: skip


def test_a_window_says_what_was_lost_in_it() -> None:
    """Each window counts the losses that touch it; the capture tells them window by window, before the window ends."""
    code = Rows.empty("latency").schema.code
    times = np.array([at(ms) for ms in (10, 500, 1_500, 2_500, 3_500)])
    kinds = [code("kind", k) for k in ("order_ack", "tcp_rtt", "order_ack", "order_ack", "order_ack")]
    rows = Rows.build(
        "latency", 5, run_ns=times, capture_pos=np.arange(5), kind=kinds, venue=b"V", value_ns=1, session=b""
    )
    lost = told((400, 390, 400, 9, 2), (1_999, 1_900, 2_000, 1, 4), (2_999, 2_990, 2_999.5, 0, 8))
    made = assert_cut_invariant(LATENCY_WINDOWS, Config(), {"latency": rows, "captures": lost}, end_ns=at(3_600))
    found = {(r["window_start_ns"], r["kind"]): r["lost_n"] for r in made["latency_windows"].to_dicts()}
    assert found == {
        (at(0), "order_ack"): 2, (at(0), "tcp_rtt"): 9, (at(1_000), "order_ack"): 4, (at(2_000), "order_ack"): 8,
        (at(3_000), "order_ack"): 0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_a_plain_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a search written as the sentence in the module reads, also when only the last few losses are kept."""
    monkeypatch.setattr(losses, "LOSSES_MAX", 7)
    random = np.random.default_rng(seed)
    known = np.sort(random.integers(0, 1_000, 40))
    start = known - random.integers(0, 200, 40)
    packets = random.integers(0, 3, 40)
    end = start + random.integers(1, 100, 40)
    rows = Rows.build(
        "captures", 40, run_ns=known, capture_pos=np.arange(40), ts_start_ns=start, ts_end_ns=end, dropped_spool_packets=packets
    )  # fmt: skip
    kept, before = Losses(), 0
    for until in (*np.unique(random.integers(0, 1_000, 6)).tolist(), 1_000):  # steps; what is asked lies within each
        kept.take(rows.take((known >= before) & (known < until)))
        asked = random.integers(before, max(until, before + 1), 5)
        begins = asked - random.integers(0, 300, 5)
        got = kept.touching("packets", begins, asked, asked)
        for i in range(5):
            heard = [k for k in range(40) if packets[k] and known[k] <= asked[i] and known[k] < until][-7:]
            assert got[i] == sum(packets[k] for k in heard if start[k] <= asked[i] and end[k] > begins[i])
        before = until


def test_captures_without_losses_cost_no_state() -> None:
    """Rows of ordinary seconds leave no trace."""
    kept = Losses()
    kept.take(told())
    state: dict[str, Any] = kept.snapshot()
    assert state["losses"].nbytes == 0
