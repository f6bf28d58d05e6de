"""When a book is suspect and when it is good again: losses, sessions, ends."""

from __future__ import annotations

from typing import Any

from akbypass.config import Config
from akbypass.processors.books.topology import TOPOLOGY
from tests.processors.books.tape import (
    IMMEDIATE,
    Tape,
    add,
    delete,
    execute,
    level,
    other,
    quote,
    replace,
    start_of_messages,
)
from tests.processors.support import assert_cut_invariant

LINES: dict[str, Any] = {"feeds": [{"name": "XNAS", "lines": {"A": "233.54.12.1:26477", "B": "233.54.12.129:26477"}}]}


def test_a_loss_makes_every_book_of_the_feed_suspect_at_once() -> None:
    """At the loss each symbol that was quoted says its last prices as suspect; other feeds stay good."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "sell", 20, 5, "XYZ"))
    tape.packet(2, add(1, "sell", 12, 5), feed="XNYS")
    tape.lose()
    tape.packet(3, other())
    assert tape.quotes(**IMMEDIATE)[3:] == [
        (3, "ABC", "suspect", 10, 5, None, None),
        (3, "XYZ", "suspect", None, None, 20, 5),
    ]
    assert tape.core(**IMMEDIATE).losses == 1


def test_a_book_is_good_again_when_no_live_order_is_from_before_the_loss() -> None:
    """Orders from before must go, by execution, deletion or replacement; each symbol heals on its own."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), add(2, "buy", 9, 5), add(3, "buy", 8, 5), add(4, "sell", 20, 5, "XYZ"))
    tape.lose()
    tape.packet(2, add(5, "buy", 7, 1))
    tape.packet(3, execute(1, 5))
    tape.packet(4, delete(2))
    tape.packet(5, replace(3, 6, 6, 2))
    tape.packet(6, add(7, "sell", 21, 1, "XYZ"))
    assert tape.quotes(**IMMEDIATE)[2:] == [
        (2, "ABC", "suspect", 10, 5, None, None),
        (2, "XYZ", "suspect", None, None, 20, 5),
        (3, "ABC", "suspect", 9, 5, None, None),
        (4, "ABC", "suspect", 8, 5, None, None),
        (5, "ABC", "good", 7, 1, None, None),
    ]


def test_a_second_loss_makes_younger_orders_old_too() -> None:
    """The rule counts from the last loss."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.lose()
    tape.packet(2, add(2, "buy", 9, 5))
    tape.lose()
    tape.packet(3, delete(1))
    tape.packet(4, add(3, "buy", 8, 5))
    tape.packet(5, delete(2))
    assert [(q[0], q[2], q[3]) for q in tape.quotes(**IMMEDIATE)] == [
        (1, "good", 10), (2, "suspect", 10), (3, "suspect", 9), (5, "good", 8),
    ]  # fmt: skip


def test_a_symbol_first_seen_after_a_loss_is_good_with_its_first_order() -> None:
    """It has no live order from before the loss; what was lost can only hide better prices."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.lose()
    tape.packet(2, add(2, "buy", 20, 5, "NEW"))
    assert tape.quotes(**IMMEDIATE)[2:] == [(2, "NEW", "good", 20, 5, None, None)]


