"""Windows of delays, the target alert and the library's metrics, against numbers computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from akbypass.config import Config, parse
from akbypass.processors.latency.metrics import metrics_from_windows
from akbypass.processors.latency.topology import LATENCY_WINDOWS
from akbypass.rows import Rows
from tests.processors.support import assert_cut_invariant, drive
from tests.processors.wire import BASE_NS, at

TARGET = "exchanges: [{name: XNAS, ip_address: 198.51.100.10, ports: [4001], latency_target_us: 500}]"
Sample = tuple[float, str, str, float, float]  # ms, kind, session, value µs, u µs


def rows_of(samples: list[Sample], venue: str = "XNAS") -> Rows:
    """Latency rows from (ms, kind, session, value µs, u µs)."""
    code = Rows.empty("latency").schema.code
    times = np.array([at(s[0]) for s in samples], np.int64)
    return Rows.build(
        "latency", len(samples), run_ns=times, capture_pos=np.arange(len(samples)) * 100, ts_capture_ns=times,
        kind=[code("kind", s[1]) for s in samples], session=[s[2].encode() for s in samples], venue=venue.encode(),
        value_ns=[round(s[3] * 1_000) for s in samples], u_ns=[round(s[4] * 1_000) for s in samples],
    )  # fmt: skip


def run(
    samples: list[Sample], config: str = TARGET, end_ms: float | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Windows and alerts."""
    end_ns = None if end_ms is None else at(end_ms)
    made = drive(LATENCY_WINDOWS, parse(config), {"latency": rows_of(samples)}, end_ns=end_ns)
    return made["latency_windows"].to_dicts(), made["alerts.latency"].to_dicts()


def test_windows_are_aligned_and_close_at_their_end() -> None:
    """A window is a whole second of the epoch; its row is caused by the last sample and timed at its end, or the run's."""
    windows, _ = run(
        [(100, "order_ack", "s", 1, 0), (999.999, "order_ack", "s", 2, 0), (1_000, "order_ack", "s", 3, 0)],
        end_ms=1_400,
    )
    whole = [w for w in windows if w["session"] is None]
    assert [(w["window_start_ns"], w["run_ns"], w["n"], w["capture_pos"]) for w in whole] == [
        (BASE_NS, at(1_000), 2, 100),
        (at(1_000), at(1_400), 1, 200),
    ]
    assert whole[0]["window_end_ns"] == whole[1]["window_start_ns"]


