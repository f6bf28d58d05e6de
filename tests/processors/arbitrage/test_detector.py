"""When an opportunity opens and closes, and what its rows say."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from akbypass.config import Config
from akbypass.order import END_NS
from akbypass.processors.arbitrage.detector import ArbitrageCore
from akbypass.processors.arbitrage.topology import TOPOLOGY
from akbypass.rows import NULL_INT64, Rows
from akbypass.schemas import load
from tests.processors.support import RUN_ID, assert_cut_invariant, drive

CENT = 10_000_000  # prices of tests are in cents
UNIT = 1_000_000_000
MS = 1_000_000
Side = tuple[int, int] | None


class Tape:
    """Collects quotes; times in ns, prices in cents, quantities in units."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def quote(self, ns: int, venue: str, bid: Side, ask: Side, symbol: str = "ABC", state: str = "good") -> None:
        """Add the quote of a venue."""
        n = len(self.rows)
        self.rows.append(
            {"run_ns": ns, "capture_pos": 100 * n, "venue": venue, "symbol": symbol, "state": state, "bid": bid, "ask": ask, "id": f"{n:016x}"}
        )  # fmt: skip

    def quotes(self) -> Rows:
        """The rows, with their order keys."""
        columns: dict[str, Any] = {k: np.array([r[k] for r in self.rows]) for k in ("run_ns", "capture_pos")}
        for k in ("venue", "symbol", "id"):
            columns[k] = np.array([r[k].encode() for r in self.rows], load("quotes").by_name[k].dtype)
        columns["state"] = np.array([load("quotes").code("state", r["state"]) for r in self.rows])
        for side in ("bid", "ask"):
            values = [r[side] for r in self.rows]
            columns[f"{side}_price_nanos"] = np.array([NULL_INT64 if v is None else v[0] * CENT for v in values])
            columns[f"{side}_quantity_nanos"] = np.array([NULL_INT64 if v is None else v[1] * UNIT for v in values])
        return Rows.build("quotes", len(self.rows), **columns)

    def changes(self, end_ns: int = 1_000_000, **thresholds: Any) -> list[dict[str, Any]]:
        """Run the topology over the tape."""
        config = Config.model_validate({"thresholds": thresholds})
        return drive(TOPOLOGY, config, {"quotes": self.quotes()}, end_ns=end_ns)["arbitrage"].to_dicts()

    def lives(self, end_ns: int = 1_000_000, **thresholds: Any) -> list[tuple[Any, ...]]:
        """(buy, sell, opened, closed, closed by, edge in cents) of each opportunity, in order of its closing."""
        return [
            (r["buy_venue"], r["sell_venue"], r["opened_ns"], r["closed_ns"], r["closed_by"], r["edge_nanos"] // CENT)
            for r in self.changes(end_ns, **thresholds) if r["revision"] == 1
        ]  # fmt: skip

    def counters(self, **thresholds: Any) -> dict[str, int]:
        """Run the core over the tape in one step, for its counters."""
        core = ArbitrageCore(Config.model_validate({"thresholds": thresholds}), RUN_ID, 0)
        core.step({"quotes": self.quotes()}, END_NS - 1, True)
        return core.counters


def test_an_opportunity_has_an_opening_and_a_closing_row() -> None:
    """Both rows carry one id, the prices and the quantity at the opening; the second its end and largest edge."""
    tape = Tape()
    tape.quote(10, "XNAS", (1000, 7), (1001, 5))
    tape.quote(20, "XNYS", (1005, 3), (1006, 9))  # buy at 10.01, sell at 10.05
    tape.quote(30, "XNYS", (1008, 4), (1009, 9))
    tape.quote(40, "XNYS", (1003, 4), (1009, 9))  # 0.02: not above the threshold
    opening, closing = tape.changes()
    common = {
        "symbol": "ABC", "buy_venue": "XNAS", "sell_venue": "XNYS", "opened_ns": 20, "edge_nanos": 40_000_000,
        "quantity_nanos": 3 * UNIT, "profit_nanos": 30_000_000, "buy_price_nanos": 10_010_000_000,
        "sell_price_nanos": 10_050_000_000, "buy_quote_id": f"{0:016x}", "sell_quote_id": f"{1:016x}",
        "u_ns": 1, "lost_n": 0, "clock_source": "file",
    }  # fmt: skip
    first = {
        "run_ns": 20, "capture_pos": 100, "revision": 0, "closed_ns": None, "duration_ns": None, "closed_by": "open",
        "edge_max_nanos": 40_000_000, "n": 1,
    }  # fmt: skip
    last = {
        "run_ns": 40, "capture_pos": 300, "revision": 1, "closed_ns": 40, "duration_ns": 20, "closed_by": "price",
        "edge_max_nanos": 70_000_000, "n": 3,
    }  # fmt: skip
    assert {k: opening[k] for k in common} == common
    assert {k: closing[k] for k in common} == common
    assert {k: opening[k] for k in first} == first
    assert {k: closing[k] for k in last} == last
    assert opening["id"] == closing["id"] != ""


@pytest.mark.parametrize(
    ("bid", "edge_min_nanos", "expected"),
    [
        (1003, 20_000_000, False),  # equal to the threshold is not above it
        (1004, 20_000_000, True),
        (1001, 0, False),  # locked
        (1002, 0, True),
        (1000, 0, False),
    ],
)
def test_an_edge_must_exceed_the_threshold(bid: int, edge_min_nanos: int, expected: bool) -> None:
    """Best bid − best ask counts from the first price step above the threshold."""
    tape = Tape()
    tape.quote(1, "XNAS", None, (1001, 1))
    tape.quote(2, "XNYS", (bid, 1), None)
    assert bool(tape.lives(edge_min_nanos=edge_min_nanos)) == expected


@pytest.mark.parametrize(
    ("end", "closed_by"),
    [
        (("XNYS", (1002, 1), (1010, 1), "good"), "price"),
        (("XNYS", None, (1010, 1), "good"), "price"),
        (("XNYS", (1005, 0), (1010, 1), "good"), "price"),
        (("XNAS", (1000, 1), None, "good"), "price"),
        (("XNYS", (1005, 1), (1010, 1), "suspect"), "suspect"),
        (("XNAS", (1000, 1), (1001, 1), "suspect"), "suspect"),
        (("XNAS", (1000, 1), (1001, 1), "stale"), "stale"),
    ],
)
def test_each_end_is_named(end: tuple[str, Side, Side, str], closed_by: str) -> None:
    """Prices, a missing side, no quantity, a suspect or stale book on either leg close an opportunity."""
    tape = Tape()
    tape.quote(1, "XNAS", (1000, 1), (1001, 1))
    tape.quote(2, "XNYS", (1005, 1), (1010, 1))
    venue, bid, ask, state = end
    tape.quote(9, venue, bid, ask, state=state)
    assert tape.lives() == [("XNAS", "XNYS", 2, 9, closed_by, 4)]


def test_what_is_open_at_the_end_of_the_run_is_closed_by_it() -> None:
    """The last row of an open opportunity has the end of the run as its time."""
    tape = Tape()
    tape.quote(1, "XNAS", None, (1001, 1))
    tape.quote(2, "XNYS", (1005, 1), None)
    assert tape.lives(end_ns=77) == [("XNAS", "XNYS", 2, 77, "end", 4)]


def test_an_edge_on_a_suspect_book_waits_until_it_is_good() -> None:
    """It is counted while suspect and opens when the book says it is good and the edge still holds."""
    tape = Tape()
    tape.quote(1, "XNAS", None, (1001, 1))
    tape.quote(2, "XNYS", (1005, 1), None, state="suspect")
    tape.quote(3, "XNYS", (1006, 1), None, state="suspect")
    tape.quote(4, "XNYS", (1006, 1), None)
    assert tape.lives(end_ns=9) == [("XNAS", "XNYS", 4, 9, "end", 5)]
    assert tape.counters()["edges_suspect"] == 2


def test_several_venues_are_judged_pair_by_pair_in_both_directions() -> None:
    """Of three venues each ordered pair has its own opportunities."""
    tape = Tape()
    tape.quote(1, "XNAS", (1000, 1), (1001, 1))
    tape.quote(2, "XNYS", (1004, 1), (1005, 1))
    tape.quote(3, "BATS", (1010, 1), (1011, 1))
    tape.quote(4, "XNAS", (1020, 1), (1021, 1))
    assert sorted(tape.lives(end_ns=9)) == [
        ("BATS", "XNAS", 4, 9, "end", 9),
        ("XNAS", "BATS", 3, 4, "price", 9),
        ("XNAS", "XNYS", 2, 4, "price", 3),
        ("XNYS", "BATS", 3, 9, "end", 5),
        ("XNYS", "XNAS", 4, 9, "end", 15),
    ]


def test_symbols_and_one_venue_alone_make_no_edge() -> None:
    """Quotes of other groups do not meet, and a crossed quote of one venue is no arbitrage."""
    tape = Tape()
    tape.quote(1, "XNAS", (1010, 1), (1001, 1))
    tape.quote(2, "XNYS", (2000, 1), None, symbol="XYZ")
    assert tape.lives() == []


def test_an_edge_may_open_and_close_at_one_time() -> None:
    """Quotes of the same ns are steps in order: duration 0, and a second opening is another opportunity."""
    tape = Tape()
    tape.quote(1, "XNAS", None, (1001, 1))
    for bid in (1005, 1000, 1006):
        tape.quote(2, "XNYS", (bid, 1), None)
    rows = tape.changes(end_ns=9)
    assert [(r["revision"], r["closed_ns"], r["duration_ns"]) for r in rows] == [
        (0, None, None),
        (1, 2, 0),
        (0, None, None),
        (1, 9, 7),
    ]
    assert rows[0]["id"] == rows[1]["id"] != rows[2]["id"] == rows[3]["id"]


def test_a_quote_that_reaches_its_age_limit_closes_the_opportunity_then() -> None:
    """The closing has the time at which the older quote became too old; a fresh one may open it again."""
    tape = Tape()
    tape.quote(0, "XNAS", None, (1001, 1))
    tape.quote(4 * MS, "XNYS", (1005, 1), None)
    tape.quote(9 * MS, "XNYS", (1006, 1), None)
    tape.quote(20 * MS, "XNYS", (1007, 1), None)
    tape.quote(25 * MS, "XNAS", None, (1001, 1))
    assert tape.lives(end_ns=28 * MS, quote_age_ms=10) == [
        ("XNAS", "XNYS", 4 * MS, 10 * MS, "stale", 4),
        ("XNAS", "XNYS", 25 * MS, 28 * MS, "end", 6),
    ]
    assert tape.counters(quote_age_ms=10)["edges_stale"] == 1


def test_venues_and_groups_beyond_the_limits_are_ignored_and_counted() -> None:
    """A group has 64 venues, a partition books_max groups."""
    tape = Tape()
    for k in range(66):
        tape.quote(k, f"V{k}", (1000, 1), (1001, 1))
    for k in range(20):
        tape.quote(100 + k, "XNAS", (1000, 1), (1001, 1), symbol=f"S{k}")
    counters = tape.counters(books_max=16)
    assert (counters["venues_full"], counters["groups_full"]) == (2, 5)


def test_prices_that_are_no_prices_make_no_edge() -> None:
    """A price whose difference to another could overflow is counted and never an edge."""
    tape = Tape()
    tape.quote(1, "XNAS", None, (-(2**62) // CENT - 1, 1))
    tape.quote(2, "XNYS", (2**62 // CENT + 1, 1), None)
    assert tape.lives() == []
    assert tape.counters()["prices_out_of_range"] == 2


def _random_tape(seed: int, venues: int = 4, n: int = 600) -> Tape:
    rng, tape = random.Random(seed), Tape()
    ns = 0
    for _ in range(n):
        ns += rng.choice([0, 1, 1, 5]) * MS
        bid = rng.randint(995, 1005)
        sides = [None if rng.random() < 0.1 else (p, rng.randint(0, 3)) for p in (bid, bid + rng.randint(0, 4))]
        state = rng.choices(["good", "suspect", "stale"], [20, 2, 1])[0]
        tape.quote(ns, f"V{rng.randrange(venues)}", *sides, symbol=rng.choice(["ABC", "DEF"]), state=state)
    return tape


def _slow(tape: Tape, end_ns: int) -> list[tuple[Any, ...]]:
    """Opportunities by the definition, every pair looked at anew after every quote (without ages)."""
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    opened: dict[tuple[str, str, str], list[Any]] = {}
    done: list[tuple[Any, ...]] = []
    for row in tape.rows:
        latest[row["symbol"], row["venue"]] = row
        for (group, buy), ask in list(latest.items()):
            for (other, sell), bid in list(latest.items()):
                if group != other or buy == sell or row not in (ask, bid):
                    continue
                states = (ask["state"], bid["state"])
                priced = ask["ask"] and bid["bid"] and ask["ask"][1] and bid["bid"][1]
                edge = bid["bid"][0] - ask["ask"][0] if priced else 0
                why = (
                    "suspect" if "suspect" in states else "stale" if "stale" in states else "" if edge > 2 else "price"
                )
                key = (group, buy, sell)
                if key in opened:
                    opened[key][1] += 1
                    opened[key][2] = opened[key][2] if why else max(opened[key][2], edge)
                    if why:
                        done.append((*key, *opened.pop(key), row["run_ns"], why))
                elif not why:
                    opened[key] = [row["run_ns"], 1, edge]
    return sorted(done + [(*key, *life, end_ns, "end") for key, life in opened.items()])


@pytest.mark.parametrize("seed", range(5))
def test_random_quotes_give_what_the_definition_gives(seed: int) -> None:
    """Openings, closings, reasons, counts and largest edges equal a search over all pairs after every quote."""
    tape = _random_tape(seed)
    end_ns = tape.rows[-1]["run_ns"] + 5
    found = [
        (r["symbol"], r["buy_venue"], r["sell_venue"], r["opened_ns"], r["n"], r["edge_max_nanos"] // CENT, r["closed_ns"], r["closed_by"])
        for r in tape.changes(end_ns) if r["revision"] == 1
    ]  # fmt: skip
    assert sorted(found) == _slow(tape, end_ns), f"seed {seed}"


@pytest.mark.parametrize("quote_age_ms", [0, 12])
def test_steps_and_checkpoints_do_not_show_in_the_rows(quote_age_ms: int) -> None:
    """The same quotes cut into other steps, with and without checkpoints and ages, give the same rows."""
    config = Config.model_validate({"thresholds": {"quote_age_ms": quote_age_ms}})
    rows = assert_cut_invariant(TOPOLOGY, config, {"quotes": _random_tape(11).quotes()})["arbitrage"]
    assert len(rows) > 100


def test_arrays_grow_through_many_groups_venues_and_open_edges() -> None:
    """200 groups and 64 venues with 1,024 open edges at once fit, and each is closed by the end."""
    tape = Tape()
    for k in range(200):
        tape.quote(k, "XNAS", (1000, 1), (1001, 1), symbol=f"S{k}")
    for k in range(64):
        tape.quote(1_000 + k, f"V{k}", (1000, 1) if k % 2 else None, None if k % 2 else (900, 1))
    assert len(tape.lives()) == 32 * 32
