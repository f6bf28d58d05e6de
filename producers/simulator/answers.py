"""Puts a played day's truth together as the tree of truth.json; what the single answers are is decided in `truth`.

simulated, seed, seconds, …   what was made
lines, feed_gaps, latency, arbitrage, verdicts, alerts   what there is to find
alert_kinds                   kinds of alerts that `alerts` is complete for
suspect                       what nobody can decide, because it was lost on both lines
near_misses                   planned overlaps of quotes that are too small to be an edge
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from akbypass.producers.simulator import intruders, truth
from akbypass.producers.simulator.day import (
    BEGIN_NS,
    EDGE_MIN_TICKS,
    NANOS_PER_TICK,
    SYMBOLS,
    VENUES,
    Plan,
    Window,
)  # fmt: skip
from akbypass.producers.simulator.exchange import Stream
from akbypass.producers.simulator.lines import Delivery
from akbypass.producers.simulator.orders import Delay, Session
from akbypass.producers.simulator.truth import Row
from akbypass.rows import Array


@dataclass(frozen=True, slots=True)
class Talk:
    """A session as captured: each delay with the frames in which it begins and ends, and all frames' times (int64 ns)."""

    session: Session
    delays: list[tuple[Delay, int, int]]
    ts_ns: Array


@dataclass(frozen=True, slots=True)
class Played:
    """A day with final times: streams and deliveries by venue, sessions, and all TCP frames with their times."""

    plan: Plan
    packets: int
    streams: list[Stream]
    deliveries: list[dict[str, Delivery]]
    talks: list[Talk]
    rogue: str
    tcp_frames: list[tuple[int, bytes]]


def tree(day: Played, rules: Sequence[Row]) -> Row:
    """Make truth.json's tree for a day under these filter rules."""
    feeds = [(VENUES[v].name, stream, day.deliveries[v]) for v, stream in enumerate(day.streams)]
    gaps = [gap for name, stream, carried in feeds for gap in truth.feed_gaps(name, stream, carried)]
    latency = sorted(
        (r for t in day.talks for r in _latency(t)), key=lambda r: (r["ts_capture_ns"], *map(str, r.values()))
    )
    known = [truth.known_at(stream, carried.values()) for _, stream, carried in feeds]
    alerts = _alerts(day, gaps, latency)
    return {
        "simulated": True,
        **_meta(day),
        "lines": [truth.line_counts(name, s, line, d) for name, s, carried in feeds for line, d in carried.items()],
        "feed_gaps": gaps,
        "latency": latency,
        "arbitrage": truth.arbitrage(day.streams, known),
        "verdicts": sorted(truth.verdicts(rules, day.tcp_frames), key=lambda r: int(r["ts_capture_ns"])),
        "alerts": [{"topology": topology, "kind": kind, "entity": entity} for topology, kind, entity in alerts],
        "alert_kinds": ["port_scan", "unauthorised_trading", "latency_target", "feed_score"],
        "suspect": [_suspect(day.plan, gap) for gap in gaps if gap["line"] == "feed"],
        "near_misses": [_window(w) for w in day.plan.windows if w.ticks <= EDGE_MIN_TICKS],
    }


def _meta(day: Played) -> Row:
    messages = [m for t in day.talks for m in t.session.messages]
    return {
        "seed": day.plan.seed,
        "seconds": day.plan.seconds,
        "messages_per_second": day.plan.messages_per_second,
        "begin_ns": BEGIN_NS,
        "end_ns": day.plan.end_ns,
        "packets": day.packets,
        "feed_messages": sum(s.next_seq - 1 for s in day.streams),
        "order_messages": len(messages),
        "orders": sum(m.kind == "D" for m in messages),
        "sessions": [t.session.name for t in day.talks],
    }


def _latency(talk: Talk) -> Iterable[Row]:
    for delay, start, end in talk.delays:
        yield {
            "kind": delay.kind,
            "venue": VENUES[talk.session.venue].name,
            "session": talk.session.name,
            "cl_ord_id": delay.cl_ord_id,
            "outcome": delay.outcome,
            "ts_capture_ns": int(talk.ts_ns[end]),
            "value_ns": int(talk.ts_ns[end] - talk.ts_ns[start]),
        }


def _alerts(day: Played, gaps: list[Row], latency: list[Row]) -> Iterable[tuple[str, str, str]]:
    """Who is alerted by whom; a feed's score falls below its limit in a window with a gap on all lines."""
    yield "security", "port_scan", intruders.SCANNER
    yield "security", "unauthorised_trading", day.rogue
    for venue in truth.slow_venues(latency):
        yield "latency", "latency_target", venue
    for feed in sorted({gap["feed"] for gap in gaps if gap["line"] == "feed"}):
        yield "feed_quality", "feed_score", feed


def _window(w: Window) -> Row:
    return {
        "symbol": SYMBOLS[w.symbol],
        "buy_venue": VENUES[w.buy].name,
        "sell_venue": VENUES[w.sell].name,
        "sent_open_ns": w.open_ns,
        "sent_close_ns": w.close_ns,
        "edge_nanos": w.ticks * NANOS_PER_TICK,
    }


def _suspect(plan: Plan, gap: Row) -> Row:
    """What a loss on both lines leaves undecidable: a book is suspect while it holds an order older than the loss."""
    tainted = [w for w in plan.windows if plan.lost_venue in (w.buy, w.sell) and w.open_ns > plan.lost_ns]
    return {
        **{name: gap[name] for name in ("feed", "venue", "first_seq", "last_seq")},
        "symbols": list(SYMBOLS),
        "from_ns": plan.lost_ns,
        "until_ns": plan.end_ns,
        "reason": "lost on both lines; every book keeps an order that is older, so it stays suspect to the end",
        "undecidable_edges": [_window(w) for w in tainted if w.ticks > EDGE_MIN_TICKS],
    }
