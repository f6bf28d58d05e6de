"""Kernels of the order books: one loop applies feed messages in sequence to books that lie in arrays.

What a book is, by the kind of message that first names it:

    orders   add, execute, execute_price, cancel, delete, replace   an order reference leads to book, side, price
    levels   level                                                  the message says what rests at a price, 0 nothing
    top      quote                                                  the message says both best prices

All state is int64 in two-dimensional arrays, one row a thing, so that one cache line holds what a message touches:

    orders  open addressing, linear probing, hashed by reference; SLOT −1 is a free place
    books   one row a symbol of a feed; the symbol is found through `by_symbol` (open addressing as well)
    sides   two rows a book (slot = 2·book for bids, 2·book + 1 for asks): where its levels lie in the pool
    levels  the pool: per side a run of levels, worst price first, best price last
    feeds   feed name and session as words, the epoch of its last loss (0: none), the sequence number reached

An epoch is a count of the losses (and distrusted books) so far. An order, or a level of a price-level feed, that was
set in an earlier epoch than its book's GAP is old; a suspect book without old ones is good again.

The loop never allocates: where it needs room it stops before the message, says what it needs, and is called again.
It does not decide what was lost, does no I/O and knows no column names. All kernels of books stand in this one file,
because Numba's cache notices a change of a kernel's own file only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from akbypass import schemas
from akbypass.kernel import kernel
from akbypass.rows import Array
from akbypass.schemas import NULL_INT64

# Columns of the message matrix.
KIND, SIDE, REF, NEW_REF, PRICE, QUANTITY, BID_PRICE, BID_QUANTITY, ASK_PRICE, ASK_QUANTITY = range(10)
COMPLETE, PACKET_END, TOUCHED, SEQUENCE, SYMBOL, FEED, SESSION = 10, 11, 12, 13, 14, 16, 20
MESSAGE_WIDTH = 22  # symbol takes 2 words, feed 4, session 2

# Columns of the tables.
O_REF, O_SLOT, O_PRICE, O_QUANTITY, O_EPOCH, ORDER_WIDTH = range(6)
L_PRICE, L_QUANTITY, L_EPOCH, LEVEL_WIDTH = range(4)
S_START, S_LENGTH, S_CAPACITY, SIDE_WIDTH = range(4)
F_NAME, F_SESSION, F_LOST, F_REACHED, FEED_WIDTH = 0, 4, 6, 7, 8
B_FEED, B_SYMBOL, B_TYPE, B_STATE, B_GAP, B_LIVE, B_OLD, B_MOVING, B_LAST, B_SAID = 0, 1, 3, 4, 5, 6, 7, 8, 9, 10
B_MADE, B_QUOTE, BOOK_WIDTH = 11, 12, 16  # the message that made it; the last quote (4 numbers, as Q_PRICES)
# `scalars`: counts of used rows, and limits.
N_ORDERS, N_BOOKS, N_FEEDS, N_LEVELS, EPOCH, ORDERS_MAX, BOOKS_MAX, DISTRUSTED, FEED_NOW, SCALARS = range(10)
# Columns of a quote: the message that caused it, its book, state and prices.
Q_MESSAGE, Q_BOOK, Q_STATE, Q_PRICES, QUOTE_WIDTH = 0, 1, 2, 3, 7

COUNTERS = (
    "messages", "orders_unknown", "orders_unknown_lossless", "orders_duplicate", "above_resting", "incomplete",
    "mixed_kinds", "books_full", "orders_full", "levels_full", "overflow", "crossed_good", "feeds_full",
)  # fmt: skip
(C_MESSAGES, C_UNKNOWN, C_UNKNOWN_LOSSLESS, C_DUPLICATE, C_ABOVE, C_INCOMPLETE,
 C_MIXED, C_BOOKS_FULL, C_ORDERS_FULL, C_LEVELS_FULL, C_OVERFLOW, C_CROSSED, C_FEEDS_FULL) = range(13)  # fmt: skip

# Why the loop stopped; a book number (0 or more) or NOTHING is the ordinary outcome of one message.
NOTHING, NEED_ORDERS, NEED_LEVELS, NEED_BOOKS, NEED_FEED, RESET, DONE = -1, -2, -3, -4, -5, -6, -7

GOOD, SUSPECT, UNSAID = 0, 1, -1  # quote states; UNSAID: the book has not been quoted yet
ORDERS, LEVELS, TOP = 1, 2, 3  # book types
LEVELS_FIRST = 4  # levels that a side has room for at first (typical depth grows it by doubling)
FEEDS_MAX = 1_024  # feeds of one partition, as in arbitration
LEVELS_MAX = 65_536  # levels of one side; a real book has a few hundred, more is foreign data
ADD, EXECUTE, EXECUTE_PRICE, CANCEL, DELETE, REPLACE, QUOTE, LEVEL, SYSTEM = 1, 2, 3, 4, 5, 6, 10, 11, 15
BUY, SELL = 1, 2

_SCHEMA = schemas.load("market_data")
for _name, _code in {
    "add": ADD, "execute": EXECUTE, "execute_price": EXECUTE_PRICE, "cancel": CANCEL, "delete": DELETE,
    "replace": REPLACE, "quote": QUOTE, "level": LEVEL, "system": SYSTEM,
}.items():  # fmt: skip
    assert _SCHEMA.code("kind", _name) == _code, f"{_name} has moved; kernels hold ordinals as constants"
assert (_SCHEMA.code("side", "buy"), _SCHEMA.code("side", "sell")) == (BUY, SELL)


class Tables(NamedTuple):
    """The state of all books of one partition, as the kernels take it."""

    orders: Array
    books: Array
    sides: Array
    levels: Array
    by_symbol: Array
    feeds: Array
    scalars: Array
    counters: Array


@kernel
def _copy(table: Array, to: int, source: int) -> None:
    """Copy one row onto another; a plain loop compiles in a fraction of the time of a slice."""
    for k in range(table.shape[1]):
        table[to, k] = table[source, k]


@kernel
def _home(word: Any, mask: int) -> Any:
    """Return the place where a key belongs (Fibonacci hashing; the upper half of the product is well mixed)."""
    mixed = np.uint64(word) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed >> np.uint64(32)) & np.uint64(mask))


@kernel
def _find_order(t: Tables, feed: int, ref: int) -> Any:
    """Return the place of an order, or −1 − the free place where it would go."""
    mask = t.orders.shape[0] - 1
    h = _home(ref, mask)
    while t.orders[h, O_SLOT] >= 0:
        if t.orders[h, O_REF] == ref and t.books[t.orders[h, O_SLOT] >> 1, B_FEED] == feed:
            return h
        h = (h + 1) & mask
    return -1 - h


@kernel
def _erase_order(t: Tables, h: int) -> None:
    """Free a place and move later orders of its cluster up, so that no search ends early."""
    mask = t.orders.shape[0] - 1
    free, at = h, h
    while True:
        at = (at + 1) & mask
        if t.orders[at, O_SLOT] < 0:
            break
        home = _home(t.orders[at, O_REF], mask)
        if ((at - home) & mask) >= ((at - free) & mask):  # its home is at or before the free place
            _copy(t.orders, free, at)
            free = at
    t.orders[free, O_SLOT] = -1
    t.scalars[N_ORDERS] -= 1


@kernel
def _symbol_home(feed: int, word0: int, word1: int, mask: int) -> Any:
    mixed = np.uint64(word0) ^ (np.uint64(word1) * np.uint64(0xC2B2AE3D27D4EB4F)) ^ (np.uint64(feed) << np.uint64(56))
    return _home(np.int64(mixed ^ (mixed >> np.uint64(29))), mask)


@kernel
def _find_book(t: Tables, m: Array, i: int, feed: int, made: int) -> Any:
    """Return the book of a message's symbol, made when there is none; NOTHING at the limit, NEED_BOOKS without room."""
    word0, word1 = m[i, SYMBOL], m[i, SYMBOL + 1]
    mask = t.by_symbol.shape[0] - 1
    h = _symbol_home(feed, word0, word1, mask)
    while t.by_symbol[h] >= 0:
        b = t.by_symbol[h]
        if t.books[b, B_SYMBOL] == word0 and t.books[b, B_SYMBOL + 1] == word1 and t.books[b, B_FEED] == feed:
            if t.books[b, B_TYPE] == 0:
                t.books[b, B_TYPE] = made
            if t.books[b, B_TYPE] != made:
                t.counters[C_MIXED] += 1
                return NOTHING
            return b
        h = (h + 1) & mask
    b = t.scalars[N_BOOKS]
    if b >= t.scalars[BOOKS_MAX]:
        t.counters[C_BOOKS_FULL] += 1
        return NOTHING
    if b >= t.books.shape[0]:
        return NEED_BOOKS
    t.by_symbol[h] = b
    t.scalars[N_BOOKS] = b + 1
    for k in range(BOOK_WIDTH):
        t.books[b, k] = NULL_INT64 if k >= B_QUOTE else 0
    t.books[b, B_FEED], t.books[b, B_SYMBOL], t.books[b, B_SYMBOL + 1] = feed, word0, word1
    t.books[b, B_TYPE], t.books[b, B_SAID], t.books[b, B_MADE] = made, UNSAID, i
    if t.feeds[feed, F_LOST] > 0:  # adds of a symbol first seen now may be among what was lost
        t.books[b, B_STATE], t.books[b, B_GAP] = SUSPECT, t.feeds[feed, F_LOST]
    for k in range(SIDE_WIDTH):
        t.sides[2 * b, k] = t.sides[2 * b + 1, k] = 0
    return b


