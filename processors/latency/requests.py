"""Answers to order requests and the life of each order; reads canonical orders rows and knows no protocol.

    new      ──▶ first report with its ClOrdID, whatever it says     order_ack     accepted, rejected, pending
    cancel   ──▶ the same                                            cancel_ack    canceled, rejected, pending, …
    replace  ──▶ the same                                            replace_ack   replaced, rejected, pending, …
    new      ──▶ first fill of the order, under any ClOrdID          order_fill    filled

A delay runs from the packet with the request's first byte to the packet that completes the answer. Reports of a
cancel or replace carry the request's ClOrdID in tag 11 and the order's in 41, in FIX 4.x as in 5.0. Possible
duplicates (43=Y) are ignored. Both stamps come from one clock, so its offset cancels; each is cut to its resolution,
so the difference is off by less than the larger resolution, which is `u_ns`.

An order keeps its key over replaces. A `replaced` order is open (or partially filled) again under its new ClOrdID;
a pending cancel or replace leaves its state alone. Orders that have ended are forgotten before those that have not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import orjson

from akbypass import schemas
from akbypass.config import Config
from akbypass.order import make_id
from akbypass.processors.packing import pack_texts, unpack_texts
from akbypass.rows import NULL_INT64, Array, Rows

_ORDERS, _LATENCY, _EVENTS = schemas.load("orders"), schemas.load("latency"), schemas.load("order_events")
KIND = {symbol: i for i, symbol in enumerate(_ORDERS.by_name["kind"].symbols)}
OUTCOME = {symbol: i for i, symbol in enumerate(_LATENCY.by_name["outcome"].symbols)}
STATE = {symbol: i for i, symbol in enumerate(_EVENTS.by_name["state"].symbols)}
FROM_VENUE, TO_VENUE = _ORDERS.code("direction", "from_venue"), _ORDERS.code("direction", "to_venue")
REQUESTS = {
    KIND["new"]: _LATENCY.code("kind", "order_ack"),
    KIND["cancel"]: _LATENCY.code("kind", "cancel_ack"),
    KIND["replace"]: _LATENCY.code("kind", "replace_ack"),
}
ORDER_ACK, ORDER_FILL = _LATENCY.code("kind", "order_ack"), _LATENCY.code("kind", "order_fill")
ANSWERS = {
    KIND[report]: OUTCOME[outcome]
    for report, outcome in {
        "ack": "accepted", "fill": "filled", "canceled": "canceled", "replaced": "replaced", "pending": "pending",
        "reject": "rejected", "cancel_reject": "rejected", "business_reject": "rejected", "status": "accepted", "bust": "accepted",
    }.items()
}  # fmt: skip
REFUSALS = (KIND["reject"], KIND["business_reject"])
ENDED = (STATE["filled"], STATE["canceled"], STATE["rejected"])
ORD_STATUS = {b"0": "open", b"1": "partially_filled", b"2": "filled", b"4": "canceled", b"8": "rejected"}  # FIX tag 39
CHANGES_MAX = 16  # replaces of one order that may be under way
ALIASES_PER_ORDER = 2  # ClOrdIDs remembered for each order that may be followed, on average

Key = tuple[bytes, bytes]  # session, ClOrdID


@dataclass(slots=True)
class Request:
    """A request that waits for its first report; times in ns."""

    ts_ns: int
    resolution_ns: int
    kind: int


@dataclass(slots=True)
class Order:
    """An order's latest known terms and state; quantities and prices in 1e-9 units, NULL_INT64 for unknown."""

    new_id: bytes = b""
    new_ns: int = NULL_INT64
    new_resolution_ns: int = 0
    symbol: bytes = b""
    side: int = 0
    price: int = NULL_INT64
    quantity: int = NULL_INT64
    filled: int = 0
    fills: int = 0
    state: int = 0
    changes: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # ClOrdID of a replace → price, quantity


COLUMNS = (
    "session", "cl_ord_id", "orig_cl_ord_id", "kind", "direction", "poss_dup", "symbol", "side", "price_nanos",
    "quantity_nanos", "last_quantity_nanos", "cum_quantity_nanos", "leaves_quantity_nanos", "ord_status",
    "ts_first_ns", "ts_capture_ns", "ts_resolution_ns", "capture_id", "capture_pos", "sub",
)  # fmt: skip


