"""The simulated venue's own order book of one symbol, in ticks and shares; writes no message and follows no feed."""

from __future__ import annotations

from akbypass.producers.simulator.draws import Draws

ANCHOR_TICKS = 100  # how far outside the anchors rest; beyond the reach of the walk
DEPTH = 9  # levels behind the best that orders are placed at
Quote = tuple[int, int, int, int]  # bid ticks, bid shares, ask ticks, ask shares


class Order:
    """A resting order."""

    __slots__ = ("buy", "price", "ref", "shares")

    def __init__(self, ref: int, buy: bool, price: int, shares: int) -> None:
        self.ref, self.buy, self.price, self.shares = ref, buy, price, shares


class Book:
    """Orders of one symbol on one venue; `bid_cap` and `ask_floor` bound where orders may rest.

    Two anchors, one a side, rest from the opening to the end and are never touched: a book that has lost a message
    keeps orders older than the loss, so that it stays suspect until the end of the day.
    While `frozen`, nothing at the best price changes.
    """

    __slots__ = ("ask_floor", "bid_cap", "frozen", "levels", "locate", "orders", "stock")

    def __init__(self, locate: int, stock: bytes, mid: int) -> None:
        self.locate, self.stock = locate, stock
        self.bid_cap, self.ask_floor = mid - 1, mid + 1
        self.frozen = False
        self.orders: dict[bool, list[Order]] = {True: [], False: []}  # by whether they buy, without anchors
        self.levels: dict[bool, dict[int, int]] = {True: {}, False: {}}  # price to shares, with anchors

    def best(self, buy: bool) -> int:
        """Best price of a side; a side is never empty after the anchors are in."""
        return max(self.levels[True]) if buy else min(self.levels[False])

    def quote(self) -> Quote:
        """Best bid and offer with their shares; 0 and 0 for a side that nothing rests on."""
        bids, asks = self.levels[True], self.levels[False]
        bid, ask = max(bids, default=0), min(asks, default=0)
        return bid, bids.get(bid, 0), ask, asks.get(ask, 0)

    def insert(self, order: Order, *, anchor: bool = False) -> None:
        """Let an order rest."""
        level = self.levels[order.buy]
        level[order.price] = level.get(order.price, 0) + order.shares
        if not anchor:
            self.orders[order.buy].append(order)

    def reduce(self, order: Order, shares: int) -> None:
        """Take shares from an order; without any left it is gone."""
        level = self.levels[order.buy]
        level[order.price] -= shares
        if level[order.price] == 0:
            del level[order.price]
        order.shares -= shares
        if order.shares == 0:
            self.orders[order.buy].remove(order)

    def place(self, buy: bool, draws: Draws) -> int:
        """A price for a new order: near the limit, more often than not, and behind the best while frozen."""
        behind = min(DEPTH, int(draws.exponential(1.7)))
        if buy:
            price = self.bid_cap - behind
            return min(price, self.best(True) - 1) if self.frozen else price
        price = self.ask_floor + behind
        return max(price, self.best(False) + 1) if self.frozen else price

    def outside(self, buy: bool) -> list[Order]:
        """Orders that the present limits do not allow."""
        if buy:
            return [o for o in self.orders[True] if o.price > self.bid_cap]
        return [o for o in self.orders[False] if o.price < self.ask_floor]

    def at_best(self, buy: bool) -> Order | None:
        """The oldest order at the best price; None when an anchor is the best."""
        best = self.best(buy)
        return next((o for o in self.orders[buy] if o.price == best), None)
