"""The plan of a simulated day: who, where, when. Everything that shall be found is decided here; makes no bytes.

Prices are integers in ticks of 0.01. Every symbol has one common mid for all venues, a random walk of single ticks.
A venue quotes at most mid − 1 and at least mid + 1, so quotes of two venues overlap only inside a planned window:

    prepare ─ 2 ms ─ open ─────────── close ─ 0.6 ms ─ tidy ─ 2.4 ms ─ restore
    │ third venue and seller lift     │ by deleting, executing or replacing the bid, or by taking the ask
    │ their asks, buyer keeps one     └ the mid stands still from before `prepare` until after `restore`
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from akbypass.producers.simulator.draws import Draws
from akbypass.producers.simulator.network import Endpoint

MS, SECOND = 1_000_000, 1_000_000_000
BEGIN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)  # a Monday, 09:30 in New York
BEGIN_NS = int(BEGIN.timestamp()) * SECOND
_MIDNIGHT = BEGIN.astimezone(ZoneInfo("America/New_York")).replace(hour=0, minute=0)
MIDNIGHT_NS = int(_MIDNIGHT.timestamp()) * SECOND  # what ITCH timestamps count from
SYMBOLS = ("ALFA", "BRVO", "CHRL", "DLTA", "ECHO", "FXTR", "GOLF", "HOTL", "INDA", "JULT", "KILO", "LIMA")
NANOS_PER_TICK = 10_000_000
EDGE_MIN_TICKS = 2  # an opportunity is an edge above this
LATENCY_TARGET_US = 500
SECONDS_MIN = 2  # shorter days have no room for one of everything
CLOSES = ("delete", "execute", "replace", "taken")  # how a window ends; taken: the ask is executed
PREPARE, TIDY, RESTORE, MARGIN = 2 * MS, 600_000, 3 * MS, 2 * MS


@dataclass(frozen=True, slots=True)
class Venue:
    """A venue: its feed's name is its own; `delay_ns` is the way from the venue to the tap on line A."""

    name: str
    gateway: Endpoint
    groups: dict[str, Endpoint]
    sources: dict[str, Endpoint]
    session: bytes
    delay_ns: int
    ack_ns: int


def _venue(n: int, name: str, delay_ns: int, ack_ns: int) -> Venue:
    groups = {"A": Endpoint(f"233.54.12.{n}", 26_476 + n), "B": Endpoint(f"233.54.12.{128 + n}", 26_476 + n)}
    sources = {"A": Endpoint(f"203.0.113.{n}", 31_000), "B": Endpoint(f"203.0.113.{128 + n}", 31_000)}
    gateway = Endpoint(f"198.51.100.{10 * n}", 4000 + n)
    return Venue(name, gateway, groups, sources, f"SIM{name}001".encode(), delay_ns, ack_ns)


VENUES = (_venue(1, "XNAS", 41_000, 170_000), _venue(2, "XBOS", 57_000, 230_000), _venue(3, "XPSX", 73_000, 280_000))


@dataclass(frozen=True, slots=True)
class Window:
    """A planned edge of one symbol: buy on `buy`, sell on `sell` (venue indexes); `ticks` of edge, from open to close.

    Edges of EDGE_MIN_TICKS or less are near misses. `mid` is the symbol's mid meanwhile, in ticks.
    """

    symbol: int
    buy: int
    sell: int
    third: int
    ticks: int
    open_ns: int
    close_ns: int
    close: str
    mid: int

    @property
    def still(self) -> tuple[int, int]:
        """When the mid must not move; ns."""
        return self.open_ns - PREPARE - MARGIN, self.close_ns + RESTORE + 2 * MARGIN


@dataclass(frozen=True, slots=True)
class Plan:
    """A day; times are ns since the UNIX epoch. `mids` holds, per symbol, times and values of the walk."""

    seed: int
    seconds: float
    messages_per_second: int
    end_ns: int
    active: tuple[int, int]
    quiet: tuple[int, int]
    heartbeat_ns: int
    mids: tuple[tuple[list[int], list[int]], ...]
    windows: tuple[Window, ...]
    lost_venue: int
    lost_ns: int
    slow_venue: int
    slow: tuple[int, int]
    rogue_ns: int
    scan_ns: int

    def mid_at(self, symbol: int, ts_ns: int) -> int:
        """Mid of a symbol at a time; ticks."""
        times, values = self.mids[symbol]
        return values[bisect.bisect_right(times, ts_ns) - 1]


