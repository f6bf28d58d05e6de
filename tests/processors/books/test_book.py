"""What each kind of message does to a book, written down as tables."""

from __future__ import annotations

import pytest

from akbypass.config import Config
from akbypass.processors.books.topology import TOPOLOGY
from akbypass.rows import NULL_INT64
from tests.processors.books.tape import Message, Tape, add, delete, execute, level, other, quote, replace
from tests.processors.support import drive

# Messages, one a packet at 1, 2, 3 … µs, and after each the best prices (bid, quantity, ask, quantity) or "same".
ORDER_BOOKS: dict[str, list[tuple[Message, tuple[int | None, ...] | str]]] = {
    "adds build both sides": [
        (add(1, "buy", 10, 5), (10, 5, None, None)),
        (add(2, "sell", 12, 7), (10, 5, 12, 7)),
        (add(3, "buy", 9, 4), "same"),
        (add(4, "buy", 11, 3), (11, 3, 12, 7)),
        (add(5, "sell", 13, 1), "same"),
        (add(6, "buy", 11, 2), (11, 5, 12, 7)),
    ],
    "executions in part and whole uncover the next level": [
        (add(1, "sell", 12, 7), (None, None, 12, 7)),
        (add(2, "sell", 13, 4), "same"),
        (execute(1, 3), (None, None, 12, 4)),
        (execute(1, 4), (None, None, 13, 4)),
        (execute(2, 4, "execute_price"), (None, None, None, None)),
    ],
    "cancels in part, deletes whole": [
        (add(1, "buy", 10, 5), (10, 5, None, None)),
        (add(2, "buy", 10, 6), (10, 11, None, None)),
        (execute(2, 2, "cancel"), (10, 9, None, None)),
        (delete(1), (10, 4, None, None)),
        (delete(2), (None, None, None, None)),
    ],
    "a replaced order keeps side and symbol": [
        (add(1, "sell", 12, 7), (None, None, 12, 7)),
        (replace(1, 2, 11, 3), (None, None, 11, 3)),
        (delete(1), "same"),
        (execute(2, 1), (None, None, 11, 2)),
        (replace(2, 2, 14, 2), (None, None, 14, 2)),
    ],
    "unknown references and trades change nothing": [
        (add(1, "buy", 10, 5), (10, 5, None, None)),
        (delete(9), "same"),
        (execute(9, 1), "same"),
        (replace(9, 10, 11, 1), "same"),
        (other("trade", symbol="ABC", price_nanos=99, quantity_nanos=1), "same"),
        (other("trade_cross", symbol="ABC", price_nanos=99, quantity_nanos=1), "same"),
        (other("status", symbol="ABC", condition="H"), "same"),
    ],
    "negative prices sort like others": [
        (add(1, "buy", -3, 5), (-3, 5, None, None)),
        (add(2, "buy", -2, 5), (-2, 5, None, None)),
        (add(3, "sell", -1, 5), (-2, 5, -1, 5)),
        (add(4, "sell", 0, 5), "same"),
    ],
}
LEVEL_BOOKS: dict[str, list[tuple[Message, tuple[int | None, ...] | str]]] = {
    "levels are set, moved and removed": [
        (level("buy", 10, 5), (10, 5, None, None)),
        (level("sell", 12, 7), (10, 5, 12, 7)),
        (level("buy", 10, 8), (10, 8, 12, 7)),
        (level("buy", 9, 1), "same"),
        (level("buy", 10, 0), (9, 1, 12, 7)),
        (level("sell", 15, 0), "same"),
        (level("sell", 12, 0), (9, 1, None, None)),
    ],
    "an event that is not complete is not quoted": [
        (level("buy", 10, 5), (10, 5, None, None)),
        (level("sell", 11, 5), (10, 5, 11, 5)),
        (level("buy", 11, 4, complete=False), "same"),
        (level("sell", 11, 0, complete=True), (11, 4, None, None)),
    ],
    "quotes replace both sides": [
        (quote((10, 5), (12, 7), "TOP"), (10, 5, 12, 7)),
        (quote((10, 5), (12, 7), "TOP"), "same"),
        (quote((11, 1), None, "TOP"), (11, 1, None, None)),
        (quote(None, (12, 2), "TOP"), (None, None, 12, 2)),
        (quote(None, None, "TOP"), (None, None, None, None)),
    ],
}


@pytest.mark.parametrize("name", [*ORDER_BOOKS, *LEVEL_BOOKS])
def test_each_message_moves_the_best_prices_as_specified(name: str) -> None:
    """A book quotes after each message exactly when its best prices changed, and quotes what the table says."""
    tape, expected = Tape(), []
    for us, (message, best) in enumerate({**ORDER_BOOKS, **LEVEL_BOOKS}[name], start=1):
        tape.packet(us, message)
        if best != "same":
            expected.append((us, "TOP" if "TOP" in message.values() else "ABC", "good", *best))
    assert tape.quotes() == expected


