"""The arbitrage core: quotes per venue → opportunities, each with an opening row and a closing row of the same id.

An opportunity opens when best bid − best ask across two venues exceeds the threshold, both books are good, neither
quote has reached its age limit, and both sides have a quantity. It closes at the first quote after which one of these
no longer holds, at the moment a quote reaches its age limit, or with the run. An edge that first shows while a book is
suspect or a quote too old is not opened but counted; it opens at the first quote of its two venues at which both are
good and it still holds. Quotes are taken one by one in order, so an edge may open and close within a nanosecond.

It follows one quote per venue and group, does not look below the best price, and does not judge whether the edge could
have been caught. Times are capture times of the causing packets; their distance is exact to the stamps (u_ns = 1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import akbypass
from akbypass.config import Config
from akbypass.order import make_id, restrict
from akbypass.processors.arbitrage import edges
from akbypass.processors.arbitrage.edges import Tables
from akbypass.rows import Array, Rows
from akbypass.schemas import NULL_INT64

GROUPS_FIRST, LEGS_FIRST, EDGES_FIRST = 64, 256, 256  # rows at the start; each grows by doubling
EVENTS_ROOM = 4_096  # events that one kernel call can write beyond those of open edges
STAMP_NS = 1  # half-width of a duration between two stamps of one clock
EDGE_MODELS = {"simple": edges.run_simple}  # thresholds.edge_model → the kernel that takes quotes under it
MATRIX = {
    edges.RUN_NS: "run_ns", edges.CAPTURE_ID: "capture_id", edges.CAPTURE_POS: "capture_pos", edges.SUB: "sub",
    edges.STATE: "state", edges.BID: "bid_price_nanos", edges.BID_QUANTITY: "bid_quantity_nanos",
    edges.ASK: "ask_price_nanos", edges.ASK_QUANTITY: "ask_quantity_nanos",
}  # fmt: skip


class ArbitrageCore:
    """Open edges of one run and one partition. `counters` says what was seen and excluded (counts)."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self.run_id = run_id
        self.take_quotes = EDGE_MODELS[config.thresholds.edge_model]
        self.cost_nanos = config.thresholds.edge_cost_nanos
        scalars = np.zeros(edges.SCALARS, np.int64)
        scalars[edges.FREE], scalars[edges.NEXT_DUE] = edges.NONE, edges.NEVER
        self.limits = {
            edges.GROUPS_MAX: config.thresholds.books_max,
            edges.EDGE_MIN: config.thresholds.edge_min_nanos,
            edges.AGE_NS: config.thresholds.quote_age_ms * 1_000_000,
        }
        for scalar, limit in self.limits.items():
            scalars[scalar] = limit
        self.tables = Tables(
            groups=np.zeros((GROUPS_FIRST, edges.GROUP_WIDTH), np.int64),
            legs=np.zeros((LEGS_FIRST, edges.LEG_WIDTH), np.int64),
            edges=np.zeros((0, edges.EDGE_WIDTH), np.int64),
            by_name=np.full(2 * GROUPS_FIRST, -1, np.int64),
            scalars=scalars,
            counters=np.zeros(len(edges.COUNTERS), np.int64),
        )
        self._make_room(edges.NEED_EDGES)

    @property
    def counters(self) -> dict[str, int]:
        """Quotes taken, edges not opened by reason (one per quote that showed them), quotes ignored by reason."""
        return dict(zip(edges.COUNTERS, self.tables.counters.tolist(), strict=True))

    # -- one step --------------------------------------------------------------------------------------------------

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Advance to the watermark and return openings and closings."""
        quotes = restrict(inputs, "quotes", "quotes")
        matrix = _matrix(quotes)
        found: list[Array] = []
        at, need = 0, edges.DONE
        while at < len(matrix):
            events = self._events_buffer()
            n, at, need = self.take_quotes(self.tables, matrix, at, events)
            found.append(events[:n])
            self._make_room(need)
        found.append(self._finish(watermark_ns, end))
        changes = np.concatenate(found)
        return {"arbitrage": self._rows(changes)} if len(changes) else {}

    def _events_buffer(self) -> Array:
        return np.empty((EVENTS_ROOM + int(self.tables.scalars[edges.N_EDGES]), edges.EVENT_WIDTH), np.int64)

    def _finish(self, watermark_ns: int, end: bool) -> Array:
        """Fire timers due before the watermark; at the end of the run close what is open."""
        events, n = self._events_buffer(), 0
        if self.tables.scalars[edges.NEXT_DUE] < watermark_ns:
            n = edges.expire(self.tables, watermark_ns - 1, events, 0)
        if not end:
            return events[:n]
        t = self.tables
        still = t.edges[t.edges[:, edges.E_GROUP] != edges.NONE]
        last = np.empty((len(still), edges.EVENT_WIDTH), np.int64)
        last[:, : edges.EDGE_WIDTH] = still
        last[:, edges.V_REVISION], last[:, edges.V_REASON], last[:, edges.V_RUN_NS] = 1, edges.BY_END, watermark_ns
        last[:, edges.V_CAPTURE_ID : edges.V_CAPTURE_POS + 1] = still[:, edges.E_CAPTURE_ID : edges.E_CAPTURE_POS + 1]
        return np.concatenate([events[:n], last])

    def _make_room(self, need: int) -> None:
        """Grow what the kernel found too small; events need nothing but another call."""
        t = self.tables
        if need == edges.NEED_GROUPS:
            index = np.full(2 * len(t.by_name), -1, np.int64)
            edges.reindex(t.groups, int(t.scalars[edges.N_GROUPS]), index)
            self.tables = t._replace(groups=_doubled(t.groups), by_name=index)
        elif need == edges.NEED_LEGS:
            self.tables = t._replace(legs=_doubled(t.legs))
        elif need == edges.NEED_EDGES:
            old, new = len(t.edges), max(EDGES_FIRST, 2 * len(t.edges))
            table = np.zeros((new, edges.EDGE_WIDTH), np.int64)
            table[:old] = t.edges
            table[old:, edges.E_GROUP] = edges.NONE
            table[old:, edges.E_NEXT] = np.append(np.arange(old + 1, new), t.scalars[edges.FREE])
            t.scalars[edges.FREE] = old
            self.tables = t._replace(edges=table)

    # -- rows ------------------------------------------------------------------------------------------------------

    def _rows(self, events: Array) -> Rows:
        t, n = self.tables, len(events)
        symbol = _text(t.groups[events[:, edges.E_GROUP], edges.G_NAME : edges.G_NAME + 3])
        buy, sell = (_text(t.legs[events[:, e], edges.VENUE : edges.VENUE + 2]) for e in (edges.E_BUY, edges.E_SELL))
        closed = events[:, edges.V_REVISION] == 1
        run_ns, opened_ns = events[:, edges.V_RUN_NS], events[:, edges.E_OPENED]
        cause = events[:, edges.E_CAPTURE_ID : edges.E_SUB + 1].tolist()
        names = zip(symbol.tolist(), buy.tolist(), sell.tolist(), opened_ns.tolist(), cause, strict=True)
        return Rows.build(
            "arbitrage",
            n,
            run_ns=run_ns,
            capture_id=events[:, edges.V_CAPTURE_ID],
            capture_pos=events[:, edges.V_CAPTURE_POS],
            id=np.array([make_id("arbitrage", self.run_id, g, b, s, o, *c) for g, b, s, o, c in names], "S16"),
            revision=events[:, edges.V_REVISION],
            symbol=symbol,
            buy_venue=buy,
            sell_venue=sell,
            opened_ns=opened_ns,
            closed_ns=np.where(closed, run_ns, NULL_INT64),
            duration_ns=np.where(closed, run_ns - opened_ns, NULL_INT64),
            closed_by=events[:, edges.V_REASON],
            edge_nanos=events[:, edges.E_EDGE],
            edge_max_nanos=events[:, edges.E_EDGE_MAX],
            quantity_nanos=events[:, edges.E_QUANTITY],
            profit_nanos=events[:, edges.E_EDGE] - self.cost_nanos,
            buy_price_nanos=events[:, edges.E_BUY_PRICE],
            sell_price_nanos=events[:, edges.E_SELL_PRICE],
            buy_quote_id=_text(events[:, edges.E_BUY_ID : edges.E_BUY_ID + 2]),
            sell_quote_id=_text(events[:, edges.E_SELL_ID : edges.E_SELL_ID + 2]),
            u_ns=np.full(n, STAMP_NS),
            n=events[:, edges.E_N],
            clock_source=np.full(n, b"file"),
            decoder_version=np.full(n, akbypass.__version__.encode()),
        )

    # -- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state."""
        return {name: array.copy() for name, array in self.tables._asdict().items() if name != "by_name"}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot; limits stay those of the configuration."""
        copied = {name: np.array(array) for name, array in state.items()}
        for scalar, limit in self.limits.items():
            copied["scalars"][scalar] = limit
        index = np.full(2 * len(copied["groups"]), -1, np.int64)
        edges.reindex(copied["groups"], int(copied["scalars"][edges.N_GROUPS]), index)
        self.tables = Tables(**copied, by_name=index)


def _doubled(array: Array) -> Array:
    made = np.zeros((2 * len(array), array.shape[1]), np.int64)
    made[: len(array)] = array
    return made


def _text(words: Array) -> Array:
    """Read rows of integers as the strings that they came from."""
    width = 8 * words.shape[1]
    return np.ascontiguousarray(words).view(f"S{width}").reshape(len(words))


def _matrix(quotes: Rows) -> Array:
    """Lay quotes out for the kernel."""
    n = len(quotes)
    matrix = np.empty((n, edges.QUOTE_WIDTH), np.int64)
    for column, name in MATRIX.items():
        matrix[:, column] = quotes[name]
    for column, name in ((edges.GROUP, "symbol"), (edges.VENUE, "venue"), (edges.QUOTE_ID, "id")):
        array = np.ascontiguousarray(quotes[name])
        words = array.view(np.int64).reshape(n, array.dtype.itemsize // 8)
        matrix[:, column : column + words.shape[1]] = words
    return matrix
