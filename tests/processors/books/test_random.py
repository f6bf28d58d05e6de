"""Long random days against a slow book that is written with dictionaries, and the sizes that arrays grow through."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from akbypass.config import Config
from akbypass.processors.books.topology import TOPOLOGY
from tests.processors.books.tape import (
    IMMEDIATE,
    Message,
    Quote,
    Tape,
    add,
    delete,
    execute,
    level,
    quote,
    read,
    replace,
)
from tests.processors.support import assert_cut_invariant


class SlowBooks:
    """The books of one feed by the words of the specification; everything is looked up anew for every packet."""

    def __init__(self) -> None:
        self.orders: dict[
            Any, list[Any]
        ] = {}  # reference, or (symbol, side, price) → symbol, side, price, quantity, born
        self.gaps: dict[str, int] = {}  # symbol → count of doubts when it became suspect
        self.last: dict[str, tuple[Any, ...]] = {}  # symbol → what it said last
        self.seen: dict[str, None] = {}  # symbols in the order in which they came
        self.doubts = 0
        self.lost_at = 0

    def best(self, symbol: str, side: str) -> tuple[int | None, int | None]:
        prices = [o[2] for o in self.orders.values() if o[:2] == [symbol, side]]
        if not prices:
            return None, None
        top = max(prices) if side == "buy" else min(prices)
        return top, sum(o[3] for o in self.orders.values() if o[:3] == [symbol, side, top])

    def lose(self, us: int) -> list[Quote]:
        self.doubts += 1
        self.lost_at = self.doubts
        said = []
        for symbol in self.seen:
            self.gaps[symbol] = self.doubts
            if symbol in self.last and self.last[symbol][0] == "good":
                self.last[symbol] = ("suspect", *self.last[symbol][1:])
                said.append((us, symbol, *self.last[symbol]))
        return said

    def packet(self, us: int, messages: Sequence[Message]) -> list[Quote]:
        touched: dict[str, None] = {}
        for m in messages:
            symbol = self.apply(m)
            if symbol is not None:
                touched.pop(symbol, None)
                touched[symbol] = None
        said = []
        for symbol in touched:
            now = ("suspect" if symbol in self.gaps else "good", *self.best(symbol, "buy"), *self.best(symbol, "sell"))
            before = self.last.get(symbol)
            if now != before if before else now[1:] != (None,) * 4:
                self.last[symbol] = now
                said.append((us, symbol, *now))
        return said

    def apply(self, m: Message) -> str | None:
        kind, ref = m["kind"], m.get("order_ref")
        doubted = False
        if kind in ("add", "level", "quote"):
            symbol = m["symbol"]
            if symbol not in self.seen and self.lost_at:
                self.gaps[symbol] = self.lost_at
            self.seen[symbol] = None
        if kind == "add":
            self.orders[ref] = [symbol, m["side"], m["price_nanos"], m["quantity_nanos"], self.doubts]
        elif kind == "level":
            key = (symbol, m["side"], m["price_nanos"])
            self.orders.pop(key, None)
            if m["quantity_nanos"]:
                self.orders[key] = [*key, m["quantity_nanos"], self.doubts]
        elif kind == "quote":
            self.orders = {k: o for k, o in self.orders.items() if o[0] != symbol}
            for side, word in (("buy", "bid"), ("sell", "ask")):
                if m[f"{word}_quantity_nanos"]:
                    price = m[f"{word}_price_nanos"]
                    self.orders[symbol, side] = [symbol, side, price, m[f"{word}_quantity_nanos"], self.doubts]
        elif ref not in self.orders:
            return None
        else:
            order = self.orders[ref]
            symbol = order[0]
            if kind == "replace":
                del self.orders[ref]
                self.orders[m["new_order_ref"]] = [*order[:2], m["price_nanos"], m["quantity_nanos"], self.doubts]
            else:
                taken = order[3] if kind == "delete" else m["quantity_nanos"]
                doubted = taken > order[3]
                order[3] -= taken
                if order[3] <= 0:
                    del self.orders[ref]
        if doubted:
            self.doubts += 1
            self.gaps[symbol] = self.doubts
        elif symbol in self.gaps and all(o[4] >= self.gaps[symbol] for o in self.orders.values() if o[0] == symbol):
            del self.gaps[symbol]
        return symbol


class Maker:
    """Draws messages that a venue could send, and some that it could not."""

    def __init__(self, rng: random.Random, kind: str) -> None:
        self.rng, self.kind = rng, kind
        self.live: list[int] = []
        self.refs = 0

    def message(self) -> Message:
        symbol = self.rng.choice(["ABC", "DEF", "LONGSYMBOL"])
        side = self.rng.choice(["buy", "sell"])
        price = self.rng.randint(1, 12) + (12 if side == "sell" else 0)
        quantity = self.rng.randint(1, 9)
        if self.kind == "levels":
            return level(side, price, self.rng.choice([0, quantity]), symbol)
        if self.kind == "quotes":
            return quote((price, self.rng.choice([0, quantity])), (price + 1, quantity), symbol)
        if len(self.live) < 4 or self.rng.random() < 0.4:
            self.live.append(self._ref())
            return add(self.live[-1], side, price, quantity, symbol)
        ref = self.live[self.rng.randrange(len(self.live))]
        match self.rng.randrange(5):
            case 0:
                return delete(self._gone(ref))
            case 1:
                self.live.append(self._ref())
                return replace(self._gone(ref), self.refs, price, quantity)
            case 2:
                return delete(10_000 + self.refs)
            case _:
                return execute(ref, self.rng.randint(1, 3), self.rng.choice(["execute", "cancel", "execute_price"]))

    def _ref(self) -> int:
        self.refs += 1
        return self.refs

    def _gone(self, ref: int) -> int:
        self.live.remove(ref)
        return ref


@pytest.mark.parametrize("kind", ["orders", "levels", "quotes"])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_day_quotes_what_a_dictionary_book_says(kind: str, seed: int) -> None:
    """Packets of up to four messages, lost packets, executions beyond what rests: every quote is the slow book's."""
    rng = random.Random(seed)
    maker, slow, tape, expected = Maker(rng, kind), SlowBooks(), Tape(), []
    for us in range(1, 250):
        messages = [maker.message() for _ in range(rng.randint(1, 4))]
        if us > 1 and rng.random() < 0.03:  # this packet is lost; the next one shows it
            tape.lose(len(messages))
            messages = [maker.message()]
            expected += slow.lose(us)
        tape.packet(us, *messages)
        expected += slow.packet(us, messages)
    assert tape.quotes(**IMMEDIATE) == expected, f"seed {seed}"


