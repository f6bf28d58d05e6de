"""What there is to find in a simulated day, from the definitions and the final times at the tap; imports no finder.

message s is missing on a line    a packet behind it (or a heartbeat or end of session that counts it) came first
filled_late / recovered_other_line / lost    the line brought it later / another line brought it / none did
a tick is known                   when it, and every earlier message of its feed, has come over some line
an edge is open                   best bid on one venue − best ask on another is above the limit, as known
a delay                           first frame of the request → the frame that completes the first answer
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from akbypass.producers.simulator.book import Quote
from akbypass.producers.simulator.day import EDGE_MIN_TICKS, LATENCY_TARGET_US, NANOS_PER_TICK, SECOND, SYMBOLS, VENUES
from akbypass.producers.simulator.exchange import Stream
from akbypass.producers.simulator.itch import END_OF_SESSION
from akbypass.producers.simulator.lines import Delivery
from akbypass.rows import Array

NEVER = np.iinfo(np.int64).max
NANOS_PER_SHARE = 1_000_000_000
NO_QUOTE: Quote = (0, 0, 0, 0)
Row = dict[str, Any]


# -- feeds -------------------------------------------------------------------------------------------------------------


def message_counts(stream: Stream) -> Array:
    """Messages (int64) in each packet; none in heartbeats and ends of session."""
    counts = np.array(stream.count, np.int64)
    return np.where(counts == END_OF_SESSION, 0, counts)


def message_arrivals(stream: Stream, delivery: Delivery) -> Array:
    """When each message (by sequence − 1) first came over a line; ns, NEVER if it did not."""
    counts, first = message_counts(stream), np.full(len(stream.count), NEVER)
    np.minimum.at(first, delivery.packet, delivery.ts_ns)
    return np.repeat(first, counts)


def _missing(stream: Stream, delivery: Delivery, arrivals: Array) -> Array:
    order = np.argsort(delivery.ts_ns, kind="stable")
    ahead = np.maximum.accumulate(
        np.array(stream.first_seq)[delivery.packet[order]]
    )  # sequence that a line has reached
    sequence = np.arange(len(arrivals)) + 1
    where = np.searchsorted(ahead, sequence, side="right")  # first packet that begins behind the message
    revealed = np.append(delivery.ts_ns[order], NEVER)[where]
    return revealed < arrivals


def feed_gaps(feed: str, stream: Stream, deliveries: dict[str, Delivery]) -> list[Row]:
    """Maximal runs of one fate, per line, and of what is lost on all lines."""
    arrivals = {line: message_arrivals(stream, d) for line, d in deliveries.items()}
    anywhere = np.minimum.reduce(list(arrivals.values()))
    rows = []
    for line, delivery in deliveries.items():
        missing = _missing(stream, delivery, arrivals[line])
        fate = np.where(arrivals[line] < NEVER, 1, np.where(anywhere < NEVER, 2, 3))
        rows += _runs(feed, line, np.where(missing, fate, 0))
    return rows + _runs(feed, "feed", np.where(anywhere < NEVER, 0, 3))


def _runs(feed: str, line: str, fate: Array) -> list[Row]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], fate, [0]])))
    names = ("", "filled_late", "recovered_other_line", "lost")
    return [
        {"feed": feed, "venue": feed, "line": line, "first_seq": a + 1, "last_seq": b, "fate": names[fate[a]]}
        for a, b in itertools.pairwise(edges.tolist())
        if fate[a]
    ]


def line_counts(feed: str, stream: Stream, line: str, delivery: Delivery) -> Row:
    """What came over a line; duplicates are messages that it had brought before."""
    counts = message_counts(stream)
    brought, distinct = int(counts[delivery.packet].sum()), int(counts[np.unique(delivery.packet)].sum())
    made = {"feed": feed, "line": line, "packets": len(delivery.packet), "messages": brought}
    heartbeats = int((np.array(stream.count)[delivery.packet] == 0).sum())
    return {**made, "duplicates": brought - distinct, "heartbeats": heartbeats}


# -- edges -------------------------------------------------------------------------------------------------------------


def known_at(stream: Stream, deliveries: Iterable[Delivery]) -> Array:
    """When each packet became known; ns, NEVER from the first one on that was lost on all lines."""
    first = np.full(len(stream.count), NEVER)
    for delivery in deliveries:
        np.minimum.at(first, delivery.packet, delivery.ts_ns)
    first[message_counts(stream) == 0] = 0  # nothing waits for a packet without messages
    return np.maximum.accumulate(first)


def arbitrage(streams: Sequence[Stream], known: Sequence[Array]) -> list[Row]:
    """Sweep over all quotes in the order in which they became known; a feed has none from its loss on."""
    ticks: list[tuple[int, int, int, Quote]] = [
        (ts, venue, symbol, quote)
        for venue, stream in enumerate(streams)
        for ts, quotes in zip(known[venue].tolist(), stream.quotes, strict=True)
        for symbol, quote in quotes
        if ts != NEVER
    ]
    for venue, times in enumerate(known):
        if times[-1] == NEVER:
            ticks += [(int(times[times < NEVER][-1]) + 1, venue, symbol, NO_QUOTE) for symbol in range(len(SYMBOLS))]
    ticks.sort(key=lambda t: t[0])
    books: list[list[Quote]] = [[NO_QUOTE] * len(streams) for _ in SYMBOLS]
    opened: dict[tuple[int, int, int], Row] = {}
    rows: list[Row] = []
    touched: dict[int, None] = {}
    for k, (ts, venue, symbol, quote) in enumerate(ticks):
        books[symbol][venue] = quote
        touched[symbol] = None
        if k + 1 < len(ticks) and ticks[k + 1][0] == ts:
            continue  # what becomes known at one instant counts as a whole
        for s in touched:
            _edges(s, ts, books[s], opened, rows)
        touched.clear()
    assert not opened, "a planned window is open at the end of the day"
    return rows


def _edges(symbol: int, ts: int, quotes: list[Quote], opened: dict[tuple[int, int, int], Row], rows: list[Row]) -> None:
    for buy, (_, _, ask, asked) in enumerate(quotes):
        for sell, (bid, bidden, _, _) in enumerate(quotes):
            edge = bid - ask if asked and bidden and buy != sell else 0
            leg = (symbol, buy, sell)
            if leg in opened and edge <= EDGE_MIN_TICKS:
                opened.pop(leg)["closed_ns"] = ts
            elif leg not in opened and edge > EDGE_MIN_TICKS:
                opened[leg] = {
                    "symbol": SYMBOLS[symbol],
                    "buy_venue": VENUES[buy].name,
                    "sell_venue": VENUES[sell].name,
                    "opened_ns": ts,
                    "closed_ns": None,
                    "edge_nanos": edge * NANOS_PER_TICK,
                    "quantity_nanos": min(asked, bidden) * NANOS_PER_SHARE,
                }
                rows.append(opened[leg])


# -- rules and alerts --------------------------------------------------------------------------------------------------


def verdicts(rules: Sequence[Row], frames: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
    """Hold TCP frames against rules of the shapes that the day's configuration uses: destination port, `!` source."""
    for ts, frame in frames:
        source, target = (str(ipaddress.IPv4Address(frame[a : a + 4])) for a in (26, 30))
        ports = int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[36:38], "big")
        for rule in sorted(rules, key=lambda r: r["priority"]):
            outside = rule.get("src_ip", "!0.0.0.0/32").removeprefix("!")
            if ports[1] == rule["dst_port"] and ipaddress.ip_address(source) not in ipaddress.ip_network(outside):
                yield {
                    "rule": rule["name"], "action": rule["action"], "src_ip": source, "dst_ip": target,
                    "src_port": ports[0], "dst_port": ports[1], "ts_capture_ns": ts,
                }  # fmt: skip
                break


def slow_venues(latency: Iterable[Row]) -> list[str]:
    """Venues whose median order_ack (nearest rank) of some whole second, by the answer's time, is above the target."""
    windows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in latency:
        if row["kind"] == "order_ack":
            windows[row["venue"], row["ts_capture_ns"] // SECOND].append(row["value_ns"])
    medians = {key: sorted(values)[(len(values) - 1) // 2] for key, values in windows.items()}
    return sorted({venue for (venue, _), median in medians.items() if median > LATENCY_TARGET_US * 1_000})
