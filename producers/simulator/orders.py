"""Order sessions: what a trader and a venue say to each other, and the delays that follow from it.

Orders come in slots of 100 ms, one small story a slot, every story at least once a day. A delay runs from the first
byte of the request at the tap to the frame that completes its first answer, or the order's first fill; stories do
not overlap, so that each answer has one cause. No story answers an order with a fill alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from akbypass.producers.simulator import fix, tcp
from akbypass.producers.simulator.day import MS, SYMBOLS, VENUES, Plan
from akbypass.producers.simulator.draws import Draws
from akbypass.producers.simulator.fix import Field, Message
from akbypass.producers.simulator.network import Endpoint
from akbypass.producers.simulator.writer import Tape

SLOT = 100 * MS
SLOW_FACTOR = 4  # a slow venue's delays
RETRANSMIT = 5 * MS
VERSIONS = (("FIX.4.2", 3), ("FIX.4.4", 3), ("FIXT.1.1", 6))  # begin string, digits of a second in its stamps
CLIENT_NS, VENUE_NS = 6_000, 34_000  # from a sender's own stamp to the tap


@dataclass(frozen=True, slots=True)
class Delay:
    """One delay to be found."""

    kind: str
    cl_ord_id: str
    outcome: str
    request: Message
    answer: Message


@dataclass(slots=True)
class Order:
    """An order as the session sees it; quantities in shares, price in ticks."""

    request: Message
    first_id: str
    cl_ord_id: str
    order_id: str
    symbol: str
    side: int
    shares: int
    price: int
    filled: int = 0


class Session:
    """One session on one connection: messages and delays as the stories make them."""

    def __init__(self, plan: Plan, venue: int, comp_id: str, client: Endpoint, opened_ns: int) -> None:
        self.plan, self.venue, self.comp_id, self.client = plan, venue, comp_id, client
        self.opened_ns, self.closed_ns = opened_ns, 0
        self.begin, self.digits = VERSIONS[venue]
        self.draws = Draws(plan.seed, f"orders/{venue}/{comp_id}")
        self.messages: list[Message] = []
        self.delays: list[Delay] = []
        self.count = 0

    @property
    def name(self) -> str:
        """Name of the session in results: venue, client's CompID, venue's CompID."""
        venue = VENUES[self.venue].name
        return f"{venue}/{self.comp_id}/{venue}"

    # -- what is said ----------------------------------------------------------------------------------------------

    def say(self, ts_ns: int, to_venue: bool, kind: str, fields: list[Field] | None = None) -> Message:
        """Add a message."""
        message = Message(ts_ns, to_venue, kind, fields or [])
        self.messages.append(message)
        return message

    def delay_ns(self, ts_ns: int) -> int:
        """How long the venue takes to answer what reaches it at ts_ns."""
        typical = VENUES[self.venue].ack_ns
        value = typical + min(2 * typical, int(self.draws.exponential(typical / 5)))
        slow = self.plan.slow[0] <= ts_ns < self.plan.slow[1] and self.venue == self.plan.slow_venue
        return value * SLOW_FACTOR if slow else value

    def _next_id(self) -> str:
        self.count += 1
        return f"{self.comp_id}{self.count:06d}"

    def new(self, ts_ns: int) -> Order:
        """Send a new order near the mid."""
        k, side = self.draws.below(len(SYMBOLS)), 1 + self.draws.below(2)
        price = self.plan.mid_at(k, ts_ns) + (1 if side == 1 else -1)
        shares = 100 * self.draws.between(2, 20)
        request = self.say(ts_ns, True, "D")
        first_id = self._next_id()
        order = Order(request, first_id, first_id, f"V{self.venue}{self.count:07d}", SYMBOLS[k], side, shares, price)
        request.fields = [(11, order.cl_ord_id), (1, "ACCOUNT1"), (21, 1), *self._terms(order), (59, 0)]
        return order

    def _terms(self, order: Order) -> list[Field]:
        return [(55, order.symbol), (54, order.side), (38, order.shares), (40, 2), (44, f"{order.price / 100:.2f}")]

    def report(self, order: Order, ts_ns: int, exec_type: str, status: str, more: list[Field] | None = None) -> Message:
        """Answer with an execution report."""
        self.count += 1
        leaves = 0 if status in "248" else order.shares - order.filled
        fields: list[Field] = [(37, order.order_id), (11, order.cl_ord_id), (17, f"E{self.venue}{self.count:07d}")]
        if self.begin == "FIX.4.2":
            fields.append((20, 0))
        fields += [(150, exec_type), (39, status), *self._terms(order), *(more or [])]
        fields += [(151, leaves), (14, order.filled), (6, f"{order.price / 100:.2f}" if order.filled else "0")]
        return self.say(ts_ns, False, "8", fields)

    def ack(self, order: Order, exec_type: str = "0", *, late_ns: int = 0) -> Message:
        """Give the first answer to a new order: accepted, rejected or pending."""
        ts_ns = order.request.ts_ns + late_ns
        more: list[Field] = [(58, "simulated refusal")] if exec_type == "8" else []
        answer = self.report(order, ts_ns + self.delay_ns(ts_ns), exec_type, exec_type, more)
        outcome = {"0": "accepted", "8": "rejected", "A": "pending"}[exec_type]
        self.delays.append(Delay("order_ack", order.cl_ord_id, outcome, order.request, answer))
        return answer

    def fill(self, order: Order, after_ns: int, shares: int) -> Message:
        """Fill some shares of an order; its first fill ends a delay under the order's first id."""
        is_first = order.filled == 0
        order.filled += shares
        status = "2" if order.filled == order.shares else "1"
        exec_type = status if self.begin == "FIX.4.2" else "F"
        more: list[Field] = [(32, shares), (31, f"{order.price / 100:.2f}")]
        answer = self.report(order, order.request.ts_ns + after_ns, exec_type, status, more)
        if is_first:
            self.delays.append(Delay("order_fill", order.first_id, "filled", order.request, answer))
        return answer

    def cancel(self, order: Order, after_ns: int, *, refused: bool = False) -> None:
        """Ask to cancel an order, and answer."""
        cl_ord_id = self._next_id()
        origin: list[Field] = [(11, cl_ord_id), (41, order.cl_ord_id)]
        request = self.say(order.request.ts_ns + after_ns, True, "F", [*origin, *self._terms(order)[:3]])
        self._answer(order, request, cl_ord_id, "canceled", refused=refused)

    def replace(self, order: Order, after_ns: int, *, refused: bool = False) -> None:
        """Ask to replace an order by one of one tick less, and answer."""
        cl_ord_id, changed = self._next_id(), dataclasses.replace(order, price=order.price - 1)
        origin: list[Field] = [(11, cl_ord_id), (41, order.cl_ord_id), (21, 1)]
        request = self.say(order.request.ts_ns + after_ns, True, "G", [*origin, *self._terms(changed)])
        self._answer(order if refused else changed, request, cl_ord_id, "replaced", refused=refused)
        if not refused:
            order.price, order.cl_ord_id = changed.price, cl_ord_id

    def _answer(self, order: Order, request: Message, cl_ord_id: str, outcome: str, *, refused: bool) -> None:
        cancel, origin = outcome == "canceled", order.cl_ord_id
        ts_ns = request.ts_ns + self.delay_ns(request.ts_ns)
        if refused:
            status = "2" if order.filled == order.shares else "0"
            fields: list[Field] = [(37, order.order_id), (11, cl_ord_id), (41, origin), (39, status)]
            answer = self.say(ts_ns, False, "9", [*fields, (434, 1 if cancel else 2), (102, 0)])
        else:
            order.cl_ord_id = cl_ord_id
            code = "4" if cancel else "5"
            status = "4" if cancel else ("5" if self.begin == "FIX.4.2" else "0")
            answer = self.report(order, ts_ns, code, status, [(41, origin)])
        kind = "cancel_ack" if cancel else "replace_ack"
        self.delays.append(Delay(kind, cl_ord_id, "rejected" if refused else outcome, request, answer))

    # -- the whole -------------------------------------------------------------------------------------------------

    def logon(self) -> None:
        """Begin the session."""
        fields: list[Field] = [(98, 0), (108, self.heartbeat_seconds)]
        if self.begin == "FIXT.1.1":
            fields.append((1137, 9))
        self.say(self.opened_ns + 2 * MS, True, "A", fields)
        self.say(self.opened_ns + 3 * MS, False, "A", list(fields))

    @property
    def heartbeat_seconds(self) -> int:
        """Time between heartbeats; s."""
        return max(1, int(self.plan.seconds / 6))

    def logout(self, ts_ns: int) -> None:
        """End the session and its connection."""
        self.say(ts_ns, True, "5")
        self.say(ts_ns + MS, False, "5")
        self.closed_ns = ts_ns + 2 * MS

    def frames(self) -> tuple[Tape, list[tuple[Delay, int, int]]]:
        """Write the connection; returns its frames, and with each delay the frames in which it begins and ends."""
        self.messages.sort(key=lambda m: m.ts_ns)
        seqs = {True: 0, False: 0}
        payloads = []
        for m in self.messages:
            seqs[m.to_venue] += 1
            sent = fix.stamp(m.ts_ns - (CLIENT_NS if m.to_venue else VENUE_NS), self.digits)
            parties = (self.comp_id, VENUES[self.venue].name)
            sender, target = parties if m.to_venue else parties[::-1]
            head: list[Field] = [(35, m.kind), (49, sender), (56, target), (34, seqs[m.to_venue]), (52, sent)]
            tail: list[Field] = [(60, sent)] if m.kind in "DFG8" else []
            payloads.append(fix.encode(self.begin, [*head, *m.fields, *tail]))
        dialogue = fix.cut_into_segments(self.messages, payloads)
        made, index = tcp.converse(
            self.client, VENUES[self.venue].gateway, opened_ns=self.opened_ns, closed_ns=self.closed_ns,
            segments=dialogue.segments, draws=self.draws,
        )  # fmt: skip
        found = [(d, index[dialogue.first[d.request]], index[dialogue.last[d.answer]]) for d in self.delays]
        return made, found