@kernel
def _distrust(t: Tables, b: int) -> None:
    """Make one book suspect: a message contradicts what it holds, so all that it holds now is in doubt."""
    t.scalars[EPOCH] += 1
    t.books[b, B_STATE], t.books[b, B_GAP], t.books[b, B_OLD] = SUSPECT, t.scalars[EPOCH], t.books[b, B_LIVE]
    t.scalars[DISTRUSTED] = 1


@kernel
def _find_level(t: Tables, slot: int, price: int) -> Any:
    """Return the place in the pool where a price lies or would be inserted."""
    low = t.sides[slot, S_START]
    high = low + t.sides[slot, S_LENGTH]
    sell = slot & 1
    while low < high:
        middle = (low + high) >> 1
        there = t.levels[middle, L_PRICE]
        if (there > price) if sell else (there < price):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _is_at(t: Tables, slot: int, at: int, price: int) -> Any:
    return at < t.sides[slot, S_START] + t.sides[slot, S_LENGTH] and t.levels[at, L_PRICE] == price


@kernel
def _has_room(t: Tables, slot: int) -> bool:
    """Make room for one more level of a side, moving it to the end of the pool when it has grown; False when full."""
    length, capacity = t.sides[slot, S_LENGTH], t.sides[slot, S_CAPACITY]
    if length < capacity:
        return True
    capacity = max(LEVELS_FIRST, 2 * capacity)
    start, old = t.scalars[N_LEVELS], t.sides[slot, S_START]
    if start + capacity > t.levels.shape[0]:
        return False
    for k in range(length):
        _copy(t.levels, start + k, old + k)
    t.sides[slot, S_START], t.sides[slot, S_CAPACITY] = start, capacity
    t.scalars[N_LEVELS] = start + capacity
    return True


