"""Books of recorded days: IEX DEEP and TOPS through the real readers and decoders."""

from __future__ import annotations

from typing import Any

from akbypass.config import Config
from akbypass.order import END_NS
from akbypass.processors.books.builder import BooksCore
from akbypass.producers.edge import Edge
from akbypass.rows import Rows
from tests.processors.support import RUN_ID
from tests.support import data

TOPICS = ("feed_frames", "market_data")
Best = tuple[int | None, int | None, int | None, int | None]
SIDES = ("bid", "ask")


def rows_of(name: str) -> dict[str, Rows]:
    """Feed frames and market data of a recorded capture."""
    parts: dict[str, list[Rows]] = {topic: [] for topic in TOPICS}
    for batch in Edge(Config(), [str(data(name))], topics=TOPICS, stream_id=name):
        for topic in TOPICS:
            parts[topic] += [batch.rows[topic]] if topic in batch.rows else []
    return {topic: Rows.concat(part) for topic, part in parts.items()}


def quoted(inputs: dict[str, Rows]) -> tuple[BooksCore, list[dict[str, Any]]]:
    """Run the core over a whole capture."""
    core = BooksCore(Config(), RUN_ID, 0)
    return core, core.step(inputs, END_NS - 1, True)["quotes"].to_dicts()


def best_of(quote: dict[str, Any]) -> Best:
    """Prices and quantities of a quote."""
    return tuple(quote[f"{s}_{what}_nanos"] for s in SIDES for what in ("price", "quantity"))  # type: ignore[return-value]


def changes(messages: list[dict[str, Any]]) -> list[tuple[str, int, Best]]:
    """Follow levels and quotes with dictionaries: (symbol, sequence, best) of each change, packet by packet."""
    books: dict[str, dict[str, dict[int, int]]] = {}
    last: dict[str, Best] = {}
    found: list[tuple[str, int, Best]] = []
    packet: dict[str, tuple[int, bool]] = {}
    for k, m in enumerate(messages):
        sides = books.setdefault(m["symbol"], {"buy": {}, "sell": {}})
        if m["kind"] == "level":
            sides[m["side"]][m["price_nanos"]] = m["quantity_nanos"]
        elif m["kind"] == "quote":
            for side, word in (("buy", "bid"), ("sell", "ask")):
                sides[side] = {m[f"{word}_price_nanos"]: m[f"{word}_quantity_nanos"]}
        if m["kind"] in ("level", "quote"):
            packet.pop(m["symbol"], None)
            packet[m["symbol"]] = m["sequence"], m["kind"] == "quote" or bool(m["flags"] & 1)
        if k + 1 < len(messages) and messages[k + 1]["capture_pos"] == m["capture_pos"]:
            continue
        for symbol, (sequence, complete) in packet.items():
            bids, asks = ({p: q for p, q in books[symbol][s].items() if q} for s in ("buy", "sell"))
            bid, ask = max(bids, default=None), min(asks, default=None)
            now = (bid, bids.get(bid) if bid is not None else None, ask, asks.get(ask) if ask is not None else None)
            if complete and now != last.get(symbol, (None,) * 4):
                last[symbol] = now
                found.append((symbol, sequence, now))
        packet = {}
    return found


def test_a_recorded_deep_day_is_followed_level_by_level() -> None:
    """Every quote of 48,325 messages is a dictionary book's, all are good, and none is locked or crossed."""
    inputs = rows_of("marketdata/sai_test.pcap.gz")
    core, quotes = quoted(inputs)
    assert len(inputs["market_data"]) == 48_325
    assert [(q["symbol"], q["sequence"], best_of(q)) for q in quotes] == changes(inputs["market_data"].to_dicts())
    assert {q["state"] for q in quotes} == {"good"}
    both = [b for b in map(best_of, quotes) if b[0] is not None and b[2] is not None]
    assert both
    assert all(bid < ask for bid, _, ask, _ in both)  # type: ignore[operator]
    ignored = {k: v for k, v in core.counters.items() if k not in ("messages", "quotes")}
    assert not any(ignored.values()), ignored


def test_trades_of_a_recorded_deep_day_happen_at_prices_of_the_book() -> None:
    """Each of the 37 reported trades in a symbol that was quoted before is at or inside its best prices."""
    inputs = rows_of("marketdata/sai_test.pcap.gz")
    _, quotes = quoted(inputs)
    trades = [m for m in inputs["market_data"].to_dicts() if m["kind"] == "trade"]
    judged = 0
    for trade in trades:
        before = [q for q in quotes if q["symbol"] == trade["symbol"] and q["sequence"] < trade["sequence"]]
        if before:
            bid, _, ask, _ = best_of(before[-1])
            judged += 1
            assert (bid is None or bid <= trade["price_nanos"]) and (ask is None or trade["price_nanos"] <= ask)
    assert (len(trades), judged) == (37, 17)


def test_a_recorded_tops_day_is_quoted_as_it_quotes() -> None:
    """Of 27,217 quote updates each that changes a symbol's best prices becomes a quote, one a packet."""
    inputs = rows_of("marketdata/TOPS16.pcapng")
    _, quotes = quoted(inputs)
    messages = inputs["market_data"].to_dicts()
    assert (len(messages), sum(m["kind"] == "quote" for m in messages)) == (57_674, 27_217)
    assert [(q["symbol"], q["sequence"], best_of(q)) for q in quotes] == changes(messages)
    assert {q["state"] for q in quotes} == {"good"}