def test_one_packet_is_one_quote_after_its_last_message() -> None:
    """However many messages of a packet touch a symbol, it is quoted once, in the order of the last messages."""
    tape = Tape()
    tape.packet(
        1,
        add(1, "buy", 10, 5),
        add(2, "sell", 20, 1, "XYZ"),
        add(3, "buy", 11, 5),
        delete(1),
        delete(3),
        add(4, "buy", 8, 1),
    )
    tape.packet(2, add(5, "buy", 9, 1), delete(5))
    assert tape.quotes() == [(1, "XYZ", "good", None, None, 20, 1), (1, "ABC", "good", 8, 1, None, None)]


def test_quotes_name_the_causing_message() -> None:
    """A quote carries the order key of the packet and the stamp and number of the last message of its symbol."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "buy", 9, 5), add(3, "sell", 20, 1, "XYZ"))

    first = drive(TOPOLOGY, Config(), tape.inputs())["quotes"].to_dicts()[0]
    assert {k: first[k] for k in ("run_ns", "capture_pos", "sub", "ts_capture_ns", "ts_wire_ns", "sequence", "feed", "venue")} == {
        "run_ns": 1000, "capture_pos": 24, "sub": 0, "ts_capture_ns": 1000, "ts_wire_ns": 999, "sequence": 2,
        "feed": "XNAS", "venue": "XNAS",
    }  # fmt: skip


def test_the_same_reference_and_symbol_on_two_feeds_are_apart() -> None:
    """Order references and symbols belong to their feed."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), feed="XNAS")
    tape.packet(2, add(1, "sell", 12, 5), feed="BATS")
    tape.packet(3, delete(1), feed="XNAS")
    assert tape.quotes() == [
        (1, "ABC", "good", 10, 5, None, None),
        (2, "ABC", "good", None, None, 12, 5),
        (3, "ABC", "good", None, None, None, None),
    ]


def test_symbols_of_one_instrument_are_quoted_as_its_group() -> None:
    """The symbol of a quote is the configured group of venue and symbol, by default the symbol."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5, "ABC"), add(2, "buy", 1, 5, "DEF"), feed="XNAS")
    tape.packet(2, add(1, "sell", 12, 5, "ABC.N"), feed="XNYS")
    found = tape.quotes(instruments=[{"name": "abc", "symbols": {"XNAS": "ABC", "XNYS": "ABC.N"}}])
    assert [q[1] for q in found] == ["abc", "DEF", "abc"]


@pytest.mark.parametrize(
    ("message", "counter"),
    [
        (add(9, "none", 10, 5), "incomplete"),
        (add(9, "buy", 10, 0), "incomplete"),
        ({**add(9, "buy", 10, 5), "price_nanos": None}, "incomplete"),
        ({**add(9, "buy", 10, 5), "order_ref": None}, "incomplete"),
        ({**add(9, "buy", 10, 5), "symbol": ""}, "incomplete"),
        (execute(1, 0), "incomplete"),
        (replace(1, 2, 10, 0), "incomplete"),
        ({**quote((1, 1), None), "symbol": ""}, "incomplete"),
        (level("buy", 11, 5), "mixed_kinds"),
        (delete(9), "orders_unknown_lossless"),
    ],
)
def test_what_cannot_be_applied_is_counted_and_changes_nothing(message: Message, counter: str) -> None:
    """A message without what it needs, or of another kind of book, leaves the book as it is and is counted."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.packet(2, message)
    assert tape.quotes() == [(1, "ABC", "good", 10, 5, None, None)]
    assert tape.core().counters[counter] == 1


def test_a_contradiction_makes_one_book_suspect_until_no_order_is_from_before() -> None:
    """More executed than rests is clamped, counted, and heals when all live orders are younger."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "buy", 9, 5), add(3, "buy", 7, 7, "XYZ"))
    tape.packet(2, execute(1, 6))
    tape.packet(3, add(4, "buy", 8, 1))
    tape.packet(4, delete(2))
    assert tape.quotes() == [
        (1, "ABC", "good", 10, 5, None, None),
        (1, "XYZ", "good", 7, 7, None, None),
        (2, "ABC", "suspect", 9, 5, None, None),
        (4, "ABC", "good", 8, 1, None, None),
    ]
    assert tape.core().counters["above_resting"] == 1


def test_a_reference_used_twice_is_refused_and_makes_the_book_suspect() -> None:
    """An add or a replace with a live reference is counted and not applied."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "buy", 9, 5))
    tape.packet(2, add(1, "buy", 11, 5))
    tape.packet(3, replace(2, 1, 12, 5))
    assert tape.quotes() == [(1, "ABC", "good", 10, 5, None, None), (2, "ABC", "suspect", 10, 5, None, None)]
    assert tape.core().counters["orders_duplicate"] == 2


def test_a_crossed_good_book_is_counted() -> None:
    """Bid above ask in a good book is an invariant broken by the feed, and counted."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "sell", 10, 5))
    tape.packet(2, add(3, "buy", 11, 5))
    assert tape.core().counters["crossed_good"] == 1


def test_a_level_that_would_overflow_makes_the_book_suspect() -> None:
    """Quantities at a price are summed within 64 bits or not at all."""
    tape = Tape()
    huge = (NULL_INT64 + 1) * -1
    tape.packet(1, add(1, "buy", 10, huge))
    tape.packet(2, add(2, "buy", 10, 1))
    assert [q[2] for q in tape.quotes()] == ["good", "suspect"]
    assert tape.core().counters["overflow"] == 1
