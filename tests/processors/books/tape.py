"""Writes market data by hand: one call a packet, in the words of a feed specification; reads quotes back."""

from __future__ import annotations

from typing import Any

import numpy as np

from akbypass.config import Config
from akbypass.order import END_NS
from akbypass.processors.books.builder import BooksCore
from akbypass.processors.books.topology import TOPOLOGY
from akbypass.rows import NULL_INT64, Rows
from akbypass.schemas import load
from tests.processors.support import RUN_ID, drive

UNIT = 1_000_000_000  # prices and quantities of tests are whole units
US = 1_000
IMMEDIATE = {"thresholds": {"reorder_window_us": 0}}  # a hole is lost at the frame that shows it

Message = dict[str, Any]
Quote = tuple[int, str, str, int | None, int | None, int | None, int | None]


def add(ref: int, side: str, price: int, quantity: int, symbol: str = "ABC") -> Message:
    """An order begins to rest."""
    return {
        "kind": "add",
        "order_ref": ref,
        "side": side,
        "price_nanos": price,
        "quantity_nanos": quantity,
        "symbol": symbol,
    }


def execute(ref: int, quantity: int, kind: str = "execute") -> Message:
    """An order is filled, or (kind cancel) cancelled, in part or whole."""
    return {"kind": kind, "order_ref": ref, "quantity_nanos": quantity}


def delete(ref: int) -> Message:
    """An order goes."""
    return {"kind": "delete", "order_ref": ref}


def replace(ref: int, new: int, price: int, quantity: int) -> Message:
    """An order gets another reference, price and quantity."""
    return {"kind": "replace", "order_ref": ref, "new_order_ref": new, "price_nanos": price, "quantity_nanos": quantity}


def level(side: str, price: int, quantity: int, symbol: str = "ABC", complete: bool = True) -> Message:
    """What rests at a price (IEX DEEP)."""
    typ = "8" if side == "buy" else "5"
    return {
        "kind": "level", "message_type": typ, "side": side, "price_nanos": price, "quantity_nanos": quantity,
        "symbol": symbol, "flags": int(complete),
    }  # fmt: skip


def quote(bid: tuple[int, int] | None, ask: tuple[int, int] | None, symbol: str = "ABC") -> Message:
    """Best prices with quantities (IEX TOPS, where none is 0 at 0)."""
    (bp, bq), (ap, aq) = bid or (0, 0), ask or (0, 0)
    return {
        "kind": "quote", "symbol": symbol, "bid_price_nanos": bp, "bid_quantity_nanos": bq,
        "ask_price_nanos": ap, "ask_quantity_nanos": aq,
    }  # fmt: skip


def start_of_messages() -> Message:
    """The system event that begins a day."""
    return {"kind": "system", "condition": "O"}


def other(kind: str = "trade", **columns: Any) -> Message:
    """A message that touches no book."""
    return {"kind": kind, **columns}


class Tape:
    """Collects packets of feeds, numbering their messages."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.next: dict[tuple[str, str], int] = {}

    def packet(
        self, us: int, *messages: Message, feed: str = "XNAS", venue: str = "", session: str = "S1", line: str = "A",
        kind: str = "data", seq: int | None = None,
    ) -> None:  # fmt: skip
        """Add a packet `us` microseconds into the tape; `seq` numbers its first message, by default the next one."""
        key = (feed, session)
        seq = self.next.get(key, 1) if seq is None else seq
        place = {
            "run_ns": us * US, "ts_capture_ns": us * US, "capture_pos": 24 + 100 * len(self.frames), "feed": feed,
            "venue": venue or feed[:4], "line": line, "session": session,
        }  # fmt: skip
        self.frames.append({**place, "kind": kind, "first_seq": seq, "count": len(messages)})
        for k, message in enumerate(messages):
            self.messages.append({**place, "sub": k, "sequence": seq + k, "ts_wire_ns": us * US - 1, **message})
        self.next[key] = max(self.next.get(key, 1), seq + len(messages))

    def lose(self, count: int = 1, feed: str = "XNAS", session: str = "S1") -> None:
        """Leave out sequence numbers."""
        self.next[feed, session] = self.next.get((feed, session), 1) + count

    def inputs(self) -> dict[str, Rows]:
        """The rows of both topics."""
        return {"feed_frames": build("feed_frames", self.frames), "market_data": build("market_data", self.messages)}

    def quotes(self, **settings: Any) -> list[Quote]:
        """Run the topology over the tape and read what it quotes."""
        return read(drive(TOPOLOGY, Config.model_validate(settings), self.inputs())["quotes"])

    def core(self, **settings: Any) -> BooksCore:
        """Run the core over the tape in one step, for its counters."""
        core = BooksCore(Config.model_validate(settings), RUN_ID, 0)
        core.step(self.inputs(), END_NS - 1, True)
        return core


def build(name: str, rows: list[dict[str, Any]]) -> Rows:
    """Make rows from dictionaries with only some columns; prices and quantities in whole units."""
    columns: dict[str, Any] = {}
    for column in load(name).columns:
        if any(column.name in row for row in rows):
            values = [row.get(column.name) for row in rows]
            if column.kind == "enum":
                values = [column.code(v or column.symbols[0]) for v in values]
            elif column.kind == "string":
                values = np.array([(v or "").encode() for v in values], column.dtype)
            elif column.name.endswith(("price_nanos", "quantity_nanos")):
                values = [NULL_INT64 if v is None else v if abs(v) >= UNIT else v * UNIT for v in values]
            else:
                values = [column.null if v is None else v for v in values]
            columns[column.name] = np.array(values, column.dtype)
    return Rows.build(name, len(rows), **columns)


def read(quotes: Rows) -> list[Quote]:
    """(time in µs, symbol, state, bid, bid quantity, ask, ask quantity) of each quote, in whole units."""
    found = []
    for row in quotes.to_dicts():
        values = [row[f"{side}_{what}_nanos"] for side in ("bid", "ask") for what in ("price", "quantity")]
        units = [None if v is None else v // UNIT for v in values]
        found.append((row["run_ns"] // US, row["symbol"], row["state"], *units))
    return found