@kernel
def _insert_level(t: Tables, slot: int, at: int, price: int, quantity: int) -> None:
    for k in range(t.sides[slot, S_START] + t.sides[slot, S_LENGTH], at, -1):
        _copy(t.levels, k, k - 1)
    t.levels[at, L_PRICE], t.levels[at, L_QUANTITY], t.levels[at, L_EPOCH] = price, quantity, t.scalars[EPOCH]
    t.sides[slot, S_LENGTH] += 1


@kernel
def _remove_level(t: Tables, slot: int, at: int) -> None:
    t.sides[slot, S_LENGTH] -= 1
    for k in range(at, t.sides[slot, S_START] + t.sides[slot, S_LENGTH]):
        _copy(t.levels, k, k + 1)


@kernel
def _reduce(t: Tables, h: int, quantity: int) -> None:
    """Take quantity, at most what rests, from an order and its level; the empty ones go."""
    slot = t.orders[h, O_SLOT]
    b = slot >> 1
    at = _find_level(t, slot, t.orders[h, O_PRICE])
    t.levels[at, L_QUANTITY] -= quantity
    if t.levels[at, L_QUANTITY] == 0:
        _remove_level(t, slot, at)
    t.orders[h, O_QUANTITY] -= quantity
    if t.orders[h, O_QUANTITY] == 0:
        t.books[b, B_LIVE] -= 1
        if t.orders[h, O_EPOCH] < t.books[b, B_GAP]:
            t.books[b, B_OLD] -= 1
        _erase_order(t, h)