@pytest.mark.parametrize("kind", ["orders", "levels"])
def test_steps_and_checkpoints_do_not_show_in_the_quotes(kind: str) -> None:
    """The same rows cut into other steps, with and without checkpoints, on two lines and two feeds, give the same rows."""
    rng = random.Random(7)
    tape, makers = Tape(), {feed: Maker(rng, kind) for feed in ("XNAS", "XNYS")}
    for us in range(1, 140):
        feed = rng.choice(["XNAS", "XNYS"])
        messages = [makers[feed].message() for _ in range(rng.randint(1, 3))]
        seq = tape.next.get((feed, "S1"), 1)
        lines = rng.choices([("A", "B"), ("A",), ("B",), ()], [12, 2, 2, 1])[0]
        for k, line in enumerate(lines):
            tape.packet(3 * us + k, *messages, feed=feed, line=line, seq=seq)
        tape.next[feed, "S1"] = seq + len(messages)
    lines_of = {"A": "239.1.1.1:1", "B": "239.1.1.2:1"}
    feeds = [{"name": f, "lines": lines_of} for f in ("XNAS", "XNYS")]
    config = Config.model_validate({"feeds": feeds, "thresholds": {"reorder_window_us": 20}})
    found = read(assert_cut_invariant(TOPOLOGY, config, tape.inputs())["quotes"])
    assert {q[2] for q in found} == {"good", "suspect"}


def test_arrays_grow_through_many_orders_levels_books_and_feeds() -> None:
    """3,000 orders, 300 books, 900 levels of one side and 9 feeds fit; every best price is right."""
    tape = Tape()
    for us in range(1, 901):
        tape.packet(us, add(us, "buy", us, 1, "DEEP"), add(10_000 + us, "sell", 2_000 - us, 1, "DEEP"))
    for k in range(300):
        tape.packet(1_000 + k, *(add(20_000 + 4 * k + j, "buy", 5 + j, 1, f"S{k}") for j in range(4)))
    for k in range(9):
        tape.packet(2_000 + k, add(1, "sell", 7 + k, 1, f"F{k}"), feed=f"FEED{k}")
    found = tape.quotes()
    assert [q[3] for q in found if q[1] == "DEEP"] == list(range(1, 901))
    assert [q[5] for q in found if q[1] == "DEEP"] == list(range(1_999, 1_099, -1))
    assert [q[3] for q in found if q[1].startswith("S")] == [8] * 300
    assert [q[5] for q in found if q[1].startswith("F")] == list(range(7, 16))


def test_limits_refuse_and_count() -> None:
    """Beyond books_max a symbol is ignored, beyond book_orders_max an add makes its book suspect; both are counted."""
    tape = Tape()
    for k in range(20):
        tape.packet(k + 1, add(k, "buy", 5, 1, f"S{k}"))
    counters = tape.core(thresholds={"books_max": 16}).counters
    assert (counters["books_full"], counters["quotes"]) == (4, 16)
    full = Tape()
    for k in range(1_030):
        full.packet(k + 1, add(k, "buy", 5, 1))
    core = full.core(thresholds={"book_orders_max": 1_024})
    assert (core.counters["orders_full"], core.counters["quotes"]) == (6, 1_025)