def test_percentiles_are_nearest_rank() -> None:
    """Of the values 1 to 200 µs the ranks are ceil(p·200): 100, 180, 198, 200."""
    order = np.random.default_rng(7).permutation(200) + 1
    windows, _ = run([(i, "order_ack", "s", float(v), 0.5) for i, v in enumerate(order)])
    row = windows[0]
    names = ("min_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "n", "u_ns", "lost_n")
    assert [row[k] for k in names] == [1_000, 100_000, 180_000, 198_000, 200_000, 200_000, 200, 500, 0]
    assert (row["target_ns"], row["over_target_n"]) == (500_000, 0)


def test_jitter_goes_on_over_windows() -> None:
    """Values 100, 116, 100, 100 µs: J is 0, 1, 1.9375 after three, and 1.81640625 µs after the fourth, a window later."""
    windows, _ = run([(t, "order_ack", "s", v, 0) for t, v in ((0, 100), (1, 116), (2, 100), (1_500, 100))])
    assert [w["jitter_ns"] for w in windows if w["session"] is None] == [1_937.5, 1_816.40625]


def test_order_kinds_have_sessions_and_tcp_has_not() -> None:
    """One row a venue and kind; for order kinds also one a session; streams do not mix."""
    samples = [
        (0, "order_ack", "s1", 10, 0),
        (1, "order_ack", "s2", 30, 0),
        (2, "tcp_rtt", "10.0.0.5:1", 5, 0),
        (3, "order_fill", "s1", 40, 0),
    ]
    windows, _ = run(samples)
    found = {(w["kind"], w["session"]): (w["n"], w["p50_ns"]) for w in windows}
    assert found == {
        ("order_ack", None): (2, 10_000), ("order_ack", "s1"): (1, 10_000), ("order_ack", "s2"): (1, 30_000),
        ("tcp_rtt", None): (1, 5_000), ("order_fill", None): (1, 40_000), ("order_fill", "s1"): (1, 40_000),
    }  # fmt: skip


def test_the_target_alert_fires_and_resolves_outside_its_doubt() -> None:
    """With a target of 500 µs: 502±5 does not fire, 506±5 does, 498±5 does not resolve, 495±5 does; one id, two revisions."""
    samples: list[Sample] = [
        (1_000 * i, "order_ack", "s", v, 5) for i, v in enumerate((400, 502, 506, 900, 498, 495, 400, 600))
    ]
    windows, alerts = run(samples)
    assert [(a["state"], a["value"], a["revision"], a["run_ns"]) for a in alerts] == [
        ("firing", 506, 0, at(3_000)), ("resolved", 495, 1, at(6_000)), ("firing", 600, 0, at(7_000.000001)),
    ]  # fmt: skip
    assert alerts[0]["id"] == alerts[1]["id"] != alerts[2]["id"]
    a = alerts[0]
    assert (a["topology"], a["kind"], a["entity"], a["severity"]) == ("latency", "latency_target", "XNAS", "warning")
    assert (a["threshold"], a["unit"]) == (500, "us")
    row = next(w for w in windows if w["id"] == a["evidence"][0])
    assert (row["p50_ns"], row["session"], row["over_target_n"]) == (506_000, None, 1)


def test_without_order_acks_the_round_trip_is_judged() -> None:
    """A window without order_ack is judged by its tcp_rtt median, one with both by order_ack; other venues have no target."""
    samples: list[Sample] = [
        (0, "tcp_rtt", "x", 700, 1),
        (1_000, "tcp_rtt", "x", 700, 1),
        (1_001, "order_ack", "s", 100, 1),
    ]
    _, alerts = run(samples)
    assert [(a["state"], a["value"]) for a in alerts] == [("firing", 700), ("resolved", 100)]
    made = drive(LATENCY_WINDOWS, parse(TARGET), {"latency": rows_of(samples, "XBOS")})
    assert len(made["alerts.latency"]) == 0 and made["latency_windows"].to_dicts()[0]["target_ns"] is None


def test_samples_above_the_bound_are_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream keeps so many samples of a window; the others are lost_n, and the numbers say of how many they are."""
    monkeypatch.setattr("akbypass.processors.latency.windows.VALUES_MAX", 3)
    windows, _ = run([(i, "tcp_rtt", "x", 10 * i, 0) for i in range(5)])
    assert [(w["n"], w["lost_n"], w["max_ns"]) for w in windows] == [(3, 2, 20_000)]


def test_silent_streams_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound the streams silent for longest are forgotten, and counted."""
    monkeypatch.setattr("akbypass.processors.latency.windows.STREAMS_MAX", 2)
    core = LATENCY_WINDOWS.make_core(Config(), "run", 0)
    for i, venue in enumerate(("A", "B", "C")):
        core.step({"latency": rows_of([(1_000 * i, "tcp_rtt", "x", 10, 0)], venue)}, at(1_000 * i + 1), False)
    core.step({}, at(9_000), False)
    assert core.counters["streams_dropped"] == 1  # type: ignore[attr-defined]


def test_metrics_prefer_order_acks_of_the_last_window() -> None:
    """latency_us is the last window's median order→ack; a venue without orders has its round trip; sessions do not count."""
    samples: list[Sample] = [
        (0, "order_ack", "s", 900, 1), (1_000, "order_ack", "s", 300, 1), (1_001, "order_ack", "s2", 332, 2),
        (2_000, "tcp_rtt", "x", 50, 1),
    ]  # fmt: skip
    windows = drive(LATENCY_WINDOWS, parse(TARGET), {"latency": rows_of(samples)})["latency_windows"]
    others = drive(LATENCY_WINDOWS, Config(), {"latency": rows_of([(0, "tcp_rtt", "x", 70, 1)], "XBOS")})[
        "latency_windows"
    ]
    found = metrics_from_windows(Rows.concat([windows, others]))
    assert list(found) == ["XBOS", "XNAS"]
    m = found["XNAS"]
    assert (m.kind, m.latency_us, m.max_us, m.u_us, m.target_us, m.n) == ("order_ack", 300, 332, 2, 500, 2)
    assert m.jitter_us == pytest.approx((600 / 16) + (32 - 600 / 16) / 16)
    assert (found["XBOS"].kind, found["XBOS"].latency_us, found["XBOS"].target_us) == ("tcp_rtt", 70, None)
    assert metrics_from_windows(Rows.empty("latency_windows")) == {}


def test_cuts_and_checkpoints_change_nothing() -> None:
    """Rows per step and restarts from a snapshot change no statistic, jitter or alert."""
    draw = np.random.default_rng(11)
    kinds = ("order_ack", "tcp_rtt", "cancel_ack", "tcp_handshake")
    samples: list[Sample] = [
        (
            float(7 * (i // 2)),
            kinds[int(draw.integers(4))],
            f"s{int(draw.integers(3))}",
            float(draw.integers(400, 600)),
            1.0,
        )
        for i in range(900)
    ]
    made = assert_cut_invariant(LATENCY_WINDOWS, parse(TARGET), {"latency": rows_of(samples)})
    assert len(made["latency_windows"]) > 20