@kernel
def _rest(t: Tables, feed: int, slot: int, ref: int, price: int, quantity: int) -> int:
    """Put an order that is not there into its book; room has been made. Returns the book."""
    b = slot >> 1
    at = _find_level(t, slot, price)
    if _is_at(t, slot, at, price):
        if t.levels[at, L_QUANTITY] > np.iinfo(np.int64).max - quantity:
            t.counters[C_OVERFLOW] += 1
            _distrust(t, b)
            return b
        t.levels[at, L_QUANTITY] += quantity
    else:
        _insert_level(t, slot, at, price, quantity)
    h = -1 - _find_order(t, feed, ref)
    t.orders[h, O_REF], t.orders[h, O_SLOT], t.orders[h, O_PRICE] = ref, slot, price
    t.orders[h, O_QUANTITY], t.orders[h, O_EPOCH] = quantity, t.scalars[EPOCH]
    t.scalars[N_ORDERS] += 1
    t.books[b, B_LIVE] += 1
    return b


@kernel
def _add(t: Tables, m: Array, i: int, feed: int) -> Any:
    side, ref, price, quantity = m[i, SIDE], m[i, REF], m[i, PRICE], m[i, QUANTITY]
    bad = side not in (BUY, SELL) or NULL_INT64 in (ref, price) or quantity <= 0 or m[i, SYMBOL] == 0
    if bad:
        t.counters[C_INCOMPLETE] += 1
        return NOTHING
    if (t.scalars[N_ORDERS] + 1) * 4 > t.orders.shape[0] * 3 and t.scalars[N_ORDERS] < t.scalars[ORDERS_MAX]:
        return NEED_ORDERS
    b = _find_book(t, m, i, feed, ORDERS)
    if b < 0:
        return b
    slot = 2 * b + (side == SELL)
    if _find_order(t, feed, ref) >= 0:
        t.counters[C_DUPLICATE] += 1
    elif t.scalars[N_ORDERS] >= t.scalars[ORDERS_MAX]:
        t.counters[C_ORDERS_FULL] += 1
    elif t.sides[slot, S_LENGTH] >= LEVELS_MAX:
        t.counters[C_LEVELS_FULL] += 1
    elif not _has_room(t, slot):
        return NEED_LEVELS
    else:
        return _rest(t, feed, slot, ref, price, quantity)
    _distrust(t, b)
    return b


@kernel
def _take(t: Tables, m: Array, i: int, feed: int) -> Any:
    """Apply execute, execute_price, cancel and delete."""
    h = _find_order(t, feed, m[i, REF])
    if h < 0:
        t.counters[C_UNKNOWN if t.feeds[feed, F_LOST] > 0 else C_UNKNOWN_LOSSLESS] += 1
        return NOTHING
    b, resting, quantity = t.orders[h, O_SLOT] >> 1, t.orders[h, O_QUANTITY], m[i, QUANTITY]
    if m[i, KIND] == DELETE:
        quantity = resting
    if quantity <= 0:
        t.counters[C_INCOMPLETE] += 1
        return NOTHING
    _reduce(t, h, min(quantity, resting))
    if quantity > resting:
        t.counters[C_ABOVE] += 1
        _distrust(t, b)
    return b


@kernel
def _replace(t: Tables, m: Array, i: int, feed: int) -> Any:
    """Exchange an order for one with a new reference, price and quantity; side and symbol stay."""
    ref, new_ref, price, quantity = m[i, REF], m[i, NEW_REF], m[i, PRICE], m[i, QUANTITY]
    if NULL_INT64 in (new_ref, price) or quantity <= 0:
        t.counters[C_INCOMPLETE] += 1
        return NOTHING
    h = _find_order(t, feed, ref)
    if h < 0:
        t.counters[C_UNKNOWN if t.feeds[feed, F_LOST] > 0 else C_UNKNOWN_LOSSLESS] += 1
        return NOTHING
    slot = t.orders[h, O_SLOT]
    if new_ref != ref and _find_order(t, feed, new_ref) >= 0:
        t.counters[C_DUPLICATE] += 1
        _distrust(t, slot >> 1)
        return slot >> 1
    if t.sides[slot, S_LENGTH] < LEVELS_MAX and not _has_room(t, slot):
        return NEED_LEVELS
    _reduce(t, h, t.orders[h, O_QUANTITY])
    if t.sides[slot, S_LENGTH] >= LEVELS_MAX:
        t.counters[C_LEVELS_FULL] += 1
        _distrust(t, slot >> 1)
        return slot >> 1
    return _rest(t, feed, slot, new_ref, price, quantity)


