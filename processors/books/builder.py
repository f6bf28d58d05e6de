"""The books core: market data of all lines → arbitration → order books → a quote whenever the best prices change.

A packet is atomic for whoever reads it: however many messages of it touch a symbol, one quote follows the last of
them. IEX DEEP spreads one event over several price levels and says when it is complete (event flag bit 0); until then
the symbol's quote waits, so a good book is not crossed by its own updates. Packets that arbitration had held back keep
their own quotes, all at the time at which the hole in front of them was filled or given up.

When a message is lost on all lines, every book of its feed and session becomes suspect at once. A book is good again
after a message of its symbol that leaves no live order (price-level feeds: no live level) from before the loss; quote
feeds: after its next quote; all: at a system event "start of messages", or in a new session. A symbol first seen after
a loss is under the same rule: it has no order from before, and lost adds can only make its shown prices worse, never
better, than the true ones. A message that contradicts its book (more executed than rests, a reference used twice, no
room) makes that one book suspect until the same rule heals it.

At the end of a session its books are dropped: symbols that had a price get a quote without prices. Trades do not
touch a book; halts and quote ages are not looked at here, and depth below the best price is kept but not published.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from akbypass.config import Config
from akbypass.order import restrict
from akbypass.processors.arbitration import Sequenced, Sequencer
from akbypass.processors.books import book
from akbypass.processors.books.sessions import Cause, Event, SessionEnds, cause_of, losses_of, words_of
from akbypass.processors.books.state import BookState
from akbypass.rows import Array, Rows
from akbypass.schemas import NULL_INT64

START_OF_MESSAGES = b"O"  # system event code of ITCH 5.0 (section 4.1) and IEX TOPS/DEEP: a new day begins
DEEP_LEVEL_TYPES = (b"8", b"5")  # IEX DEEP price level update, buy and sell: the ones that carry the event flag
EVENT_COMPLETE = 0x1
MATRIX = {
    book.KIND: "kind", book.SIDE: "side", book.REF: "order_ref", book.NEW_REF: "new_order_ref",
    book.PRICE: "price_nanos", book.QUANTITY: "quantity_nanos",
    book.BID_PRICE: "bid_price_nanos", book.BID_QUANTITY: "bid_quantity_nanos",
    book.ASK_PRICE: "ask_price_nanos", book.ASK_QUANTITY: "ask_quantity_nanos", book.SEQUENCE: "sequence",
}  # fmt: skip
PRICES = ("bid_price_nanos", "bid_quantity_nanos", "ask_price_nanos", "ask_quantity_nanos")


class BooksCore:
    """Books of one run and one partition. `counters` says what was ignored and why (counts)."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self.config = config
        self.sequencer = Sequencer(config)
        self.state = BookState(config.thresholds.books_max, config.thresholds.book_orders_max)
        self.names = {"symbol": np.empty(0, "S24"), "venue": np.empty(0, "S16"), "feed": np.empty(0, "S32")}  # per book
        self.ends = SessionEnds()
        self.quotes = 0
        self.losses = 0

    @property
    def counters(self) -> dict[str, int]:
        """Messages applied, quotes, losses, and messages ignored by reason (counts)."""
        kernels = zip(book.COUNTERS, self.state.tables.counters.tolist(), strict=True)
        return {**dict(kernels), "quotes": self.quotes, "losses": self.losses}

    # -- one step --------------------------------------------------------------------------------------------------

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Advance to the watermark and return quotes."""
        frames = restrict(inputs, "feed_frames", "feed_frames")
        done = self.sequencer.step(frames, restrict(inputs, "market_data", "market_data"), watermark_ns, end)
        # done.messages: in sequence, each once, with the row that released it
        events = sorted(
            [*losses_of(done), *self.ends.events(frames, done, self.state)], key=lambda e: (e.before, e.cause, e.is_end)
        )
        matrix = _matrix(done, [e.before for e in events])
        made: list[Rows] = []
        at = 0
        for event in events:
            self._apply(matrix, at, event.before, done, made)
            self._happen(event, made)
            at = event.before
        self._apply(matrix, at, len(matrix), done, made)
        self.quotes += sum(len(rows) for rows in made)
        return {"quotes": Rows.concat(made)} if made else {}

    def _apply(self, matrix: Array, start: int, stop: int, done: Sequenced, made: list[Rows]) -> None:
        """Run the kernel over messages start to stop, giving it what it asks for on the way."""
        at, first = start, start
        quotes = np.empty((stop - start, book.QUOTE_WIDTH), np.int64)
        while at < stop:
            n, at, first, why = book.apply(self.state.tables, matrix, at, stop, first, quotes)
            self._name_books(done)
            if n:
                made.append(self._from_messages(quotes[:n].copy(), done))
            if why == book.NEED_FEED:
                self._enter(matrix, at, done, made)
            elif why == book.RESET:
                feed = self.state[book.FEED_NOW]
                matrix[at, book.KIND] = 0  # done here; the loop goes on with it as a message without effect
                stamps = done.messages["sequence"][at], done.messages["ts_wire_ns"][at]
                self._append(self.state.drop(feed), cause_of(done, at), *stamps, made)
            elif why != book.DONE:
                self.state.make_room(why)

    def _enter(self, matrix: Array, i: int, done: Sequenced, made: list[Rows]) -> None:
        """Meet a new feed, or a new session of a known one."""
        feed, session = matrix[i, book.FEED : book.FEED + 4], matrix[i, book.SESSION : book.SESSION + 2]
        if self._is_full(feed):
            matrix[(matrix[:, book.FEED : book.FEED + 4] == feed).all(axis=1), book.FEED] = 0  # ignored and counted
            return
        dropped = self._meet(feed, session)
        self._append(dropped, cause_of(done, i), done.messages["sequence"][i], done.messages["ts_wire_ns"][i], made)

    def _is_full(self, feed_words: Array) -> bool:
        return self.state[book.N_FEEDS] >= book.FEEDS_MAX and self.state.feed_number(feed_words) < 0

    def _meet(self, feed_words: Array, session_words: Array) -> Array:
        """Make sure that the feed is known and in this session; returns the quotes of books that it dropped."""
        feed = self.state.feed_number(feed_words)
        if feed < 0:
            self.state.add_feed(feed_words, session_words)
        elif not self.state.is_in_session(feed, session_words):
            dropped = self.state.drop(feed)
            self.state.set_session(feed, session_words)
            return dropped
        return np.empty((0, book.QUOTE_WIDTH), np.int64)

    def _happen(self, event: Event, made: list[Rows]) -> None:
        """Apply a loss or the end of a session."""
        if event.is_end:
            feed = self.state.feed_number(event.feed)
            if feed >= 0 and self.state.is_in_session(feed, event.session):
                self._append(self.state.drop(feed), event.cause, event.seq - 1, NULL_INT64, made)
            return
        self.losses += 1
        if self._is_full(event.feed):
            return
        dropped = self._meet(event.feed, event.session)
        lost = self.state.lose(self.state.feed_number(event.feed), event.seq)
        self._append(np.concatenate([dropped, lost]), event.cause, event.seq, NULL_INT64, made)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _name_books(self, done: Sequenced) -> None:
        """Give books made by the last kernel call their names; the message that made them has them."""
        known, n = len(self.names["symbol"]), self.state[book.N_BOOKS]
        if known == n:
            return
        messages = done.messages.take(self.state.tables.books[known:n, book.B_MADE])
        groups = [
            self.config.group_of(venue.decode("ascii", "replace"), symbol.decode("ascii", "replace")).encode()[:24]
            for venue, symbol in zip(messages["venue"].tolist(), messages["symbol"].tolist(), strict=True)
        ]
        new = {"symbol": np.array(groups, "S24"), "venue": messages["venue"], "feed": messages["feed"]}
        self.names = {k: np.concatenate([v, new[k]]) for k, v in self.names.items()}

    def _rows(self, quotes: Array, **columns: Array | int) -> Rows:
        b = quotes[:, book.Q_BOOK]
        names = {k: v[b] for k, v in self.names.items()}
        prices = dict(zip(PRICES, quotes[:, book.Q_PRICES :].T, strict=True))
        return Rows.build("quotes", len(quotes), **columns, **names, **prices, state=quotes[:, book.Q_STATE])

    def _from_messages(self, quotes: Array, done: Sequenced) -> Rows:
        i = quotes[:, book.Q_MESSAGE]
        return self._rows(
            quotes,
            run_ns=done.cause_run_ns[i],
            capture_id=done.cause_capture_id[i],
            capture_pos=done.cause_capture_pos[i],
            ts_capture_ns=done.cause_run_ns[i],
            ts_wire_ns=done.messages["ts_wire_ns"][i],
            sequence=done.messages["sequence"][i],
        )

    def _append(self, quotes: Array, cause: Cause, sequence: int, ts_wire_ns: int, made: list[Rows]) -> None:
        """Append rows of quotes that no message of their symbol caused."""
        if len(quotes):
            stamps = {"ts_capture_ns": cause.run_ns, "ts_wire_ns": ts_wire_ns}
            made.append(self._rows(quotes, **cause._asdict(), **stamps, sequence=sequence))

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state."""
        return {
            **{f"sequencer.{k}": v for k, v in self.sequencer.snapshot().items()},
            **{f"state.{k}": v for k, v in self.state.snapshot().items()},
            **{f"names.{k}": v.copy() for k, v in self.names.items()},
            "ends": self.ends.snapshot(),
            "counts": np.array([self.quotes, self.losses], np.int64),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        self.sequencer.restore(_part(state, "sequencer."))
        self.state.restore(_part(state, "state."))
        self.names = {k: np.array(v) for k, v in _part(state, "names.").items()}
        self.ends.restore(state["ends"])
        self.quotes, self.losses = (int(v) for v in state["counts"])


def _part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _matrix(done: Sequenced, cuts: list[int]) -> Array:
    """Lay messages out for the kernel, with the last message of each packet marked (and the last before each cut)."""
    messages = done.messages
    n = len(messages)
    matrix = np.empty((n, book.MESSAGE_WIDTH), np.int64)
    for column, name in MATRIX.items():
        matrix[:, column] = messages[name]
    for column, name in ((book.SYMBOL, "symbol"), (book.FEED, "feed"), (book.SESSION, "session")):
        words = words_of(messages[name])
        matrix[:, column : column + words.shape[1]] = words
    is_system = matrix[:, book.KIND] == book.SYSTEM
    matrix[is_system & (messages["condition"] != START_OF_MESSAGES), book.KIND] = 0
    is_deep = np.isin(messages["message_type"], DEEP_LEVEL_TYPES)
    matrix[:, book.COMPLETE] = ~is_deep | (messages["flags"] & EVENT_COMPLETE != 0)
    matrix[:, book.TOUCHED] = book.NOTHING
    matrix[:, book.PACKET_END] = 1
    same = np.ones(max(n - 1, 0), bool)
    own = (messages["feed"], messages["capture_id"], messages["capture_pos"])
    for key in (*own, done.cause_run_ns, done.cause_capture_id, done.cause_capture_pos):
        same &= key[1:] == key[:-1]
    matrix[:-1, book.PACKET_END] = ~same
    matrix[[c - 1 for c in cuts if c > 0], book.PACKET_END] = 1
    return matrix
