"""The arrays behind the books of one partition: how they grow, what a loss or a new session does to them, snapshots.

It applies no messages (`book.py` does) and makes no rows (`builder.py` does). Sizes are bounded by the thresholds
books_max and book_orders_max; what is beyond is refused and counted by the kernels, because a book without its oldest
order would be silently wrong while a refused order makes its book suspect.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from akbypass.processors.books import book
from akbypass.processors.books.book import Tables
from akbypass.rows import Array
from akbypass.schemas import NULL_INT64

ORDERS_FIRST, BOOKS_FIRST, LEVELS_FIRST, FEEDS_FIRST = 1_024, 64, 1_024, 4  # rows at the start; each grows by doubling


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 1).bit_length()


def _orders_table(capacity: int) -> Array:
    table = np.zeros((capacity, book.ORDER_WIDTH), np.int64)
    table[:, book.O_SLOT] = -1
    return table


def _resized(array: Array, n: int) -> Array:
    made = np.zeros((n, array.shape[1]), np.int64)
    made[: len(array)] = array[:n]
    return made


class BookState:
    """All books of one partition as growable arrays; `tables` is what the kernels take."""

    def __init__(self, books_max: int, orders_max: int) -> None:
        scalars = np.zeros(book.SCALARS, np.int64)
        scalars[book.EPOCH], scalars[book.BOOKS_MAX], scalars[book.ORDERS_MAX] = 1, books_max, orders_max
        self.tables = Tables(
            orders=_orders_table(ORDERS_FIRST),
            books=np.zeros((BOOKS_FIRST, book.BOOK_WIDTH), np.int64),
            sides=np.zeros((2 * BOOKS_FIRST, book.SIDE_WIDTH), np.int64),
            levels=np.zeros((LEVELS_FIRST, book.LEVEL_WIDTH), np.int64),
            by_symbol=np.full(2 * BOOKS_FIRST, -1, np.int64),
            feeds=np.zeros((FEEDS_FIRST, book.FEED_WIDTH), np.int64),
            scalars=scalars,
            counters=np.zeros(len(book.COUNTERS), np.int64),
        )

    def __getitem__(self, scalar: int) -> int:
        """Return one of the scalars, as `state[book.N_BOOKS]`."""
        return int(self.tables.scalars[scalar])

    # -- growth ----------------------------------------------------------------------------------------------------

    def make_room(self, need: int) -> None:
        """Grow what a kernel found too small: NEED_ORDERS, NEED_LEVELS or NEED_BOOKS."""
        t = self.tables
        if need == book.NEED_ORDERS:
            self._set_orders(t.orders, 2 * len(t.orders))
        elif need == book.NEED_LEVELS:
            self._grow_levels()
        else:
            n = 2 * len(t.books)
            index = np.full(2 * n, -1, np.int64)
            book.reindex(t.books, self[book.N_BOOKS], index)
            self.tables = t._replace(books=_resized(t.books, n), sides=_resized(t.sides, 2 * n), by_symbol=index)

    def _set_orders(self, orders: Array, capacity: int) -> None:
        table = _orders_table(capacity)
        book.rehash(orders, table)
        self.tables = self.tables._replace(orders=table)

    def _grow_levels(self) -> None:
        # Room for twice what is in use and for the largest side to double, so that growth stays rare.
        t, n = self.tables, 2 * self[book.N_BOOKS]
        used, largest = int(t.sides[:n, book.S_CAPACITY].sum()), int(t.sides[:n, book.S_CAPACITY].max())
        pool = np.zeros((_power_of_two(2 * (used + largest + book.LEVELS_FIRST)), book.LEVEL_WIDTH), np.int64)
        t.scalars[book.N_LEVELS] = book.repack(t.sides, n, t.levels, pool)
        self.tables = t._replace(levels=pool)

    # -- feeds -----------------------------------------------------------------------------------------------------

    def feed_number(self, name_words: Array) -> int:
        """Return the number of a feed by its name's words, or −1."""
        known = self.tables.feeds[: self[book.N_FEEDS], book.F_NAME : book.F_NAME + 4]
        found = np.flatnonzero((known == name_words).all(axis=1))
        return int(found[0]) if len(found) else -1

    def add_feed(self, name_words: Array, session_words: Array) -> int:
        """Register a feed with its first session and return its number."""
        t, f = self.tables, self[book.N_FEEDS]
        if f == len(t.feeds):
            self.tables = t = t._replace(feeds=_resized(t.feeds, 2 * f))
        t.feeds[f, book.F_NAME : book.F_NAME + 4] = name_words
        t.scalars[book.N_FEEDS] = f + 1
        self.set_session(f, session_words)
        return f

    def set_session(self, feed: int, session_words: Array) -> None:
        """Begin a session: nothing is lost in it yet."""
        row = self.tables.feeds[feed]
        row[book.F_SESSION : book.F_SESSION + 2] = session_words
        row[book.F_LOST], row[book.F_REACHED] = 0, NULL_INT64

    def is_in_session(self, feed: int, session_words: Array) -> bool:
        """Whether the feed is in this session."""
        row = self.tables.feeds[feed]
        return bool((row[book.F_SESSION : book.F_SESSION + 2] == session_words).all())

    def reached(self, feed: int) -> int:
        """Sequence number up to which the feed's session was applied or lost; the smallest integer for none."""
        return int(self.tables.feeds[feed, book.F_REACHED])

    # -- rare events -----------------------------------------------------------------------------------------------

    def lose(self, feed: int, last_seq: int) -> Array:
        """Make every book of the feed suspect; returns quotes (book.Q_ columns) of those that said something else."""
        t, n = self.tables, self[book.N_BOOKS]
        t.scalars[book.EPOCH] += 1
        t.feeds[feed, book.F_LOST] = self[book.EPOCH]
        t.feeds[feed, book.F_REACHED] = max(self.reached(feed), last_seq)
        own = np.flatnonzero(t.books[:n, book.B_FEED] == feed)
        t.books[own, book.B_STATE], t.books[own, book.B_GAP] = book.SUSPECT, self[book.EPOCH]
        t.books[own, book.B_OLD] = t.books[own, book.B_LIVE]
        said = t.books[own, book.B_SAID]
        return self._quotes(own[(said != book.UNSAID) & (said != book.SUSPECT)], book.SUSPECT)

    def drop(self, feed: int) -> Array:
        """Empty every book of the feed and trust it again; returns quotes of those that had a price."""
        t, n = self.tables, self[book.N_BOOKS]
        t.feeds[feed, book.F_LOST] = 0
        own = np.flatnonzero(t.books[:n, book.B_FEED] == feed)
        priced = (t.books[own, book.B_QUOTE : book.B_QUOTE + 4] != NULL_INT64).any(axis=1)
        t.sides[2 * own, book.S_LENGTH] = t.sides[2 * own + 1, book.S_LENGTH] = 0
        for column in (book.B_STATE, book.B_GAP, book.B_LIVE, book.B_OLD, book.B_MOVING, book.B_TYPE):
            t.books[own, column] = 0
        t.books[own, book.B_QUOTE : book.B_QUOTE + 4] = NULL_INT64
        slots = t.orders[:, book.O_SLOT]
        gone = (slots >= 0) & (t.books[slots >> 1, book.B_FEED] == feed)
        if gone.any():
            t.scalars[book.N_ORDERS] -= int(gone.sum())
            self._set_orders(t.orders[(slots >= 0) & ~gone], len(t.orders))
        quotes = self._quotes(own[priced], book.GOOD)
        t.books[own, book.B_SAID] = book.UNSAID
        return quotes

    def _quotes(self, books: Array, state: int) -> Array:
        """Say the last prices of these books with a new state, without a message."""
        t = self.tables
        t.books[books, book.B_SAID] = state
        quotes = np.empty((len(books), book.QUOTE_WIDTH), np.int64)
        quotes[:, book.Q_MESSAGE], quotes[:, book.Q_BOOK], quotes[:, book.Q_STATE] = -1, books, state
        quotes[:, book.Q_PRICES :] = t.books[books, book.B_QUOTE : book.B_QUOTE + 4]
        return quotes

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy what is in use; tables are packed, their order has no meaning."""
        t, n = self.tables, self[book.N_BOOKS]
        return {
            "orders": t.orders[t.orders[:, book.O_SLOT] >= 0],
            "books": t.books[:n].copy(),
            "sides": t.sides[: 2 * n].copy(),
            "levels": t.levels[: self[book.N_LEVELS]].copy(),
            "feeds": t.feeds[: self[book.N_FEEDS]].copy(),
            "scalars": t.scalars.copy(),
            "counters": t.counters.copy(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot; the limits stay those of the configuration."""
        limits = self.tables.scalars[[book.ORDERS_MAX, book.BOOKS_MAX]]
        scalars, counters = np.array(state["scalars"]), np.array(state["counters"])
        scalars[[book.ORDERS_MAX, book.BOOKS_MAX]] = limits
        n = len(state["books"])
        books_room = max(BOOKS_FIRST, _power_of_two(n))
        index = np.full(2 * books_room, -1, np.int64)
        books = _resized(state["books"], books_room)
        book.reindex(books, n, index)
        self.tables = Tables(
            orders=_orders_table(ORDERS_FIRST),
            books=books,
            sides=_resized(state["sides"], 2 * books_room),
            levels=_resized(state["levels"], max(LEVELS_FIRST, _power_of_two(len(state["levels"])))),
            by_symbol=index,
            feeds=_resized(state["feeds"], max(FEEDS_FIRST, _power_of_two(len(state["feeds"])))),
            scalars=scalars,
            counters=counters,
        )
        self._set_orders(np.array(state["orders"]), max(ORDERS_FIRST, _power_of_two(2 * len(state["orders"]))))
