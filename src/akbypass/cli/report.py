"""What a run says, as tables for a person; asks the store, computes nothing that is not a sum or a rank."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from akbypass.cli.common import console, show

ROWS_MAX = 12  # lines of a table; the rest is in the store

_FEEDS = """
SELECT feed, line, sum(packets), sum(messages), sum(gaps), sum(missing), sum(recovered), sum(filled_late), sum(lost),
       sum(duplicates), round(min(score), 1) FROM feed_quality FINAL WHERE run_id = {run:String}
GROUP BY feed, line ORDER BY feed, line LIMIT 40"""
_LATENCY = """
SELECT venue, kind, count(), quantileExactLow(0.5)(value_ns), quantileExactLow(0.99)(value_ns), max(value_ns), max(u_ns)
FROM latency FINAL WHERE run_id = {run:String} GROUP BY venue, kind ORDER BY count() DESC, venue, kind LIMIT 12"""
_VERDICTS = """
SELECT rule, action, count(), uniqExact(src_ip) FROM verdicts FINAL WHERE run_id = {run:String}
GROUP BY rule, action ORDER BY rule LIMIT 12"""
_QUOTES = """
SELECT venue, count(), uniqExact(symbol), countIf(state = 'suspect'), countIf(bid_price_nanos >= ask_price_nanos AND state = 'good')
FROM quotes FINAL WHERE run_id = {run:String} GROUP BY venue ORDER BY venue LIMIT 12"""
_ARBITRAGE = """
SELECT symbol, buy_venue, sell_venue, edge_nanos / 1e9, quantity_nanos / 1e9, duration_ns / 1e6, toString(closed_by)
FROM arbitrage FINAL WHERE run_id = {run:String} ORDER BY edge_nanos DESC LIMIT 12"""
_ALERTS = """
SELECT topology, kind, entity, toString(severity), toString(state), value, threshold, unit
FROM alerts FINAL WHERE run_id = {run:String} ORDER BY run_ns LIMIT 12"""
_REJECTED = """
SELECT reason, count(), any(detail) FROM rejected FINAL WHERE run_id = {run:String} GROUP BY reason ORDER BY reason LIMIT 12"""


def run_report(client: Any, edge: Any, sent: Mapping[str, int], elapsed_s: float | None, live: bool) -> None:
    """Print packets and messages decoded, feed quality, quotes, verdicts, latencies, opportunities and alerts of a run.

    `elapsed_s` is None when the store had all of the run before: topologies drop a repeated run, so no time tells anything.
    """
    totals = edge.totals()
    console.print(
        f"\n[bold]Run {edge.run_id}[/]: {totals['packets']:,} packets{_pace(totals['packets'], elapsed_s, live)}"
    )
    decoded = [[t.replace("_", " "), sent[t]] for t in ("packets", "feed_frames", "market_data", "orders", "rejected")]
    dropped = [[reason.replace("_", " "), n] for reason, n in totals.items() if reason.startswith("dropped_")]
    show("Decoded", ["what", "count"], decoded + dropped, right=("count",))
    numbers = ("packets", "messages", "gaps", "missing", "recovered", "late", "lost", "duplicates", "worst score")
    _table(client, edge, "Feed quality", _FEEDS, ["feed", "line", *numbers], numbers)
    _table(client, edge, "Quotes", _QUOTES, ["venue", "quotes", "symbols", "suspect", "crossed while good"])
    latency = ["venue", "kind", "n", "p50 (ns)", "p99 (ns)", "max (ns)", "± (ns)"]
    _table(client, edge, "Latency", _LATENCY, latency, tuple(latency[2:]))
    _table(client, edge, "Verdicts", _VERDICTS, ["rule", "action", "packets", "sources"])
    edges = ["symbol", "buy", "sell", "edge", "quantity", "lasted (ms)", "closed by"]
    _table(client, edge, "Largest arbitrage edges", _ARBITRAGE, edges, tuple(edges[3:6]))
    _table(
        client,
        edge,
        "Alerts",
        _ALERTS,
        ["topology", "kind", "entity", "severity", "state", "value", "threshold", "unit"],
    )
    _table(client, edge, "Rejected", _REJECTED, ["reason", "count", "for example"])


def _pace(packets: int, elapsed_s: float | None, live: bool) -> str:
    if elapsed_s is None:
        return "; already stored by an earlier run; shown again"
    rate = f" ({packets / max(elapsed_s, 1e-9):,.0f} packets/s from capture to stored result)"
    return f" in {elapsed_s:.1f} s" + ("" if live else rate)


def _table(client: Any, edge: Any, title: str, sql: str, columns: list[str], right: tuple[str, ...] = ()) -> None:
    rows = client.query(sql, parameters={"run": edge.run_id}).result_rows
    if not rows:
        console.print(f"{title}: none")
        return
    show(title, columns, [list(row) for row in rows], right=right)


def suggest(found: Mapping[str, list[dict[str, Any]]]) -> None:
    """Print three questions to ask the store, about what this run has."""
    asks = [
        (
            "latency_windows",
            "SELECT venue, kind, sum(n) AS samples, min(p50_ns), max(p99_ns) FROM latency_windows GROUP BY venue, kind",
        ),
        (
            "arbitrage",
            "SELECT symbol, buy_venue, sell_venue, edge_nanos / 1e9 AS edge, duration_ns FROM arbitrage ORDER BY edge DESC LIMIT 5",
        ),
        (
            "feed_quality",
            "SELECT feed, line, sum(messages), sum(lost), min(score) FROM feed_quality GROUP BY feed, line",
        ),
        ("quotes", "SELECT venue, symbol, count() AS n FROM quotes GROUP BY venue, symbol ORDER BY n DESC LIMIT 5"),
        (
            "orders",
            "SELECT ts_capture_ns, src_ip, dst_ip, action, session, cl_ord_id FROM audit ORDER BY ts_capture_ns LIMIT 10",
        ),
        (
            "contacts",
            "SELECT src_ip, outcome, count() AS n FROM contacts GROUP BY src_ip, outcome ORDER BY n DESC LIMIT 5",
        ),
        (
            "captures",
            "SELECT point, source, sum(packets), sum(bytes), sum(rejected) FROM captures GROUP BY point, source",
        ),
        ("rejected", "SELECT reason, count() FROM rejected GROUP BY reason"),
    ]
    fitting = [sql for name, sql in asks if found.get(name)] + [sql for name, sql in asks if not found.get(name)]
    console.print("\n[bold]Ask it yourself[/]")
    for sql in fitting[:3]:
        console.print(f'  {_program()} query "{sql}"', soft_wrap=True, markup=False)


def _program() -> str:
    """How this user can call us: by name when it is on the path, else by the path of this environment."""
    if shutil.which("akbypass"):
        return "akbypass"
    own = Path(sys.executable).with_name("akbypass")
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