@kernel
def _level(t: Tables, m: Array, i: int, feed: int) -> Any:
    """Set what rests at a price; zero removes the level."""
    side, price, quantity = m[i, SIDE], m[i, PRICE], m[i, QUANTITY]
    if side not in (BUY, SELL) or price == NULL_INT64 or quantity < 0 or m[i, SYMBOL] == 0:
        t.counters[C_INCOMPLETE] += 1
        return NOTHING
    b = _find_book(t, m, i, feed, LEVELS)
    if b < 0:
        return b
    slot = 2 * b + (side == SELL)
    if t.sides[slot, S_LENGTH] >= LEVELS_MAX:
        t.counters[C_LEVELS_FULL] += 1
        _distrust(t, b)
        return b
    if not _has_room(t, slot):
        return NEED_LEVELS
    at = _find_level(t, slot, price)
    if _is_at(t, slot, at, price):
        if t.levels[at, L_EPOCH] < t.books[b, B_GAP]:
            t.books[b, B_OLD] -= 1
        if quantity == 0:
            _remove_level(t, slot, at)
            t.books[b, B_LIVE] -= 1
        else:
            t.levels[at, L_QUANTITY], t.levels[at, L_EPOCH] = quantity, t.scalars[EPOCH]
    elif quantity > 0:
        _insert_level(t, slot, at, price, quantity)
        t.books[b, B_LIVE] += 1
    t.books[b, B_MOVING] = 1 - m[i, COMPLETE]
    return b


@kernel
def _quote(t: Tables, m: Array, i: int, feed: int) -> Any:
    """Set both best prices; a side without quantity is empty."""
    if m[i, SYMBOL] == 0:
        t.counters[C_INCOMPLETE] += 1
        return NOTHING
    b = _find_book(t, m, i, feed, TOP)
    if b < 0:
        return b
    if not (_has_room(t, 2 * b) and _has_room(t, 2 * b + 1)):
        return NEED_LEVELS
    t.books[b, B_LIVE] = t.books[b, B_OLD] = 0
    for sell in range(2):
        price, quantity = m[i, BID_PRICE + 2 * sell], m[i, BID_QUANTITY + 2 * sell]
        t.sides[2 * b + sell, S_LENGTH] = 0
        if quantity > 0 and price != NULL_INT64:
            _insert_level(t, 2 * b + sell, t.sides[2 * b + sell, S_START], price, quantity)
            t.books[b, B_LIVE] += 1
    return b


@kernel
def _change(t: Tables, m: Array, i: int, feed: int) -> Any:
    """Apply one message; returns the book that it touched, NOTHING, or what is needed first."""
    kind = m[i, KIND]
    if kind == ADD:
        return _add(t, m, i, feed)
    if kind in (EXECUTE, EXECUTE_PRICE, CANCEL, DELETE):
        return _take(t, m, i, feed)
    if kind == REPLACE:
        return _replace(t, m, i, feed)
    if kind == LEVEL:
        return _level(t, m, i, feed)
    if kind == QUOTE:
        return _quote(t, m, i, feed)
    return RESET if kind == SYSTEM else NOTHING