def make_plan(seed: int, seconds: float, messages_per_second: int) -> Plan:
    """Decide a day; raises ValueError for one that has no room for one event of every kind."""
    if seconds < SECONDS_MIN or messages_per_second < 300 or seed < 0:
        raise ValueError(
            f"expected a seed of 0 or more, {SECONDS_MIN} seconds or more and 300 messages/s or more, "
            f"found {seed}, {seconds}, {messages_per_second}"
        )
    draws = Draws(seed, "plan")
    length = int(seconds * SECOND)

    def at(part: float) -> int:
        return BEGIN_NS + int(length * part)

    heartbeat = min(SECOND, length // 25)
    quiet = (at(0.45), at(0.45) + heartbeat * 7 // 2)
    end = BEGIN_NS + length
    active = (BEGIN_NS + 30 * MS, end - 60 * MS)
    lost_venue, lost_ns = draws.below(len(VENUES)), at(0.78)
    spans = [(at(0.06), quiet[0]), (quiet[1], lost_ns - 20 * MS), (lost_ns + 30 * MS, active[1] - 20 * MS)]
    slots = _slots(spans, draws, max(6, int(seconds * 0.7)))
    starts = [draws.between(2_000, 30_000) for _ in SYMBOLS]
    pairs = _pairs(slots, lost_venue, lost_ns, draws)
    still = [[quiet] for _ in SYMBOLS]
    outlines = []
    for k, ((open_ns, close_ns), (buy, sell)) in enumerate(zip(slots, pairs, strict=True)):
        ticks = draws.between(1, 3) if k % 5 == 2 else draws.between(3, 9)
        outline = (draws.below(len(SYMBOLS)), buy, sell, 3 - buy - sell, ticks, open_ns, close_ns, CLOSES[k % 4])
        outlines.append(outline)
        still[outline[0]].append(Window(*outline, mid=0).still)
    mids = tuple(_walk(start, active, spans, draws) for start, spans in zip(starts, still, strict=True))
    first_slow = max(1, int(seconds * 0.5))
    slow = (BEGIN_NS + first_slow * SECOND, BEGIN_NS + (first_slow + max(1, int(seconds * 0.15))) * SECOND)
    plan = Plan(
        seed, seconds, messages_per_second, end, active, quiet, heartbeat, mids, (), lost_venue, lost_ns,
        draws.below(len(VENUES)), slow, at(0.3), at(0.6),
    )  # fmt: skip
    windows = tuple(Window(*o, mid=plan.mid_at(o[0], o[5])) for o in outlines)
    return Plan(**{name: getattr(plan, name) for name in Plan.__slots__ if name != "windows"}, windows=windows)


def _slots(spans: list[tuple[int, int]], draws: Draws, count: int) -> list[tuple[int, int]]:
    """Opening and closing times of windows, one after the other, spread over the spans."""
    total = sum(stop - start for start, stop in spans)
    overhead = PREPARE + RESTORE + 4 * MARGIN
    slots = []
    for start, stop in spans:
        share = max(2, round(count * (stop - start) / total))
        width = (stop - start) // share
        longest = min(500 * MS, width - overhead - 10 * MS)
        for k in range(share):
            life = draws.log_between(MS, longest)
            slack = width - overhead - life
            opened = start + k * width + PREPARE + MARGIN + draws.below(slack)
            slots.append((opened, opened + life))
    return slots


def _pairs(slots: list[tuple[int, int]], lost_venue: int, lost_ns: int, draws: Draws) -> list[tuple[int, int]]:
    """Buying and selling venue of each window: all six in turn; behind the loss every other one without that venue."""
    every = [(b, s) for b in range(3) for s in range(3) if b != s]
    sound = [p for p in every if lost_venue not in p]
    tainted = [p for p in every if lost_venue in p]
    pairs, behind = [], 0
    for k, (opened, _) in enumerate(slots):
        if opened < lost_ns:
            pairs.append(every[(k + draws.below(2)) % 6])
        else:
            pairs.append((sound if behind % 2 == 0 else tainted)[draws.below(2 + 2 * (behind % 2))])
            behind += 1
    return pairs


def _walk(
    start: int, active: tuple[int, int], still: list[tuple[int, int]], draws: Draws
) -> tuple[list[int], list[int]]:
    """Random walk in single ticks that stays within 40 ticks of its start and moves at no still time."""
    times, values = [BEGIN_NS], [start]
    ts = active[0] + 20 * MS
    while True:
        ts += 25 * MS + int(draws.exponential(375 * MS))
        if ts > active[1] - 20 * MS:
            return times, values
        step = 1 if draws.unit() * 80 < 40 - (values[-1] - start) else -1
        if not any(a <= ts <= b for a, b in still):
            times.append(ts)
            values.append(values[-1] + step)