def test_unknown_references_after_a_loss_are_ignored_and_counted_apart() -> None:
    """Executions, cancels, deletes and replaces of orders whose add was lost change nothing."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.lose()
    tape.packet(2, execute(9, 1), execute(9, 1, "cancel"), delete(9), replace(9, 10, 11, 1))
    counters = tape.core(**IMMEDIATE).counters
    assert (counters["orders_unknown"], counters["orders_unknown_lossless"]) == (4, 0)


def test_a_price_level_book_heals_when_every_live_level_was_updated() -> None:
    """A level counts as known again when it is set or removed after the loss."""
    tape = Tape()
    tape.packet(1, level("buy", 10, 5), level("buy", 9, 5), level("sell", 12, 5))
    tape.lose()
    tape.packet(2, level("buy", 10, 6))
    tape.packet(3, level("buy", 9, 0))
    tape.packet(4, level("sell", 13, 1))
    tape.packet(5, level("sell", 12, 5))
    assert tape.quotes(**IMMEDIATE) == [
        (1, "ABC", "good", 10, 5, 12, 5),
        (2, "ABC", "suspect", 10, 5, 12, 5),
        (2, "ABC", "suspect", 10, 6, 12, 5),
        (5, "ABC", "good", 10, 6, 12, 5),
    ]


def test_a_quote_feed_heals_symbol_by_symbol_with_the_next_quote() -> None:
    """A quote says everything there is to know of its symbol."""
    tape = Tape()
    tape.packet(1, quote((10, 5), (12, 5)), quote((1, 5), (2, 5), "XYZ"))
    tape.lose()
    tape.packet(2, quote((10, 5), (12, 5)))
    assert tape.quotes(**IMMEDIATE)[2:] == [
        (2, "ABC", "suspect", 10, 5, 12, 5),
        (2, "XYZ", "suspect", 1, 5, 2, 5),
        (2, "ABC", "good", 10, 5, 12, 5),
    ]


def test_a_message_on_either_line_is_not_lost() -> None:
    """A packet missing on A that B brings is applied in its place; what waited is quoted then, packet by packet."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), line="A")
    tape.packet(2, add(1, "buy", 10, 5), line="B", seq=1)
    tape.packet(3, add(3, "buy", 12, 5), line="A", seq=3)
    tape.packet(4, add(4, "buy", 13, 5), line="A", seq=4)
    tape.packet(5, add(2, "buy", 11, 5), line="B", seq=2)
    assert [(q[0], q[2], q[3]) for q in tape.quotes(**LINES)] == [
        (1, "good", 10), (5, "good", 11), (5, "good", 12), (5, "good", 13),
    ]  # fmt: skip


def test_a_loss_is_known_when_the_reorder_window_has_passed() -> None:
    """On one line the hole waits for the window; then the book is suspect and what waited is applied, at that time."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.lose()
    tape.packet(2, add(3, "buy", 11, 5))
    tape.packet(5000, add(4, "buy", 12, 5))
    tape.packet(20000, add(5, "buy", 13, 5))
    assert [(q[0], q[2], q[3]) for q in tape.quotes()] == [
        (1, "good", 10), (10002, "suspect", 10), (10002, "suspect", 11), (10002, "suspect", 12), (20000, "suspect", 13),
    ]  # fmt: skip


def test_a_new_session_drops_the_books_of_the_old_one() -> None:
    """Symbols with prices are quoted empty, and the new session starts good."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.lose()
    tape.packet(2, other())
    tape.packet(3, add(1, "sell", 20, 5, "XYZ"), session="S2")
    tape.packet(4, add(2, "buy", 9, 5), session="S2")
    assert tape.quotes(**IMMEDIATE)[2:] == [
        (3, "ABC", "good", None, None, None, None),
        (3, "XYZ", "good", None, None, 20, 5),
        (4, "ABC", "good", 9, 5, None, None),
    ]


def test_start_of_messages_empties_the_books_of_its_feed() -> None:
    """After a system event O nothing from before rests, and nothing is suspect."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.packet(2, add(1, "buy", 1, 5), feed="XNYS")
    tape.lose()
    tape.packet(3, start_of_messages(), add(1, "buy", 9, 5))
    assert tape.quotes(**IMMEDIATE)[2:] == [
        (3, "ABC", "suspect", 10, 5, None, None),
        (3, "ABC", "good", None, None, None, None),
        (3, "ABC", "good", 9, 5, None, None),
    ]


def test_the_end_of_a_session_drops_its_books() -> None:
    """Once all messages before the end were applied or lost, symbols with prices are quoted empty."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5))
    tape.packet(2, kind="end_of_session")
    tape.packet(3, kind="end_of_session")
    assert tape.quotes() == [(1, "ABC", "good", 10, 5, None, None), (2, "ABC", "good", None, None, None, None)]


def test_the_end_of_a_session_waits_for_messages_held_back() -> None:
    """An end that overtakes messages takes effect behind the last of them, however the rows are cut into steps."""
    tape = Tape()
    tape.packet(1, add(1, "buy", 10, 5), line="A")
    tape.packet(2, add(1, "buy", 10, 5), line="B", seq=1)
    tape.packet(3, add(3, "buy", 12, 5), line="A", seq=3)
    tape.packet(4, kind="end_of_session", line="A", seq=4)
    tape.packet(5, add(2, "buy", 11, 5), line="B", seq=2)
    tape.packet(6, other(), feed="XNYS")
    assert [(q[0], q[3]) for q in tape.quotes(**LINES)] == [(1, 10), (5, 11), (5, 12), (5, None)]
    assert_cut_invariant(TOPOLOGY, Config.model_validate(LINES), tape.inputs())
