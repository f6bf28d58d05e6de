"""A venue's matching side: every order action changes a book and appends a message to a packet; decides no action."""

from __future__ import annotations

from dataclasses import dataclass, field

from akbypass.producers.simulator import itch
from akbypass.producers.simulator.book import Book, Order, Quote
from akbypass.producers.simulator.day import BEGIN_NS, MIDNIGHT_NS, SYMBOLS, VENUES, Plan
from akbypass.producers.simulator.draws import Draws

PACKET_GAP_NS = 1_500  # a venue sends no two packets closer than this
MESSAGE_GAP_NS = 130  # between the stamps of two messages of a packet


@dataclass(slots=True)
class Stream:
    """What a venue sent, packet by packet: data, heartbeats (count 0), end of session (count 0xFFFF).

    `quotes` lists, for each packet, (symbol, quote) of every symbol that it touched, after its last message;
    `openings` are the packets in which a planned window opens.
    """

    sent_ns: list[int] = field(default_factory=list)
    first_seq: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    payload: list[bytes] = field(default_factory=list)
    quotes: list[list[tuple[int, Quote]]] = field(default_factory=list)
    openings: list[int] = field(default_factory=list)
    next_seq: int = 1


class Exchange:
    """One venue: its books by symbol, the packet at hand, and the stream of packets sent so far."""

    def __init__(self, plan: Plan, venue: int) -> None:
        self.plan, self.venue = plan, venue
        self.session = VENUES[venue].session
        self.draws = Draws(plan.seed, f"market/{venue}")
        self.books = [Book(k + 1, s.encode().ljust(8), plan.mid_at(k, BEGIN_NS)) for k, s in enumerate(SYMBOLS)]
        self.stream, self.messages = Stream(), itch.Messages()
        self.touched: dict[int, None] = {}  # symbols in the packet at hand; a dict because it keeps their order
        self.sent_ns, self.stamp, self.ref, self.match = BEGIN_NS, 0, 1_000 * (venue + 1), 500_000 * (venue + 1)
        self.opening = False

    # -- packets ---------------------------------------------------------------------------------------------------

    def begin(self, ts_ns: int) -> None:
        """Start a packet that leaves at ts_ns, or a little later when the line is busy."""
        while ts_ns - self.sent_ns > self.plan.heartbeat_ns:
            self.send(self.sent_ns + self.plan.heartbeat_ns, 0, itch.packet(self.session, self.stream.next_seq, []))
        self.sent_ns = max(ts_ns, self.sent_ns + PACKET_GAP_NS)
        self.stamp = max(self.stamp, self.sent_ns - MIDNIGHT_NS - self.draws.between(2_000, 12_000))

    def ts(self) -> int:
        """Stamp of the next message; ends the packet first when it is full."""
        if len(self.messages.blocks) == itch.MESSAGES_MAX:
            self.finish()
            self.begin(self.sent_ns + 2 * PACKET_GAP_NS)
        self.stamp += MESSAGE_GAP_NS
        return self.stamp

    def finish(self) -> None:
        """Send the packet at hand."""
        blocks = self.messages.blocks
        if blocks:
            self.send(self.sent_ns, len(blocks), itch.packet(self.session, self.stream.next_seq, blocks))
            self.stream.next_seq += len(blocks)
            self.messages.blocks = []

    def send(self, sent_ns: int, count: int, payload: bytes) -> None:
        """Append one packet to the stream."""
        stream = self.stream
        if self.opening:
            stream.openings.append(len(stream.sent_ns))
        stream.sent_ns.append(sent_ns)
        stream.first_seq.append(stream.next_seq)
        stream.count.append(count)
        stream.payload.append(payload)
        stream.quotes.append([(k, self.books[k].quote()) for k in self.touched])
        self.sent_ns, self.touched, self.opening = sent_ns, {}, False

    # -- orders ----------------------------------------------------------------------------------------------------

    def add(self, symbol: int, buy: bool, price: int, shares: int, *, anchor: bool = False) -> Order:
        """A new order rests."""
        book, ts = self.books[symbol], self.ts()
        self.ref += 1 + self.draws.below(3)
        order = Order(self.ref, buy, price, shares)
        book.insert(order, anchor=anchor)
        self.messages.add(ts, book.locate, book.stock, order.ref, buy, shares, price)
        self.touched[symbol] = None
        return order

    def delete(self, symbol: int, order: Order) -> None:
        """An order is withdrawn."""
        book, ts = self.books[symbol], self.ts()
        self.messages.delete(ts, book.locate, order.ref)
        book.reduce(order, order.shares)
        self.touched[symbol] = None

    def take(self, symbol: int, order: Order, shares: int, *, priced: bool = False) -> None:
        """An order trades."""
        book, ts = self.books[symbol], self.ts()
        self.match += 1
        if priced:
            self.messages.execute_price(ts, book.locate, order.ref, shares, self.match, order.price)
        else:
            self.messages.execute(ts, book.locate, order.ref, shares, self.match)
        book.reduce(order, shares)
        self.touched[symbol] = None

    def cancel(self, symbol: int, order: Order, shares: int) -> None:
        """A part of an order is withdrawn."""
        book, ts = self.books[symbol], self.ts()
        self.messages.cancel(ts, book.locate, order.ref, shares)
        book.reduce(order, shares)
        self.touched[symbol] = None

    def replace(self, symbol: int, order: Order, price: int, shares: int) -> None:
        """An order gives way to another one."""
        book, ts = self.books[symbol], self.ts()
        self.ref += 1 + self.draws.below(3)
        self.messages.replace(ts, book.locate, order.ref, self.ref, shares, price)
        book.reduce(order, order.shares)
        book.insert(Order(self.ref, order.buy, price, shares))
        self.touched[symbol] = None

    def print_trade(self, symbol: int, shares: int, price: int) -> None:
        """A trade that no displayed order took part in."""
        book, ts = self.books[symbol], self.ts()
        self.match += 1
        self.messages.trade(ts, book.locate, book.stock, shares, price, self.match)
