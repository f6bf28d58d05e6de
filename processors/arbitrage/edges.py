"""Kernels of arbitrage: quotes in order → openings and closings of edges between venues of one instrument group.

For each ordered pair of venues of a group: edge = bid on the selling venue − ask on the buying venue, before costs.
It is open while it lies above the threshold, both quotes are good and both sides have a quantity.

All state is int64 in two-dimensional arrays, one row a thing:

    groups   name as words, first and last leg, legs, first open edge; found through `by_name` (open addressing)
    legs     the latest quote of a venue in a group; legs of a group are chained in the order in which they were seen
    edges    an open edge with what it was at its opening; edges of a group are chained, free rows as well

The loop never allocates: where it needs room it stops before the quote, says what it needs, and is called again.
It does no I/O, does not know costs, and knows no column names.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from akbypass import schemas
from akbypass.kernel import kernel
from akbypass.rows import Array
from akbypass.schemas import NULL_INT64

# Columns of the quote matrix; a leg keeps those from RUN_NS on.
GROUP, RUN_NS, CAPTURE_ID, CAPTURE_POS, SUB, STATE, BID, BID_QUANTITY, ASK, ASK_QUANTITY, QUOTE_ID, VENUE = (
    0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14,
)  # fmt: skip
QUOTE_WIDTH = 16  # group takes 3 words, quote id 2, venue 2
LEG_NEXT, LEG_WIDTH = 0, 16  # a leg has the columns of a quote; GROUP's words hold the next leg of the chain

G_NAME, G_FIRST, G_LAST, G_LEGS, G_EDGES, GROUP_WIDTH = 0, 3, 4, 5, 6, 7
(E_GROUP, E_BUY, E_SELL, E_NEXT, E_OPENED, E_CAPTURE_ID, E_CAPTURE_POS, E_SUB, E_EDGE, E_EDGE_MAX, E_QUANTITY,
 E_BUY_PRICE, E_SELL_PRICE, E_BUY_ID, E_SELL_ID, E_N, E_DUE) = (*range(14), 15, 17, 18)  # fmt: skip
EDGE_WIDTH = 19
# Columns of an event: an edge as it is then, and what happened to it.
V_REVISION, V_REASON, V_RUN_NS, V_CAPTURE_ID, V_CAPTURE_POS, EVENT_WIDTH = 19, 20, 21, 22, 23, 24
N_GROUPS, N_LEGS, N_EDGES, FREE, NEXT_DUE, GROUPS_MAX, EDGE_MIN, AGE_NS, SCALARS = range(9)

COUNTERS = ("quotes", "edges_suspect", "edges_stale", "groups_full", "venues_full", "prices_out_of_range")
C_QUOTES, C_SUSPECT, C_STALE, C_GROUPS_FULL, C_VENUES_FULL, C_RANGE = range(6)

DONE, NEED_GROUPS, NEED_LEGS, NEED_EDGES, NEED_EVENTS = 0, 1, 2, 3, 4
NONE = -1  # end of a chain
NEVER = int(np.iinfo(np.int64).max)
VENUES_MAX = 64  # legs of one group; more venues than any instrument trades on
CHANGES_MAX = 2 * VENUES_MAX  # edges that one quote can open or close
PRICE_LIMIT = 1 << 62  # a difference of two prices below this fits in 64 bits; larger ones are not prices
GOOD, SUSPECT, STALE = 0, 1, 2  # of quotes
BY_OPEN, BY_PRICE, BY_SUSPECT, BY_STALE, BY_END = range(5)
assert schemas.load("quotes").by_name["state"].symbols == ("good", "suspect", "stale")
assert schemas.load("arbitrage").by_name["closed_by"].symbols == ("open", "price", "suspect", "stale", "end")


class Tables(NamedTuple):
    """The state of all groups of one partition, as the kernels take it."""

    groups: Array
    legs: Array
    edges: Array
    by_name: Array
    scalars: Array
    counters: Array


@kernel
def _home(words: Array, row: int, mask: int) -> Any:
    """Return the place in the index where a group's name (3 words) belongs."""
    mixed = np.uint64(0)
    for k in range(3):
        mixed = (mixed ^ np.uint64(words[row, k])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.int64(mixed & np.uint64(mask))


@kernel
def reindex(groups: Array, n: int, index: Array) -> None:
    """Enter the first n groups into an empty index."""
    mask = index.shape[0] - 1
    for g in range(n):
        h = _home(groups, g, mask)
        while index[h] >= 0:
            h = (h + 1) & mask
        index[h] = g


@kernel
def _find_group(t: Tables, q: Array, i: int) -> Any:
    """Return the group of a quote, or −1 − the free place in the index."""
    mask = t.by_name.shape[0] - 1
    h = _home(q, i, mask)
    while t.by_name[h] >= 0:
        g = t.by_name[h]
        if t.groups[g, 0] == q[i, 0] and t.groups[g, 1] == q[i, 1] and t.groups[g, 2] == q[i, 2]:
            return g
        h = (h + 1) & mask
    return -1 - h


@kernel
def _add_group(t: Tables, q: Array, i: int, h: int) -> Any:
    g = t.scalars[N_GROUPS]
    t.scalars[N_GROUPS] = g + 1
    t.by_name[h] = g
    for k in range(3):
        t.groups[g, k] = q[i, k]
    t.groups[g, G_FIRST] = t.groups[g, G_LAST] = t.groups[g, G_EDGES] = NONE
    t.groups[g, G_LEGS] = 0
    return g


@kernel
def _find_leg(t: Tables, q: Array, i: int, g: int) -> Any:
    """Return the leg of a quote's venue, made when there is none, or NONE at the limit."""
    leg = t.groups[g, G_FIRST]
    while leg != NONE:
        if t.legs[leg, VENUE] == q[i, VENUE] and t.legs[leg, VENUE + 1] == q[i, VENUE + 1]:
            return leg
        leg = t.legs[leg, LEG_NEXT]
    if t.groups[g, G_LEGS] >= VENUES_MAX:
        return NONE
    leg = t.scalars[N_LEGS]
    t.scalars[N_LEGS] = leg + 1
    t.groups[g, G_LEGS] += 1
    t.legs[leg, LEG_NEXT] = NONE
    if t.groups[g, G_FIRST] == NONE:
        t.groups[g, G_FIRST] = leg
    else:
        t.legs[t.groups[g, G_LAST], LEG_NEXT] = leg
    t.groups[g, G_LAST] = leg
    return leg


@kernel
def _find_edge(t: Tables, g: int, buy: int, sell: int) -> Any:
    e = t.groups[g, G_EDGES]
    while e != NONE and (t.edges[e, E_BUY] != buy or t.edges[e, E_SELL] != sell):
        e = t.edges[e, E_NEXT]
    return e


@kernel
def _doubt(t: Tables, leg: int, now_ns: int) -> Any:
    """Return whether a quote is GOOD, SUSPECT or STALE now."""
    state = t.legs[leg, STATE]
    age_ns = t.scalars[AGE_NS]
    if state == GOOD and age_ns > 0 and now_ns - t.legs[leg, RUN_NS] >= age_ns:
        return STALE
    return state


@kernel
def _is_price(price: int, quantity: int) -> bool:
    return quantity > 0 and -PRICE_LIMIT < price < PRICE_LIMIT  # unknown is the smallest integer


@kernel
def simple_edge(t: Tables, buy: int, sell: int) -> Any:
    """Edge model `simple`: best bid − best ask, before costs; both must be prices."""
    return t.legs[sell, BID] - t.legs[buy, ASK]


@kernel
def _write(t: Tables, e: int, events: Array, n: int, revision: int, reason: int, run_ns: int, leg: int) -> int:
    """Write an event that a leg's latest quote has caused; returns the count of events."""
    for k in range(EDGE_WIDTH):
        events[n, k] = t.edges[e, k]
    events[n, V_REVISION], events[n, V_REASON], events[n, V_RUN_NS] = revision, reason, run_ns
    events[n, V_CAPTURE_ID], events[n, V_CAPTURE_POS] = t.legs[leg, CAPTURE_ID], t.legs[leg, CAPTURE_POS]
    return n + 1


@kernel
def _due(t: Tables, buy: int, sell: int) -> Any:
    """Return when the older of two quotes becomes stale."""
    if t.scalars[AGE_NS] == 0:
        return NEVER
    due = min(t.legs[buy, RUN_NS], t.legs[sell, RUN_NS]) + t.scalars[AGE_NS]
    t.scalars[NEXT_DUE] = min(t.scalars[NEXT_DUE], due)
    return due


@kernel
def _open(t: Tables, g: int, buy: int, sell: int, by: int) -> Any:
    """Open an edge that leg `by` has caused; room has been made."""
    e = t.scalars[FREE]
    t.scalars[FREE] = t.edges[e, E_NEXT]
    t.scalars[N_EDGES] += 1
    ask, bid = t.legs[buy, ASK], t.legs[sell, BID]
    t.edges[e, E_GROUP], t.edges[e, E_BUY], t.edges[e, E_SELL] = g, buy, sell
    t.edges[e, E_NEXT], t.groups[g, G_EDGES] = t.groups[g, G_EDGES], e
    t.edges[e, E_OPENED], t.edges[e, E_CAPTURE_ID] = t.legs[by, RUN_NS], t.legs[by, CAPTURE_ID]
    t.edges[e, E_CAPTURE_POS], t.edges[e, E_SUB] = t.legs[by, CAPTURE_POS], t.legs[by, SUB]
    t.edges[e, E_EDGE] = t.edges[e, E_EDGE_MAX] = simple_edge(t, buy, sell)
    t.edges[e, E_QUANTITY] = min(t.legs[buy, ASK_QUANTITY], t.legs[sell, BID_QUANTITY])
    t.edges[e, E_BUY_PRICE], t.edges[e, E_SELL_PRICE] = ask, bid
    for k in range(2):
        t.edges[e, E_BUY_ID + k], t.edges[e, E_SELL_ID + k] = t.legs[buy, QUOTE_ID + k], t.legs[sell, QUOTE_ID + k]
    t.edges[e, E_N], t.edges[e, E_DUE] = 1, _due(t, buy, sell)
    return e


@kernel
def _close(t: Tables, e: int) -> None:
    """Take an edge out of its group's chain and free its row."""
    g = t.edges[e, E_GROUP]
    if t.groups[g, G_EDGES] == e:
        t.groups[g, G_EDGES] = t.edges[e, E_NEXT]
    else:
        before = t.groups[g, G_EDGES]
        while t.edges[before, E_NEXT] != e:
            before = t.edges[before, E_NEXT]
        t.edges[before, E_NEXT] = t.edges[e, E_NEXT]
    t.edges[e, E_GROUP], t.edges[e, E_NEXT] = NONE, t.scalars[FREE]
    t.scalars[FREE] = e
    t.scalars[N_EDGES] -= 1


@kernel
def _judge(t: Tables, g: int, buy: int, sell: int, by: int, events: Array, n: int) -> int:
    """Look at one pair after a quote of leg `by`, one of the two; returns the count of events."""
    now_ns = t.legs[by, RUN_NS]
    has_edge = _is_price(t.legs[buy, ASK], t.legs[buy, ASK_QUANTITY])
    has_edge &= _is_price(t.legs[sell, BID], t.legs[sell, BID_QUANTITY])
    has_edge = has_edge and simple_edge(t, buy, sell) > t.scalars[EDGE_MIN]
    e = _find_edge(t, g, buy, sell) if t.groups[g, G_EDGES] != NONE else NONE
    if e == NONE and not has_edge:
        return n
    one, other = _doubt(t, buy, now_ns), _doubt(t, sell, now_ns)
    suspect, stale = SUSPECT in (one, other), STALE in (one, other)
    if e == NONE:
        if suspect:
            t.counters[C_SUSPECT] += 1
        elif stale:
            t.counters[C_STALE] += 1
        else:
            n = _write(t, _open(t, g, buy, sell, by), events, n, 0, BY_OPEN, now_ns, by)
        return n
    t.edges[e, E_N] += 1
    if suspect or stale or not has_edge:
        reason = BY_SUSPECT if suspect else BY_STALE if stale else BY_PRICE
        n = _write(t, e, events, n, 1, reason, now_ns, by)
        _close(t, e)
        return n
    t.edges[e, E_EDGE_MAX] = max(t.edges[e, E_EDGE_MAX], simple_edge(t, buy, sell))
    t.edges[e, E_DUE] = _due(t, buy, sell)
    return n


@kernel
def expire(t: Tables, until_ns: int, events: Array, n: int) -> int:
    """Close edges of which a quote becomes stale up to and at `until_ns`; `events` has room for all open ones."""
    due_ns = NEVER
    for e in range(t.edges.shape[0]):
        if t.edges[e, E_GROUP] == NONE:
            continue
        if t.edges[e, E_DUE] > until_ns:
            due_ns = min(due_ns, t.edges[e, E_DUE])
            continue
        buy, sell = t.edges[e, E_BUY], t.edges[e, E_SELL]
        older = buy if t.legs[buy, RUN_NS] <= t.legs[sell, RUN_NS] else sell
        n = _write(t, e, events, n, 1, BY_STALE, t.edges[e, E_DUE], older)
        _close(t, e)
    t.scalars[NEXT_DUE] = due_ns
    return n


@kernel
def run_simple(t: Tables, q: Array, start: int, events: Array) -> tuple[int, int, int]:
    """Take quotes under the edge model `simple`, from `start` on; returns (count of events, quote at which it stopped, what it needs)."""
    n = 0
    for i in range(start, q.shape[0]):
        if n + CHANGES_MAX + t.scalars[N_EDGES] > events.shape[0]:
            return n, i, NEED_EVENTS
        if t.scalars[NEXT_DUE] <= q[i, RUN_NS]:
            n = expire(t, q[i, RUN_NS], events, n)
        if t.scalars[N_EDGES] + CHANGES_MAX > t.edges.shape[0]:
            return n, i, NEED_EDGES
        if t.scalars[N_LEGS] >= t.legs.shape[0]:
            return n, i, NEED_LEGS
        g = _find_group(t, q, i)
        if g < 0:
            if t.scalars[N_GROUPS] >= t.scalars[GROUPS_MAX]:
                t.counters[C_GROUPS_FULL] += 1
                continue
            if t.scalars[N_GROUPS] >= t.groups.shape[0]:
                return n, i, NEED_GROUPS
            g = _add_group(t, q, i, -1 - g)
        by = _find_leg(t, q, i, g)
        if by == NONE:
            t.counters[C_VENUES_FULL] += 1
            continue
        for k in range(RUN_NS, QUOTE_WIDTH):
            t.legs[by, k] = q[i, k]
        for k in (BID, ASK):
            t.counters[C_RANGE] += q[i, k] != NULL_INT64 and not -PRICE_LIMIT < q[i, k] < PRICE_LIMIT
        t.counters[C_QUOTES] += 1
        leg = t.groups[g, G_FIRST]
        while leg != NONE:
            if leg != by:
                n = _judge(t, g, leg, by, by, events, n)
                n = _judge(t, g, by, leg, by, events, n)
            leg = t.legs[leg, LEG_NEXT]
    return n, q.shape[0], DONE
