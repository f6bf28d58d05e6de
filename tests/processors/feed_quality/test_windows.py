"""Windows, scores, alerts, bounds, and speed of feed quality."""

from __future__ import annotations

from typing import Any

import pytest

from akbypass.processors.feed_quality.reports import simple_score
from akbypass.processors.feed_quality.topology import TOPOLOGY
from tests.processors.feed_quality.lines import T0_NS, Packet, config, frames, packet
from tests.processors.feed_quality.test_gap_fates import run

S = 1_000_000  # µs in a second


def windows(rows: list[dict[str, Any]], line: str) -> list[tuple[int, float]]:
    """Second of the window and score, of one line."""
    return [((r["window_start_ns"] - T0_NS) // 10**9, r["score"]) for r in rows if r["line"] == line]


@pytest.mark.parametrize(
    ("gaps", "large", "score"), [(0, 0, 100), (1, 0, 90), (0, 1, 95), (3, 4, 50), (9, 3, 0), (50, 0, 0)]
)
def test_simple_score(gaps: int, large: int, score: float) -> None:
    """max(0, 100 − 10·gaps − 5·large packets)."""
    assert simple_score(gaps, large) == score


def test_windows_are_aligned_and_only_with_traffic() -> None:
    """A window of one second starts at a whole second; a second without traffic or events has no row."""
    made = run(config("A"), packet(0, "A", 1, 1), packet(0.5 * S, "A", 2, 1), packet(3 * S, "A", 3, 1))["feed_quality"]
    assert windows(made, "A") == windows(made, "feed") == [(0, 100), (3, 100)]
    first = made[0]
    assert (first["window_start_ns"], first["window_end_ns"], first["run_ns"]) == (T0_NS, T0_NS + 10**9, T0_NS + 10**9)
    assert (first["packets"], first["messages"], first["bytes"]) == (2, 2, 200)
    assert len({r["id"] for r in made}) == 4


def test_score_of_lines_and_feed_differ() -> None:
    """A gap of one line lowers that line's score; the feed's score falls only by loss on all lines."""
    made = run(
        config(),
        packet(0, "A", 1, 1),
        packet(1, "B", 1, 1),
        packet(10, "A", 3, 1),
        packet(11, "B", 2, 1),
        packet(12, "B", 3, 1),
    )["feed_quality"]
    assert {r["line"]: r["score"] for r in made if r["packets"]} == {"A": 90, "B": 100, "feed": 100}
    settled = [(r["line"], r["window_start_ns"], r["recovered"]) for r in made if not r["packets"]]
    assert settled == [("A", T0_NS + 5 * 10**9, 1), ("feed", T0_NS + 5 * 10**9, 1)]


def test_large_packets_count() -> None:
    """A frame above large_packet_bytes costs five points; one of exactly that size none."""
    made = run(config("A"), packet(0, "A", 1, 1, wire_length=1_501), packet(1, "A", 2, 1, wire_length=1_500))[
        "feed_quality"
    ]
    assert [(r["line"], r["large_packets"], r["score"]) for r in made] == [("A", 1, 95), ("feed", 1, 95)]


def test_alert_fires_and_resolves_once() -> None:
    """An alert is written when the feed's score falls below the threshold and when it is back, not in between."""
    lossy = [
        packet(0, "A", 1, 1),
        packet(10, "A", 3, 1),
        packet(1.2 * S, "A", 5, 1),
        packet(2.5 * S, "A", 6, 1),
        packet(3.5 * S, "A", 7, 1),
    ]
    made = run(config("A"), *lossy)
    assert windows(made["feed_quality"], "feed")[:4] == [(0, 90), (1, 90), (2, 100), (3, 100)]
    alerts = made["alerts.feed_quality"]
    found = [
        (a["state"], a["revision"], a["value"], a["threshold"], a["unit"], a["ts_capture_ns"] - T0_NS) for a in alerts
    ]
    assert found == [("firing", 0, 90, 95, "score", 10**9), ("resolved", 1, 100, 95, "score", 3 * 10**9)]
    assert alerts[0]["id"] == alerts[1]["id"]
    assert (alerts[0]["kind"], alerts[0]["entity"], alerts[0]["severity"]) == ("feed_score", "F", "warning")
    feed_gaps = [g["id"] for g in made["feed_gaps"] if g["line"] == "feed" and g["first_seq"] == 2]
    assert alerts[0]["evidence"] == feed_gaps[:1]


def test_evidence_is_bounded() -> None:
    """An alert names at most 16 gaps."""
    made = run(config("A", reorder_window_us=1), *[packet(10 * i, "A", 2 * i + 1, 1) for i in range(30)])
    assert len(made["alerts.feed_quality"][0]["evidence"]) == 16


def test_feeds_and_sessions_have_rows_of_their_own() -> None:
    """Each feed, session and line has its window row."""
    made = run(
        config("A"), packet(0, "A", 1, 1), packet(1, "A", 50, 2, feed="G"), packet(2, "A", 1, 1, session="S2"),
        packet(3, "X", 52, 2, feed="G"),
    )["feed_quality"]  # fmt: skip
    keys = {(r["feed"], r["session"], r["line"]) for r in made}
    lines = {("F", "S1", "A"), ("F", "S2", "A"), ("G", "S1", "A"), ("G", "S1", "X")}
    assert keys == lines | {(feed, session, "feed") for feed, session, _ in lines}


def test_many_sessions_do_not_grow_the_state() -> None:
    """A sender that opens a new session with every packet is followed within bounds."""
    core = TOPOLOGY.make_core(config(), "run", 0)
    packets = 0
    for step in range(10):
        rows = frames([Packet(step * S + i * 10, "A", 1, 1, session=f"S{step}-{i}") for i in range(200)])
        out = core.step({"feed_frames": rows}, T0_NS + (step + 1) * 10**9, step == 9)
        packets += sum(r["packets"] for r in out["feed_quality"].to_dicts() if r["line"] == "A")
        assert sum(a.nbytes for a in core.snapshot().values()) < 200_000
    assert packets == 2_000


def test_noise_numbers_are_refused() -> None:
    """A sequence number that no feed can have is counted and changes nothing."""
    core = TOPOLOGY.make_core(config("A"), "run", 0)
    rows = frames([packet(0, "A", 1, 1), packet(1, "A", 2**62, 1), packet(2, "A", -5, 1), packet(3, "A", 2, 1)])
    out = core.step({"feed_frames": rows}, T0_NS + 10**11, True)
    assert len(out["feed_gaps"]) == 0
    assert core.counters["invalid_frames"] == 2  # type: ignore[attr-defined]