@kernel
def _say(t: Tables, b: int, i: int, quotes: Array, n: int) -> int:
    """Write a quote if the book differs from its last one; returns the count of quotes."""
    if t.books[b, B_MOVING]:
        return n
    differs = t.books[b, B_SAID] >= 0 and t.books[b, B_SAID] != t.books[b, B_STATE]
    for sell in range(2):
        price = quantity = NULL_INT64
        length = t.sides[2 * b + sell, S_LENGTH]
        if length > 0:
            best = t.sides[2 * b + sell, S_START] + length - 1
            price, quantity = t.levels[best, L_PRICE], t.levels[best, L_QUANTITY]
        k = B_QUOTE + 2 * sell
        differs |= t.books[b, k] != price or t.books[b, k + 1] != quantity
        t.books[b, k], t.books[b, k + 1] = price, quantity
    if not differs:
        return n
    t.books[b, B_SAID] = t.books[b, B_STATE]
    quotes[n, Q_MESSAGE], quotes[n, Q_BOOK], quotes[n, Q_STATE] = i, b, t.books[b, B_STATE]
    for k in range(4):
        quotes[n, Q_PRICES + k] = t.books[b, B_QUOTE + k]
    both = t.books[b, B_QUOTE] != NULL_INT64 and t.books[b, B_QUOTE + 2] != NULL_INT64
    if both and t.books[b, B_STATE] == GOOD and t.books[b, B_QUOTE] > t.books[b, B_QUOTE + 2]:
        t.counters[C_CROSSED] += 1
    return n + 1


@kernel
def _feed_of(t: Tables, m: Array, i: int, feed: int) -> int:
    """Return the feed whose name and session the message carries, trying `feed` first; −1 when there is none."""
    for k in range(-1, t.scalars[N_FEEDS]):
        f = feed if k < 0 else k
        if 0 <= f < t.scalars[N_FEEDS]:
            same = True
            for w in range(6):
                if t.feeds[f, w] != m[i, FEED + w]:
                    same = False
                    break
            if same:
                return f
    return -1


@kernel
def apply(t: Tables, m: Array, start: int, stop: int, first: int, quotes: Array) -> tuple[int, int, int, int]:
    """Apply messages from `start` to before `stop`; `first` is the first message of the packet at `start`.

    Returns (count of quotes written, message at which the loop stopped, first message of its packet, why).
    """
    n = 0
    feed = t.scalars[FEED_NOW]
    for i in range(start, stop):
        t.scalars[DISTRUSTED] = 0
        b = NOTHING
        if m[i, FEED] == 0:  # the caller took the name away: too many feeds
            t.counters[C_FEEDS_FULL] += 1
        else:
            feed = _feed_of(t, m, i, feed)
            if feed < 0:
                t.scalars[FEED_NOW] = 0
                return n, i, first, NEED_FEED
            b = _change(t, m, i, feed)
            if b < NOTHING:
                t.scalars[FEED_NOW] = feed
                return n, i, first, b
            t.feeds[feed, F_REACHED] = m[i, SEQUENCE]
        t.counters[C_MESSAGES] += 1
        m[i, TOUCHED] = b
        if b >= 0:
            t.books[b, B_LAST] = i
            if t.books[b, B_STATE] == SUSPECT and t.books[b, B_OLD] == 0 and not t.scalars[DISTRUSTED]:
                t.books[b, B_STATE] = GOOD
        if m[i, PACKET_END]:
            for j in range(first, i + 1):
                touched = m[j, TOUCHED]
                if touched >= 0 and t.books[touched, B_LAST] == j:
                    n = _say(t, touched, j, quotes, n)
            first = i + 1
    t.scalars[FEED_NOW] = max(feed, 0)
    return n, stop, first, DONE


@kernel
def rehash(old: Array, new: Array) -> None:
    """Put the orders of one table into an empty, larger one."""
    mask = new.shape[0] - 1
    for i in range(old.shape[0]):
        if old[i, O_SLOT] >= 0:
            h = _home(old[i, O_REF], mask)
            while new[h, O_SLOT] >= 0:
                h = (h + 1) & mask
            for k in range(new.shape[1]):
                new[h, k] = old[i, k]


@kernel
def reindex(books: Array, n: int, index: Array) -> None:
    """Enter the first n books into an empty index."""
    mask = index.shape[0] - 1
    for b in range(n):
        h = _symbol_home(books[b, B_FEED], books[b, B_SYMBOL], books[b, B_SYMBOL + 1], mask)
        while index[h] >= 0:
            h = (h + 1) & mask
        index[h] = b


@kernel
def repack(sides: Array, n: int, old: Array, new: Array) -> int:
    """Copy the runs of n sides into another pool without the room left behind by runs that moved; returns its use."""
    top = 0
    for slot in range(n):
        start, length = sides[slot, S_START], sides[slot, S_LENGTH]
        for k in range(length):
            for c in range(new.shape[1]):
                new[top + k, c] = old[start + k, c]
        sides[slot, S_START] = top
        top += sides[slot, S_CAPACITY]
    return top
