"""One venue's day: what happens on it, when, and why; the exchange turns it into packets. Knows no line and no tap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter

import numpy as np

from akbypass.producers.simulator import itch
from akbypass.producers.simulator.book import ANCHOR_TICKS, Order
from akbypass.producers.simulator.day import BEGIN_NS, MS, PREPARE, RESTORE, SECOND, SYMBOLS, TIDY, VENUES, Plan, Window
from akbypass.producers.simulator.exchange import Exchange, Stream

MESSAGES_MEAN = 2.2  # messages in a packet of ordinary activity
MOVES_PER_SECOND = 2.5 * 3 * len(SYMBOLS)  # messages that moving mids cause on one venue, roughly
PACKETS_PER_SECOND_MIN = 30.0  # of ordinary activity, however quiet the day
BURSTS = 0.4  # shape of the times between packets: below 1 they come in bursts
LOSS_PACKETS = 8  # sent around the loss on both lines, 1 ms apart
ORDERS_FEW, ORDERS_MANY = 4, 14  # of a side of a book: below come only adds, above only deletes
Event = tuple[int, Callable[[], None]]


def trade_day(plan: Plan, venue: int) -> Stream:
    """Run a venue's whole day."""
    return Market(plan, venue).run()


class Market:
    """What the participants of one venue do."""

    def __init__(self, plan: Plan, venue: int) -> None:
        self.plan, self.venue = plan, venue
        self.exchange = Exchange(plan, venue)
        self.draws = self.exchange.draws
        self.legs: dict[Window, Order] = {}

    def run(self) -> Stream:
        """Open, let every event happen in order, close."""
        self.open()
        exchange = self.exchange
        for ts_ns, act in sorted(self.events(), key=itemgetter(0)):
            exchange.begin(ts_ns)
            act()
            exchange.finish()
        self.close()
        return exchange.stream

    def open(self) -> None:
        """Send the day's directory, then the anchors and the first orders of every book."""
        x = self.exchange
        x.begin(BEGIN_NS + MS + self.draws.below(MS))
        x.messages.system(x.ts(), b"O")
        for book in x.books:
            x.messages.directory(x.ts(), book.locate, book.stock)
        for book in x.books:
            x.messages.trading(x.ts(), book.locate, book.stock)
        x.messages.system(x.ts(), b"S")
        x.messages.system(x.ts(), b"Q")
        for symbol in range(len(x.books)):
            mid = self.plan.mid_at(symbol, BEGIN_NS)
            x.add(symbol, True, mid - ANCHOR_TICKS, 100, anchor=True)
            x.add(symbol, False, mid + ANCHOR_TICKS, 100, anchor=True)
            for level in range(6):
                x.add(symbol, True, mid - 1 - level, self.lot())
                x.add(symbol, False, mid + 1 + level, self.lot())
        x.finish()

    def close(self) -> None:
        """End the market's hours, the system's hours, the messages and the session."""
        x = self.exchange
        for pause, event in ((2 * MS, b"M"), (MS, b"E"), (MS, b"C")):
            x.begin(max(x.sent_ns, self.plan.active[1] + 5 * MS) + pause)
            x.messages.system(x.ts(), event)
            x.finish()
        for _ in range(2):
            payload = itch.end_of_session(VENUES[self.venue].session, x.stream.next_seq)
            x.send(x.sent_ns + 10 * MS, itch.END_OF_SESSION, payload)

    # -- when ------------------------------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Everything that happens on this venue, in no order."""
        events: list[Event] = [(int(ts), self.activity) for ts in self._activity_times()]
        for symbol, (times, values) in enumerate(self.plan.mids):
            for ts, mid in zip(times[1:], values[1:], strict=True):
                act = partial(self.bound, symbol, mid - 1, mid + 1)
                events.append((ts + self.draws.between(40_000, 400_000), act))
        for window in self.plan.windows:
            events += self._window_events(window)
        if self.venue == self.plan.lost_venue:  # so that the loss, and what reveals it, happen at once on any day
            events += [(self.plan.lost_ns + k * MS, self.activity) for k in range(LOSS_PACKETS)]
        return events

    def _activity_times(self) -> np.ndarray:
        (start, stop), (still, again) = self.plan.active, self.plan.quiet
        length = (stop - start - (again - still)) / SECOND
        wanted = (self.plan.messages_per_second / len(VENUES) - MOVES_PER_SECOND) * self.plan.seconds
        per_second = max(PACKETS_PER_SECOND_MIN, wanted / length / MESSAGES_MEAN)
        count = int((stop - start) / SECOND * per_second * 1.3) + 100
        gaps = self.draws.rng.gamma(BURSTS, SECOND / per_second / BURSTS, count)
        times = start + np.cumsum(gaps).astype(np.int64)
        quiet = (times >= still) & (times < again)
        return times[(times < stop) & ~quiet]

    def _window_events(self, window: Window) -> list[Event]:
        """The part of this venue in a planned window; the plan's drawing shows the order."""
        w, symbol, mid = window, window.symbol, window.mid
        prepare, middle = w.open_ns - PREPARE, (w.open_ns + w.close_ns) // 2
        restore = w.close_ns + RESTORE + self.draws.below(300_000)
        events: list[Event] = [(restore, partial(self.bound, symbol, mid - 1, mid + 1))]
        if self.venue == w.third:
            events.append((prepare, partial(self.bound, symbol, mid - 1, mid + max(w.ticks - 1, 1))))
        if self.venue == w.buy:
            events.append((prepare, partial(self.offer, w)))
            if w.close == "taken":
                events.append((w.close_ns, partial(self.end, w)))
        if self.venue == w.sell:
            events.append((prepare, partial(self.bound, symbol, mid - 1, mid + w.ticks + 3, frozen=True)))
            events.append((w.open_ns, partial(self.bid, w)))
            events.append((middle, partial(self.shrink, w)))
            late = TIDY if w.close == "taken" else 0
            events.append((w.close_ns + late, partial(self.end, w)))
        return events

    # -- what ------------------------------------------------------------------------------------------------------

    def lot(self) -> int:
        """A number of shares."""
        return 100 * (1 + self.draws.below(9))

    def activity(self) -> None:
        """One packet of ordinary activity, mostly in one symbol."""
        symbol = self.draws.below(len(SYMBOLS))
        for _ in range(min(itch.MESSAGES_MAX, 1 + int(self.draws.exponential(MESSAGES_MEAN - 0.5)))):
            self.act(symbol)
            if self.draws.unit() < 0.4:
                symbol = self.draws.below(len(SYMBOLS))

    def act(self, symbol: int) -> None:
        """One message on one book."""
        x, draws = self.exchange, self.draws
        book, kind, buy = x.books[symbol], draws.unit(), draws.unit() < 0.5
        orders = book.orders[buy]
        best = book.at_best(buy)
        if kind < 0.03:
            shares, price = self.lot(), book.best(buy)
            x.print_trade(symbol, shares, price)
        elif kind < 0.12 and best is not None and not book.frozen and len(orders) >= ORDERS_FEW:
            x.take(symbol, best, min(best.shares, self.lot()), priced=kind < 0.05)
        else:
            order = draws.choice(orders) if len(orders) >= ORDERS_FEW else None
            if order is None or (book.frozen and order.price == book.best(buy)):
                x.add(symbol, buy, book.place(buy, draws), self.lot())
            elif len(orders) > ORDERS_MANY or kind < 0.35:
                x.delete(symbol, order)
            elif kind < 0.45 and order.shares > 100:
                x.cancel(symbol, order, 100 * draws.between(1, order.shares // 100))
            elif kind < 0.57:
                x.replace(symbol, order, book.place(buy, draws), self.lot())
            else:
                x.add(symbol, buy, book.place(buy, draws), self.lot())

    def bound(self, symbol: int, bid_cap: int, ask_floor: int, *, frozen: bool = False) -> None:
        """Move the limits of a book: what is outside goes, then new orders take the best places."""
        x, draws, book = self.exchange, self.draws, self.exchange.books[symbol]
        book.bid_cap, book.ask_floor, book.frozen = bid_cap, ask_floor, False
        for buy in (True, False):
            for order in book.outside(buy):
                way = draws.unit()
                if way < 0.25:
                    x.replace(symbol, order, book.place(buy, draws), self.lot())
                elif way < 0.45:
                    x.take(symbol, order, order.shares)
                else:
                    x.delete(symbol, order)
        for buy, limit in ((True, bid_cap), (False, ask_floor)):
            if book.best(buy) != limit and draws.unit() < 0.85:
                x.add(symbol, buy, limit, self.lot())
        book.frozen = frozen

    def offer(self, window: Window) -> None:
        """Prepare the buying venue: one ask is left far in front of all others."""
        self.bound(window.symbol, window.mid - 1, window.mid + 1 + window.ticks, frozen=True)
        self.legs[window] = self.exchange.add(window.symbol, False, window.mid + 1, self.lot())

    def bid(self, window: Window) -> None:
        """Open the window: a bid above the other venue's ask; other symbols may share its packet."""
        x = self.exchange
        x.opening = window.ticks > 0
        self.legs[window] = x.add(window.symbol, True, window.mid + 1 + window.ticks, 100 + self.lot())
        for _ in range(self.draws.below(3)):
            self.act((window.symbol + 1 + self.draws.below(len(SYMBOLS) - 1)) % len(SYMBOLS))

    def shrink(self, window: Window) -> None:
        """Withdraw a part of the bid in the middle of the window, which changes nothing in the edge."""
        self.exchange.cancel(window.symbol, self.legs[window], 100)

    def end(self, window: Window) -> None:
        """Close the window by this venue's leg, or withdraw the leg that was left over."""
        x, leg = self.exchange, self.legs[window]
        if window.close == "replace":
            x.replace(window.symbol, leg, window.mid - 1, leg.shares)
        elif window.close == "execute" or self.venue == window.buy:
            x.take(window.symbol, leg, leg.shares)
        else:
            x.delete(window.symbol, leg)
