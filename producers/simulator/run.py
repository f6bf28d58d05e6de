"""Makes a day: plans it, lets every part play, merges the frames, and writes capture, truth, configuration and note.

The same seed, length and rate give the same bytes on every machine; no clock is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from akbypass.producers.simulator import intruders, lines, market, network, stories, truth, writer
from akbypass.producers.simulator.day import (
    BEGIN_NS,
    EDGE_MIN_TICKS,
    LATENCY_TARGET_US,
    NANOS_PER_TICK,
    SYMBOLS,
    VENUES,
    Plan,
    make_plan,
)  # fmt: skip
from akbypass.producers.simulator.exchange import Stream
from akbypass.producers.simulator.lines import Delivery
from akbypass.producers.simulator.orders import Delay, Session
from akbypass.rows import Array

MESSAGES_PER_SECOND = 2_500  # of all venues together; 60 s make about 150,000 frames
NOTE = """Simulated. Nothing in this folder was traded or recorded.

capture.pcap  what a tap would have captured: seed {seed}, {seconds} s
truth.json    what there is to find in it, and what nobody can decide
config.yaml   the configuration that goes with it
"""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SimulatedDay:
    """Files of a simulated day."""

    capture: Path
    truth: Path
    config: Path


def simulate(out_dir: Path, seed: int, seconds: float, messages_per_second: int = MESSAGES_PER_SECOND) -> SimulatedDay:
    """Write a simulated day into a folder, which is made; `seconds` is its length, `messages_per_second` of all venues.

    Raises ValueError for a day that is too short or too quiet to hold one event of every kind.
    """
    plan = make_plan(seed, seconds, messages_per_second)
    streams = [market.trade_day(plan, v) for v in range(len(VENUES))]
    deliveries, tapes = _feeds(plan, streams)
    sessions = [*(stories.trader(plan, v) for v in range(len(VENUES))), stories.rogue(plan)]
    talks = [s.frames() for s in sessions]
    others = [intruders.scan(plan), *intruders.clients(plan)]
    tcp_tapes = [t for t, _ in talks] + others
    capture, times = writer.merge(tapes + tcp_tapes)
    for k, (venue, line) in enumerate((v, line) for v in range(len(VENUES)) for line in lines.LINES):
        deliveries[venue][line] = Delivery(deliveries[venue][line].packet, times[k])
    tcp_times = times[len(tapes) :]
    latency = [
        row for s, (_, delays), ts in zip(sessions, talks, tcp_times, strict=False) for row in _latency(s, delays, ts)
    ]
    frames = [f for t, ts in zip(tcp_tapes, tcp_times, strict=True) for f in zip(ts.tolist(), t.frames, strict=True)]
    rules = configuration()["rules"]
    found = {
        "simulated": True,
        **_meta(plan, streams, len(capture.frames), sessions),
        "lines": [
            truth.line_counts(VENUES[v].name, s, n, d)
            for v, s in enumerate(streams)
            for n, d in deliveries[v].items()
        ],
        "feed_gaps": [g for v, s in enumerate(streams) for g in truth.feed_gaps(VENUES[v].name, s, deliveries[v])],
        "latency": sorted(latency, key=lambda r: (r["ts_capture_ns"], r["session"], r["cl_ord_id"], r["kind"])),
        "arbitrage": truth.arbitrage(streams, [truth.known_at(s, deliveries[v].values()) for v, s in enumerate(streams)]),
        "verdicts": sorted(truth.verdicts(rules, frames), key=lambda r: r["ts_capture_ns"]),
        "alerts": [
            {"topology": "security", "kind": "port_scan", "entity": intruders.SCANNER},
            {"topology": "security", "kind": "unauthorised_trading", "entity": sessions[-1].client.ip},
            *({"topology": "latency", "kind": "latency_target", "entity": v} for v in truth.slow_venues(latency)),
        ],
        "alert_kinds": ["port_scan", "unauthorised_trading", "latency_target"],
        "suspect": _suspect(plan, streams, deliveries),
        "near_misses": [_window(plan, w) for w in plan.windows if w.ticks <= EDGE_MIN_TICKS],
    }  # fmt: skip
    out_dir.mkdir(parents=True, exist_ok=True)
    day = SimulatedDay(out_dir / "capture.pcap", out_dir / "truth.json", out_dir / "config.yaml")
    writer.write(day.capture, capture)
    day.truth.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    day.config.write_text("# Goes with a simulated day.\n" + yaml.safe_dump(configuration(), sort_keys=False))
    (out_dir / "README.txt").write_text(NOTE.format(seed=seed, seconds=seconds))
    return day


def configuration() -> Row:
    """The configuration of every simulated day, as a tree."""
    return {
        "exchanges": [
            {"name": v.name, "ip_address": v.gateway.ip, "ports": [v.gateway.port], "protocol": "FIX/TCP",
             "latency_target_us": LATENCY_TARGET_US}
            for v in VENUES
        ],
        "feeds": [
            {"name": v.name, "venue": v.name, "protocol": "itch-5.0/moldudp64",
             "lines": {line: f"{group.ip}:{group.port}" for line, group in v.groups.items()}}
            for v in VENUES
        ],
        "rules": [
            {"name": "Block_Unauthorized_Trading", "protocol": "tcp", "dst_port": VENUES[0].gateway.port,
             "src_ip": "!192.168.1.0/24", "action": "BLOCK", "priority": 1,
             "description": "Only the trading network may reach the gateway."},
            {"name": "Watch_Telnet", "protocol": "tcp", "dst_port": 23, "action": "LOG", "priority": 50,
             "description": "Nobody has business with telnet here."},
        ],
    }  # fmt: skip


def _feeds(plan: Plan, streams: list[Stream]) -> tuple[list[dict[str, Delivery]], list[writer.Tape]]:
    """Carry every stream over its lines: deliveries by venue and line, and the tapes in the same order."""
    deliveries, tapes = [], []
    for venue, stream in enumerate(streams):
        carried = lines.deliver(plan, venue, stream, lines.plan_faults(plan, venue, stream))
        sums = network.word_sums(stream.payload)
        tapes += [lines.tape(venue, line, stream, d, sums) for line, d in carried.items()]
        deliveries.append(carried)
    return deliveries, tapes


def _latency(session: Session, delays: list[tuple[Delay, int, int]], ts: Array) -> list[Row]:
    return [
        {"kind": d.kind, "venue": VENUES[session.venue].name, "session": session.name, "cl_ord_id": d.cl_ord_id,
         "outcome": d.outcome, "ts_capture_ns": int(ts[end]), "value_ns": int(ts[end] - ts[start])}
        for d, start, end in delays
    ]  # fmt: skip


def _meta(plan: Plan, streams: list[Stream], packets: int, sessions: list[Session]) -> Row:
    return {
        "seed": plan.seed,
        "seconds": plan.seconds,
        "messages_per_second": plan.messages_per_second,
        "begin_ns": BEGIN_NS,
        "end_ns": plan.end_ns,
        "packets": packets,
        "feed_messages": sum(s.next_seq - 1 for s in streams),
        "order_messages": sum(len(s.messages) for s in sessions),
        "orders": sum(m.kind == "D" for s in sessions for m in s.messages),
        "sessions": [s.name for s in sessions],
    }


def _window(plan: Plan, w: Any) -> Row:
    buy, sell = VENUES[w.buy].name, VENUES[w.sell].name
    return {
        "symbol": SYMBOLS[w.symbol], "buy_venue": buy, "sell_venue": sell,
        "sent_open_ns": w.open_ns, "sent_close_ns": w.close_ns, "edge_nanos": w.ticks * NANOS_PER_TICK,
    }  # fmt: skip


def _suspect(plan: Plan, streams: list[Stream], deliveries: list[dict[str, Delivery]]) -> list[Row]:
    """What the loss on both lines leaves undecidable: a book is suspect while it holds an order older than the loss."""
    feed = VENUES[plan.lost_venue].name
    gaps = truth.feed_gaps(feed, streams[plan.lost_venue], deliveries[plan.lost_venue])
    hidden = [w for w in plan.windows if plan.lost_venue in (w.buy, w.sell) and w.open_ns > plan.lost_ns]
    return [
        {
            "feed": feed, "venue": feed, "first_seq": g["first_seq"], "last_seq": g["last_seq"],
            "symbols": list(SYMBOLS), "from_ns": plan.lost_ns, "until_ns": plan.end_ns,
            "reason": "lost on both lines; every book keeps an order that is older, so it stays suspect to the end",
            "undecidable_edges": [_window(plan, w) for w in hidden if w.ticks > EDGE_MIN_TICKS],
        }
        for g in gaps
        if g["line"] == "feed"
    ]  # fmt: skip
