"""A venue's current numbers from its latency_windows rows, for the library face; keeps nothing between calls."""

from __future__ import annotations

from dataclasses import dataclass

from akbypass.rows import Rows

# thresholds.latency_model → the kinds whose median in a window is a venue's latency, best first
LATENCY_MODELS = {"order_ack_median": ("order_ack", "tcp_rtt")}


@dataclass(frozen=True, slots=True)
class TradingMetrics:
    """How late a venue is; times in microseconds unless their name says otherwise.

    `kind` tells what was measured: order_ack, or tcp_rtt where no order was answered. `latency_us` is the median of
    the last window that has it, known to ± `u_us`; `jitter_us` is the RFC 3550 jitter at that window's end.
    """

    venue: str
    kind: str
    latency_us: float
    jitter_us: float
    p99_us: float
    max_us: float
    u_us: float
    target_us: float | None
    over_target_n: int
    n: int
    window_start_ns: int
    window_end_ns: int


def metrics_from_windows(rows: Rows, model: str = "order_ack_median") -> dict[str, TradingMetrics]:
    """Return the metrics of each venue by name from latency_windows rows in any order, by a latency model; pure."""
    last: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows.to_dicts():
        key = (row["venue"], row["kind"])
        known = last.get(key)
        if row["session"] is None and (known is None or row["window_start_ns"] >= known["window_start_ns"]):
            last[key] = row
    venues = sorted({venue for venue, _ in last})
    found = {
        venue: next((last[venue, k] for k in LATENCY_MODELS[model] if (venue, k) in last), None) for venue in venues
    }
    return {venue: _metrics(row) for venue, row in found.items() if row is not None}


def _metrics(row: dict[str, object]) -> TradingMetrics:
    def us(name: str) -> float:
        value = row[name]
        assert isinstance(value, int | float)
        return value / 1_000

    def whole(name: str) -> int:
        value = row[name]
        assert isinstance(value, int)
        return value

    return TradingMetrics(
        venue=str(row["venue"]), kind=str(row["kind"]), latency_us=us("p50_ns"), jitter_us=us("jitter_ns"), p99_us=us("p99_ns"),
        max_us=us("max_ns"), u_us=us("u_ns"), target_us=None if row["target_ns"] is None else us("target_ns"),
        over_target_n=whole("over_target_n"), n=whole("n"), window_start_ns=whole("window_start_ns"), window_end_ns=whole("window_end_ns"),
    )  # fmt: skip
