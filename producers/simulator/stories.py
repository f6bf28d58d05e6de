"""What traders do in a day, story by story; every story fits into one slot and leaves no order open."""

from __future__ import annotations

from akbypass.producers.simulator.day import BEGIN_NS, MS, SECOND, Plan
from akbypass.producers.simulator.network import Endpoint
from akbypass.producers.simulator.orders import RETRANSMIT, SLOT, Session


def filled(s: Session, ts: int) -> None:
    """Accepted, then filled at once."""
    order = s.new(ts)
    s.ack(order)
    s.fill(order, s.draws.between(4 * MS, 30 * MS), order.shares)


def filled_in_parts(s: Session, ts: int) -> None:
    """Accepted, then filled in two parts."""
    order = s.new(ts)
    s.ack(order)
    s.fill(order, s.draws.between(4 * MS, 20 * MS), 100)
    s.fill(order, s.draws.between(22 * MS, 50 * MS), order.shares - 100)


def cancelled(s: Session, ts: int) -> None:
    """Accepted, then cancelled."""
    order = s.new(ts)
    s.ack(order)
    s.cancel(order, s.draws.between(10 * MS, 60 * MS))


def partly_filled(s: Session, ts: int) -> None:
    """Accepted, filled in part, the rest cancelled."""
    order = s.new(ts)
    s.ack(order)
    s.fill(order, s.draws.between(4 * MS, 20 * MS), 100)
    s.cancel(order, s.draws.between(25 * MS, 60 * MS))


def rejected(s: Session, ts: int) -> None:
    """Rejected."""
    s.ack(s.new(ts), "8")


def replaced(s: Session, ts: int) -> None:
    """Accepted, replaced, cancelled under its new id."""
    order = s.new(ts)
    s.ack(order)
    s.replace(order, s.draws.between(8 * MS, 25 * MS))
    s.cancel(order, s.draws.between(35 * MS, 60 * MS))


def replaced_and_filled(s: Session, ts: int) -> None:
    """Accepted, replaced, filled under its new id."""
    order = s.new(ts)
    s.ack(order)
    s.replace(order, s.draws.between(8 * MS, 25 * MS))
    s.fill(order, s.draws.between(35 * MS, 60 * MS), order.shares)


def replace_refused(s: Session, ts: int) -> None:
    """Accepted, a replacement refused, then cancelled."""
    order = s.new(ts)
    s.ack(order)
    s.replace(order, s.draws.between(8 * MS, 25 * MS), refused=True)
    s.cancel(order, s.draws.between(35 * MS, 60 * MS))


def cancel_refused(s: Session, ts: int) -> None:
    """Accepted, filled, and a cancel that comes too late."""
    order = s.new(ts)
    s.ack(order)
    s.fill(order, s.draws.between(4 * MS, 20 * MS), order.shares)
    s.cancel(order, s.draws.between(25 * MS, 60 * MS), refused=True)


def pending(s: Session, ts: int) -> None:
    """Pending first, accepted later, then filled."""
    order = s.new(ts)
    answer = s.ack(order, "A")
    s.report(order, answer.ts_ns + 2 * MS, "0", "0")
    s.fill(order, s.draws.between(12 * MS, 30 * MS), order.shares)


def two_in_a_frame(s: Session, ts: int) -> None:
    """Two orders in one frame, cut inside the second one now and then; two reports in one frame."""
    first, second = s.new(ts), s.new(ts)
    second.request.joins = True
    first.request.cut = 0.75 if s.draws.unit() < 0.5 else 0.0
    answer = s.ack(first)
    s.ack(second).ts_ns = answer.ts_ns
    s.messages[-1].joins = True
    s.cancel(first, 20 * MS)
    s.cancel(second, 40 * MS)


def over_two_segments(s: Session, ts: int) -> None:
    """An order over two segments, and a report over two segments."""
    order = s.new(ts)
    order.request.cut = 0.2 + 0.6 * s.draws.unit()
    s.ack(order).cut = 0.2 + 0.6 * s.draws.unit()
    s.cancel(order, 30 * MS)


def order_retransmitted(s: Session, ts: int) -> None:
    """An order is lost behind the tap and sent again before the venue can answer."""
    order = s.new(ts)
    order.request.again_ns = ts + RETRANSMIT
    s.ack(order, late_ns=RETRANSMIT)
    s.cancel(order, 30 * MS)


def report_retransmitted(s: Session, ts: int) -> None:
    """A report is lost between tap and trader and sent again."""
    order = s.new(ts)
    answer = s.ack(order)
    answer.again_ns = answer.ts_ns + RETRANSMIT
    s.cancel(order, 30 * MS)


USUAL = (
    filled, filled_in_parts, cancelled, partly_filled, rejected, replaced, replaced_and_filled, replace_refused,
    cancel_refused, pending, two_in_a_frame, over_two_segments,
)  # fmt: skip
RARE = (order_retransmitted, report_retransmitted)
STORIES = USUAL + RARE
RARE_SHARE = 0.01  # of the slots after every story has been told


def trader(plan: Plan, venue: int) -> Session:
    """One trader's day on one venue."""
    opened_ns = BEGIN_NS + 5 * MS + venue * MS
    session = Session(
        plan, venue, f"AKFUND{venue + 1}", Endpoint(f"192.168.1.{11 + venue}", 40_001 + 17 * venue), opened_ns
    )
    session.logon()
    start, stop = BEGIN_NS + 60 * MS, plan.end_ns - 80 * MS
    count = (stop - start) // SLOT
    order = list(range(len(STORIES)))
    session.draws.rng.shuffle(order)
    pause, beat = session.heartbeat_seconds * SECOND, opened_ns
    for k in range(count):
        slot = start + k * SLOT
        if slot - beat >= pause:
            session.say(slot, True, "0")
            session.say(slot + 300_000, False, "0")
            beat = slot
        tales = RARE if session.draws.unit() < RARE_SHARE else USUAL
        story = STORIES[order[k]] if k < len(order) else session.draws.choice(tales)
        story(session, slot + 2 * MS + session.draws.below(10 * MS))
    session.logout(plan.end_ns - 40 * MS)
    return session


def rogue(plan: Plan) -> Session:
    """A source that may not trade, and does: its orders are accepted."""
    session = Session(plan, 0, "ROGUE", Endpoint("10.66.0.66", 51_515), plan.rogue_ns)
    session.logon()
    cancelled(session, plan.rogue_ns + 10 * MS)
    rejected(session, plan.rogue_ns + 90 * MS)
    session.logout(plan.rogue_ns + 130 * MS)
    return session