@dataclass(slots=True)
class Message:
    """One orders row in plain values, in the order of COLUMNS."""

    session: bytes
    cl_ord_id: bytes
    orig_cl_ord_id: bytes
    kind: int
    direction: int
    poss_dup: bool
    symbol: bytes
    side: int
    price: int
    quantity: int
    last_quantity: int
    cum_quantity: int
    leaves_quantity: int
    ord_status: bytes
    ts_first_ns: int
    ts_capture_ns: int
    resolution_ns: int
    capture_id: int
    capture_pos: int
    sub: int


class OrderRequests:
    """The open requests and the orders of one partition, each up to `orders_max`."""

    def __init__(self, config: Config, run_id: str) -> None:
        self._run_id = run_id
        self._orders_max = config.thresholds.orders_max
        self.requests: dict[Key, Request] = {}
        self.orders: dict[bytes, Order] = {}
        self.ended: dict[bytes, None] = {}  # keys of orders that have ended, oldest first
        self.aliases: dict[Key, bytes] = {}
        self.counters = {"requests_dropped": 0, "orders_dropped": 0, "possible_duplicates": 0, "without_id": 0}

    def step(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return latency rows (without ids) and order_events rows of these messages."""
        delays: list[tuple[Any, ...]] = []
        events: list[tuple[Any, ...]] = []
        for i, values in enumerate(zip(*(rows[name].tolist() for name in COLUMNS), strict=True)):
            message = Message(*values)
            is_request = message.kind in REQUESTS and message.direction != FROM_VENUE
            is_report = message.kind in ANSWERS and message.direction != TO_VENUE
            if message.poss_dup:
                self.counters["possible_duplicates"] += 1
            elif (is_request or is_report) and not message.cl_ord_id:
                self.counters["without_id"] += 1
            elif is_request:
                events.append(self._request(i, message))
            elif is_report:
                events.append(self._report(i, message, delays))
        return _latency_rows(rows, delays), _event_rows(rows, events)

    # -- one message -----------------------------------------------------------------------------------------------

    def _request(self, i: int, m: Message) -> tuple[Any, ...]:
        is_new = m.kind == KIND["new"]
        key, order = self._find(m, fresh_if_ended=is_new)
        name = (m.session, m.cl_ord_id)
        if name not in self.requests:  # a repeated ClOrdID does not restart the clock
            self.requests[name] = Request(m.ts_first_ns, m.resolution_ns, m.kind)
            self.counters["requests_dropped"] += _bound(self.requests, self._orders_max)
        if is_new and order.new_ns == NULL_INT64:
            order.new_id, order.new_ns, order.new_resolution_ns = m.cl_ord_id, m.ts_first_ns, m.resolution_ns
            order.price, order.quantity, order.state = m.price, m.quantity, STATE["pending"]
        if m.kind == KIND["replace"]:
            order.changes[m.cl_ord_id] = (m.price, m.quantity)
            _bound(order.changes, CHANGES_MAX)
        return _event(i, m, key, order, NULL_INT64, NULL_INT64)

    def _report(self, i: int, m: Message, delays: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        key, order = self._find(m)
        delay_ns, u_ns = NULL_INT64, NULL_INT64
        request = self.requests.pop((m.session, m.cl_ord_id), None)
        if request is not None:
            delay_ns, u_ns = m.ts_capture_ns - request.ts_ns, max(request.resolution_ns, m.resolution_ns)
            kind, outcome = REQUESTS[request.kind], ANSWERS[m.kind]
            if kind == ORDER_ACK and outcome not in (OUTCOME["rejected"], OUTCOME["pending"]):
                outcome = OUTCOME["accepted"]
            symbol = m.symbol or order.symbol
            delays.append((i, kind, m.cl_ord_id, symbol, outcome, request.ts_ns, delay_ns, u_ns))
        if m.kind == KIND["fill"] and order.new_ns != NULL_INT64:
            delay_ns, u_ns = m.ts_capture_ns - order.new_ns, max(order.new_resolution_ns, m.resolution_ns)
            if order.fills == 0:
                symbol, filled = m.symbol or order.symbol, OUTCOME["filled"]
                delays.append((i, ORDER_FILL, order.new_id, symbol, filled, order.new_ns, delay_ns, u_ns))
        _apply(m, order, request)
        if order.state in ENDED:
            self.ended.setdefault(key)
        return _event(i, m, key, order, delay_ns, u_ns)

    def _find(self, m: Message, fresh_if_ended: bool = False) -> tuple[bytes, Order]:
        """Find the order of a message by its ids, or begin to follow it; the message's id becomes one of its ids."""
        name = (m.session, m.cl_ord_id)
        key = self.aliases.get(name) or (self.aliases.get((m.session, m.orig_cl_ord_id)) if m.orig_cl_ord_id else None)
        order = self.orders.get(key) if key else None
        if key is None or (fresh_if_ended and order is not None and order.state in ENDED):
            cause = (m.session, m.orig_cl_ord_id or m.cl_ord_id, m.capture_id, m.capture_pos, m.sub)
            key, order = make_id("latency/order", self._run_id, *cause), None
        if order is None:
            order = self.orders[key] = Order()
            self._make_room()
        self.aliases[name] = key
        _bound(self.aliases, ALIASES_PER_ORDER * self._orders_max)
        order.symbol, order.side = order.symbol or m.symbol, order.side or m.side
        return key, order

    def _make_room(self) -> None:
        if len(self.orders) > self._orders_max:
            oldest = next(iter(self.ended), None) or next(iter(self.orders))
            self.ended.pop(oldest, None)
            del self.orders[oldest]
            self.counters["orders_dropped"] += 1

    # -- state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy the state: numbers and texts column by column, so that 100,000 orders do not stop the event loop."""
        orders = self.orders.values()
        changes = [[i, _changes(o)] for i, o in enumerate(orders) if o.changes]
        return {
            **pack_texts("requests.names", list(chain.from_iterable(self.requests))),
            "requests": _numbers(
                map(_request_numbers, self.requests.values()), len(self.requests), len(REQUEST_NUMBERS)
            ),
            **pack_texts("orders.keys", self.orders),
            **pack_texts("orders.new_ids", [o.new_id for o in orders]),
            **pack_texts("orders.symbols", [o.symbol for o in orders]),
            "orders": _numbers(map(_order_numbers, orders), len(orders), len(ORDER_NUMBERS)),
            **pack_texts("ended", self.ended),
            **pack_texts("aliases.names", list(chain.from_iterable(self.aliases))),
            **pack_texts("aliases.keys", self.aliases.values()),
            "rest": np.frombuffer(orjson.dumps([changes, self.counters]), np.uint8),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        changes, self.counters = orjson.loads(state["rest"].tobytes())
        requests = map(Request, *state["requests"].T.tolist())
        self.requests = dict(zip(_pairs(unpack_texts("requests.names", state)), requests, strict=True))
        keys, new_ids, symbols = (unpack_texts(f"orders.{n}", state) for n in ("keys", "new_ids", "symbols"))
        new_ns, new_resolution_ns, *rest = state["orders"].T.tolist()
        orders = map(Order, new_ids, new_ns, new_resolution_ns, symbols, *rest)
        self.orders = dict(zip(keys, orders, strict=True))
        known = list(self.orders.values())
        for i, of_order in changes:
            known[i].changes = {_bytes(name): (price, quantity) for name, price, quantity in of_order}
        self.ended = dict.fromkeys(unpack_texts("ended", state))
        names = _pairs(unpack_texts("aliases.names", state))
        self.aliases = dict(zip(names, unpack_texts("aliases.keys", state), strict=True))


REQUEST_NUMBERS = tuple(f.name for f in fields(Request))
ORDER_NUMBERS = tuple(f.name for f in fields(Order) if f.name not in ("new_id", "symbol", "changes"))
_request_numbers, _order_numbers = attrgetter(*REQUEST_NUMBERS), attrgetter(*ORDER_NUMBERS)


def _numbers(rows: Iterable[tuple[int, ...]], count: int, width: int) -> Array:
    return np.fromiter(chain.from_iterable(rows), np.int64, count * width).reshape(count, width)


def _pairs(names: list[bytes]) -> list[Key]:
    return list(zip(names[::2], names[1::2], strict=True))


def _apply(m: Message, order: Order, request: Request | None) -> None:
    """Change an order by a report."""
    order.fills += m.kind == KIND["fill"]
    if m.cum_quantity != NULL_INT64:
        order.filled = m.cum_quantity
    elif m.last_quantity != NULL_INT64 and m.kind in (KIND["fill"], KIND["bust"]):
        order.filled += m.last_quantity if m.kind == KIND["fill"] else -m.last_quantity
    price, quantity = m.price, m.quantity
    if m.kind == KIND["replaced"]:
        wanted = order.changes.pop(m.cl_ord_id, (NULL_INT64, NULL_INT64))
        order.price, order.quantity = _first(price, wanted[0], order.price), _first(quantity, wanted[1], order.quantity)
    else:
        order.price, order.quantity = _first(order.price, price), _first(order.quantity, quantity)
    order.changes.pop(m.cl_ord_id if m.kind == KIND["cancel_reject"] else b"", None)
    order.state = _state_after(m, order, request)


def _state_after(m: Message, order: Order, request: Request | None) -> int:
    if m.kind in REFUSALS:
        about_order = request is None or request.kind == KIND["new"]
        return STATE["rejected"] if about_order else order.state
    if m.kind == KIND["canceled"]:
        return STATE["canceled"]
    if m.kind == KIND["pending"]:
        return order.state or STATE["pending"]
    if m.kind == KIND["cancel_reject"]:
        return order.state
    if m.kind == KIND["status"] and m.ord_status in ORD_STATUS:
        return STATE[ORD_STATUS[m.ord_status]]
    done = m.leaves_quantity == 0 or (order.quantity != NULL_INT64 and order.filled >= order.quantity)
    if order.filled > 0 and done:
        return STATE["filled"]
    if order.state == STATE["canceled"] and m.kind in (KIND["fill"], KIND["bust"]):
        return order.state
    return STATE["partially_filled"] if order.filled > 0 else STATE["open"]


def _event(i: int, m: Message, key: bytes, order: Order, delay_ns: int, u_ns: int) -> tuple[Any, ...]:
    symbol, side = m.symbol or order.symbol, m.side or order.side
    return i, key, symbol, side, order.state, order.price, order.quantity, order.filled, delay_ns, u_ns


def _columns(parts: list[tuple[Any, ...]], names: str) -> dict[str, Any]:
    values = zip(*parts, strict=True) if parts else ([] for _ in names.split())
    return {name: np.array(list(value)) for name, value in zip(names.split(), values, strict=True)}


def _latency_rows(rows: Rows, delays: list[tuple[Any, ...]]) -> Rows:
    made = _columns(delays, "i kind cl_ord_id symbol outcome ts_start_ns value_ns u_ns")
    answers = rows.take(made.pop("i").astype(np.int64))
    same = ("run_ns", "capture_id", "capture_pos", "sub", "ts_capture_ns", "session", "venue")
    turned = {
        "src_ip": "dst_ip",
        "src_port": "dst_port",
        "dst_ip": "src_ip",
        "dst_port": "src_port",
    }  # who waited first
    kept = {name: answers[name] for name in same} | {name: answers[of] for name, of in turned.items()}
    return Rows.build("latency", len(answers), **kept, **made)


def _event_rows(rows: Rows, events: list[tuple[Any, ...]]) -> Rows:
    made = _columns(
        events, "i order_key symbol side state price_nanos quantity_nanos filled_quantity_nanos delay_ns u_ns"
    )
    messages = rows.take(made.pop("i").astype(np.int64))
    same = (
        "run_ns", "capture_id", "capture_pos", "sub", "ts_capture_ns", "session", "venue", "direction", "kind",
        "cl_ord_id", "orig_cl_ord_id", "last_price_nanos", "last_quantity_nanos",
    )  # fmt: skip
    return Rows.build("order_events", len(messages), **{name: messages[name] for name in same}, **made)


def _first(*values: int) -> int:
    """The first value that is known."""
    return next((v for v in values if v != NULL_INT64), NULL_INT64)


def _bound(known: dict[Any, Any], most: int) -> int:
    """Drop the oldest entry above `most`; returns how many were dropped."""
    if len(known) <= most:
        return 0
    del known[next(iter(known))]
    return 1


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _changes(order: Order) -> list[list[Any]]:
    return [[_text(name), *values] for name, values in order.changes.items()]
