"""The sequence rule of a feed over all its lines: what is new, a copy, held back, late, or lost on all lines.

Works on feed_frames rows (packets), knows no messages, no gaps of a single line and no quality.

A *domain* is one session of a feed. Its numbers are settled strictly upwards; `next` is the first unsettled one:

    released ──────────┐ next        top = first number that no line has shown yet
    1 2 3 4 5 6 7 8 9 │ ? ? │ 12 13 │ ? │ 15 │
                        hole   held  hole  held

- The first line to bring a number delivers it; whatever comes again is a copy.
- A packet or heartbeat that starts behind `top` opens a hole there; a line that brings it fills it.
- A hole is lost (i) when each known line of a feed with several lines expects a number behind it, or (ii) when the
  reorder window has passed since it opened. On a feed with one known line only (ii) holds, so that two swapped
  packets are not a loss. Known lines are the configured ones and those seen. Too many held messages lose the oldest hole.
- A domain starts at the lowest number shown before every known line has spoken or the reorder window has passed,
  at once when that is 0 or 1: a capture that begins in the middle of a session begins with no gap.
- A line that speaks in a new session has passed everything in the old one. The old session is closed, its holes lost,
  when the new one starts: when every known line has moved, or the reorder window after the first did.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter

import numpy as np
import orjson

from akbypass.config import Config
from akbypass.order import END_NS, hash_columns
from akbypass.processors.domains import Arbitrated, Cause, Domain, Event, fill, pack, text, unpack
from akbypass.processors.slots import CLEAN, NEXT, Slots, advance
from akbypass.rows import Array, Rows

RUN = 0  # place of run_ns in a cause
DATA = 0  # ordinal of feed_frames.kind data
PASSED = (1 << 62) - 1  # a line that has left the session expects nothing more of it
SEQUENCE_MAX = 1 << 61  # above it a sequence number is noise, and sums could overflow
FEEDS_MAX = 1_024  # feeds followed per partition; the one known for longest is closed first
CLOSED_MAX = 4  # closed sessions remembered per feed, to know stragglers
LINES_MAX = 16  # lines per feed and session; further ones are counted and ignored
LOST_RANGES_MAX = 4_096  # lost ranges remembered per session, to tell late from copies


class Arbiter:
    """The sequence rule for one run and one partition, any number of feeds."""

    def __init__(self, config: Config) -> None:
        self.window_ns = config.thresholds.reorder_window_us * 1_000
        self.held_max = config.thresholds.held_messages_max
        self.configured = {f.name.encode(): sorted(line.encode() for line in f.lines) for f in config.feeds}
        self.reopen_ns = config.thresholds.gap_settle_ms * 1_000_000
        reasons = ("copies", "late", "before_start", "after_close", "invalid_messages", "ignored_line_messages")
        self.counters = dict.fromkeys((*reasons, "invalid_frames", "ignored_line_frames", "feeds_dropped"), 0)
        self.known: dict[bytes, list[bytes]] = {}  # feed → known lines
        self.domains: dict[bytes, list[Domain]] = {}  # feed → sessions, oldest first
        self.now_in: dict[tuple[bytes, bytes], int] = {}  # feed, line → serial of the session it speaks in
        self.active: dict[int, Domain] = {}  # serial → domains that a timer may move
        self.serials = 0
        self.number = 0  # frames of earlier steps
        self.slots = Slots()

    # -- one step ------------------------------------------------------------------------------------------------------

    def advance(self, frames: Rows, watermark_ns: int, end: bool) -> Arbitrated:
        """Judge the frames of one step and fire timers due below the watermark; `end` closes everything."""
        n = len(frames)
        self.slots.free_dropped()
        self._frames, self._n_segments, self._at = frames, 0, 0
        self._order = np.stack([frames[k].astype(np.int64) for k in ("run_ns", "capture_id", "capture_pos")], axis=1)
        self._hashes = hash_columns(frames["feed"], frames["session"], frames["line"])
        first, fresh, copies, late = (np.zeros(n, np.int64) for _ in range(4))
        segments = np.empty((n + 64, 6), np.int64)
        self._out = Arbitrated(np.full(n, -1, np.int64), first, fresh, copies, late, segments, [], self.number)
        run_ns = frames["run_ns"]
        i = 0
        while True:
            due, domain = self._next_due()
            limit = int(np.searchsorted(run_ns, due, "left")) if n and due <= run_ns[-1] else n
            i = self._fast(i, max(i, limit))
            self._at = i
            if i < limit:
                self._frame(i)
                i += 1
            elif domain is not None and due <= (run_ns[i] if i < n else watermark_ns - 1):
                self._fire(domain, due)
            else:
                break
        if end:
            self._close_all(watermark_ns)
        self.number += n
        out, self._out = self._out, None  # type: ignore[assignment]
        out.segments = out.segments[: self._n_segments]
        self.counters["copies"] += int(out.copies.sum())
        self.counters["late"] += int(out.late.sum())
        return out

    def _fast(self, i: int, limit: int) -> int:
        if i >= limit:
            return i
        out, frames, s = self._out, self._frames, self.slots
        self._room(limit - i)
        i, self._n_segments = advance(
            i, limit, self.number, self._hashes, frames["kind"], frames["first_seq"], frames["count"],
            s.keys, s.values, s.line_domain, s.expected, s.current, s.domain_state,
            out.slot, out.fresh_first, out.fresh_count, out.copies, self._order, out.segments, self._n_segments,
        )  # fmt: skip
        return i

    def _room(self, more: int) -> None:
        segments = self._out.segments
        if self._n_segments + more > len(segments):
            grown = np.empty((2 * (self._n_segments + more), 6), np.int64)
            grown[: self._n_segments] = segments[: self._n_segments]
            self._out.segments = grown

    def _next_due(self) -> tuple[int, Domain | None]:
        best: tuple[int, Domain | None] = (END_NS, None)
        for domain in self.active.values():
            due = domain.due_ns if domain.state == "waiting" else domain.holes[0][2][RUN] + self.window_ns
            if best[1] is None or (due, domain.serial) < (best[0], best[1].serial):
                best = (due, domain)
        return best

    def _fire(self, domain: Domain, due: int) -> None:
        if domain.state == "waiting":
            self._start(domain, (due, *domain.cause[1:]))
        else:
            first_hole = domain.holes[0]
            self._lose(domain, first_hole[1], (due, *first_hole[2][1:]))

    def _close_all(self, end_ns: int) -> None:
        for domain in sorted((d for ds in self.domains.values() for d in ds), key=lambda d: d.serial):
            if domain.state != "closed":
                self._close(domain, (end_ns, *domain.cause[1:]))

    def _event(self, kind: str, cause: Cause, domain: Domain, first: int = 0, end: int = 0) -> None:
        events = self._out.events
        if kind == "lost" and events:
            last = events[-1]
            if (last.kind, last.domain, last.cause, last.end, last.before) == (
                kind,
                domain,
                cause,
                first,
                self._n_segments,
            ):
                first = events.pop().first  # two holes side by side, lost by one cause, are one loss
        left = frozenset(domain.left) if kind == "closed" else frozenset()
        events.append(Event(kind, self._at, cause, domain, first, end, self._n_segments, left))

    # -- one frame that needs thought ----------------------------------------------------------------------------------

    def _frame(self, i: int) -> None:
        frames = self._frames
        first = int(frames["first_seq"][i])
        count = int(frames["count"][i]) if frames["kind"][i] == DATA else 0
        cause: Cause = (int(self._order[i, 0]), int(self._order[i, 1]), int(self._order[i, 2]))
        if not 0 <= first <= SEQUENCE_MAX or count < 0:
            self.counters["invalid_frames"] += 1
            self.counters["invalid_messages"] += max(count, 0)
            return
        found = self._domain_of(i, cause)
        if found is None:
            self.counters["ignored_line_frames"] += 1
            self.counters["ignored_line_messages"] += count
            return
        domain, line = found
        end = first + count
        self._at = i + 1
        self._out.slot[i] = line
        self.slots.expected[line] = max(int(self.slots.expected[line]), end)
        if domain.state == "closed":
            self._straggler(domain, i, first, end)
            return
        self._load(domain)
        self._place(domain, i, first, end, cause)
        if domain.state == "waiting":
            self._start_if_ready(domain, cause)
        else:
            self._settle(domain, cause)
        self._store(domain)

    def _place(self, domain: Domain, i: int, first: int, end: int, cause: Cause) -> None:
        """Find what is new in [first, end) and hold it; open and fill holes."""
        parts: list[tuple[int, int]] = []
        if domain.state == "waiting" and first < domain.start:
            if min(end, domain.start) > first:
                parts.append((first, min(end, domain.start)))
            if end < domain.start:
                domain.holes.insert(0, (end, domain.start, cause))
            domain.start = domain.next = first
        parts += fill(domain.holes, first, end)
        if first > domain.top:
            domain.holes.append((domain.top, first, cause))
        if end > domain.top:
            parts.append((max(first, domain.top), end))
        domain.top = max(domain.top, first, end)
        number = self.number + i
        for a, b in parts:
            at = bisect_right(domain.held, a, key=itemgetter(0))
            domain.held.insert(at, (a, b, number))
            domain.held_count += b - a
        self._count(domain, i, first, end, parts, cause)

    def _count(self, domain: Domain, i: int, first: int, end: int, parts: list[tuple[int, int]], cause: Cause) -> None:
        out = self._out
        fresh = sum(b - a for a, b in parts)
        late = domain.lost.common(first, end)
        for a, b in late:
            domain.lost.remove(a, b)
            self._event("late", cause, domain, a, b)
        early = max(0, min(end, domain.start) - first)
        self.counters["before_start"] += early
        out.fresh_first[i] = parts[0][0] if parts else first
        if late or len(parts) > 1 or (parts and parts[0][1] < end):
            out.fresh_first[i] = -1
            out.firsts[i] = sorted([*parts, *late])
        out.fresh_count[i] = fresh
        out.late[i] = sum(b - a for a, b in late)
        out.copies[i] = end - first - fresh - int(out.late[i]) - early

    def _straggler(self, domain: Domain, i: int, first: int, end: int) -> None:
        """A frame of a closed session: what it brings comes too late for everyone."""
        cause: Cause = (int(self._order[i, 0]), int(self._order[i, 1]), int(self._order[i, 2]))
        after = max(0, end - max(first, domain.next))
        self.counters["after_close"] += after
        self._count(domain, i, first, max(first, min(end, domain.next)), [], cause)

    def _settle(self, domain: Domain, cause: Cause) -> None:
        """Release what can go, and lose what every known line has passed."""
        self._drain(domain, cause)
        known = self.known[domain.feed]
        if domain.holes and len(known) > 1:
            passed = min(self._expects(domain, line) for line in known)
            if passed > domain.holes[0][0]:
                self._lose(domain, passed, cause)
        while domain.held_count > self.held_max:
            self._lose(domain, domain.holes[0][1], cause)

    def _expects(self, domain: Domain, line: bytes) -> int:
        if line in domain.left:
            return PASSED
        slot = domain.lines.get(line)
        return -1 if slot is None else int(self.slots.expected[slot])

    def _lose(self, domain: Domain, limit: int, cause: Cause) -> None:
        """Declare the holes below `limit` lost, and release what they held back."""
        while domain.holes and domain.holes[0][0] < limit:
            first, end, opened = domain.holes[0]
            cut = min(end, limit)
            domain.holes[0:1] = [(cut, end, opened)] if cut < end else []
            self._event("lost", cause, domain, first, cut)
            domain.lost.add(first, cut)
            domain.lost.forget_oldest(LOST_RANGES_MAX)
            domain.next = cut
            self._drain(domain, cause)
        self._store(domain)

    def _drain(self, domain: Domain, cause: Cause) -> None:
        gone = 0
        for first, end, number in domain.held:
            if first != domain.next:
                break
            self._room(1)
            self._out.segments[self._n_segments] = (number, first, end, *cause)
            self._n_segments += 1
            domain.next = end
            domain.held_count -= end - first
            gone += 1
        del domain.held[:gone]

    # -- domains and lines ---------------------------------------------------------------------------------------------

    def _domain_of(self, i: int, cause: Cause) -> tuple[Domain, int] | None:
        """Find or make the domain and line slot of frame i; None when its feed has too many lines."""
        frames = self._frames
        feed, session, line = bytes(frames["feed"][i]), bytes(frames["session"][i]), bytes(frames["line"][i])
        known = self.known.get(feed)
        if known is None:
            known = self.known[feed] = list(self.configured.get(feed, []))
            self.domains[feed] = []
            self._limit_feeds(cause)
        if line not in known:
            if len(known) >= LINES_MAX:
                return None
            known.append(line)
        domain = next((d for d in self.domains[feed] if d.session == session), None)
        back = domain is not None and domain.state == "closed" and line in domain.left
        if domain is not None and back and cause[RUN] - domain.closed_ns >= self.reopen_ns:
            self._drop(domain, cause)  # this is no straggler: the session has come back
            domain = None
        if domain is None:
            domain = self._open(feed, bytes(frames["venue"][i]), session, int(frames["first_seq"][i]), cause)
        slot = domain.lines.get(line)
        if slot is None:
            slot = domain.lines[line] = self.slots.new_line(domain.slot, int(self._hashes[i]))
            self._event("joined", cause, domain, slot)
        self._enter(domain, line, slot, cause)
        return domain, slot

    def _open(self, feed: bytes, venue: bytes, session: bytes, first: int, cause: Cause) -> Domain:
        slot = self.slots.new_domain()
        due = cause[RUN] + self.window_ns
        domain = Domain(self.serials, slot, feed, venue, session, "waiting", due, cause, first, first, first)
        self.serials += 1
        self.domains[feed].append(domain)
        self._store(domain)
        return domain

    def _enter(self, domain: Domain, line: bytes, slot: int, cause: Cause) -> None:
        """Note that a line speaks in a session; if it is a later one, the line has left the earlier ones."""
        before = self.now_in.get((domain.feed, line), -1)
        if domain.serial <= before:
            return
        self.now_in[domain.feed, line] = domain.serial
        self.slots.current[slot] = 1
        for other in self.domains[domain.feed]:
            if other.serial >= domain.serial:
                continue
            other.left.add(line)
            if line in other.lines:
                self.slots.current[other.lines[line]] = 0
            if other.state == "open":
                self._load(other)
                self._settle(other, cause)
                self._store(other)
        if before >= 0:
            self._event("moved", cause, domain, slot)

    def _start_if_ready(self, domain: Domain, cause: Cause) -> None:
        alone = not any(d.serial < domain.serial and d.state != "closed" for d in self.domains[domain.feed])
        complete = all(line in domain.lines or line in domain.left for line in self.known[domain.feed])
        if complete or (alone and domain.start <= 1) or domain.held_count > self.held_max:
            self._start(domain, cause)

    def _start(self, domain: Domain, cause: Cause) -> None:
        """Close earlier sessions, then let this one go."""
        for other in list(self.domains[domain.feed]):
            if other.serial < domain.serial and other.state != "closed":
                self._close(other, cause)
        latest = domain.cause
        for at, (first, end, opened) in enumerate(domain.holes):  # so that a lower hole is never due after a higher one
            latest = max(latest, opened)
            domain.holes[at] = (first, end, latest)
        domain.state = "open"
        self._event("started", cause, domain, domain.start)
        self._settle(domain, cause)
        self._store(domain)

    def _close(self, domain: Domain, cause: Cause) -> None:
        self._load(domain)
        if domain.state == "waiting":
            self._start(domain, cause)
        self._lose(domain, PASSED, cause)
        domain.state, domain.closed_ns = "closed", cause[RUN]
        self._store(domain)
        self._event("closed", cause, domain, end=domain.next)
        closed = [d for d in self.domains[domain.feed] if d.state == "closed"]
        for old in closed[:-CLOSED_MAX]:
            self._drop(old, cause)

    def _drop(self, domain: Domain, cause: Cause) -> None:
        """Forget a closed domain; its slots are used again from the next step on."""
        self.domains[domain.feed].remove(domain)
        self._event("dropped", cause, domain)
        self.slots.drop(domain.slot, domain.lines.values())

    def _limit_feeds(self, cause: Cause) -> None:
        """Close and forget the feed known for longest when there are too many."""
        if len(self.domains) <= FEEDS_MAX:
            return
        feed = next(iter(self.domains))
        for domain in list(self.domains[feed]):
            if domain.state != "closed":
                self._close(domain, cause)
        for domain in list(self.domains[feed]):
            self._drop(domain, cause)
        self.counters["feeds_dropped"] += 1
        del self.domains[feed], self.known[feed]
        self.now_in = {k: v for k, v in self.now_in.items() if k[0] != feed}

    # -- slots: what the kernel sees of it -----------------------------------------------------------------------------

    def _load(self, domain: Domain) -> None:
        if self.slots.domain_state[domain.slot, CLEAN]:
            domain.next = domain.top = int(self.slots.domain_state[domain.slot, NEXT])

    def _store(self, domain: Domain) -> None:
        look = max(domain.start, domain.lost.ranges[-1][1] if len(domain.lost) else 0)
        clean = domain.state == "open" and not domain.holes
        self.slots.domain_state[domain.slot] = (domain.next, look, clean)
        if clean or domain.state == "closed":
            self.active.pop(domain.serial, None)
        else:
            self.active[domain.serial] = domain

    # -- state ---------------------------------------------------------------------------------------------------------

    def held_numbers(self) -> list[int]:
        """Numbers of the frames of which something is held back."""
        return sorted({number for ds in self.domains.values() for d in ds for _, _, number in d.held})

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state as named arrays."""
        self.slots.free_dropped()
        domains = [d for ds in self.domains.values() for d in ds]
        for domain in domains:
            self._load(domain)
        tree = {
            "counters": self.counters, "serials": self.serials, "number": self.number,
            "slots": self.slots.pack(),
            "known": [[text(f), [text(line) for line in lines]] for f, lines in self.known.items()],
            "now_in": [[text(f), text(line), s] for (f, line), s in self.now_in.items()],
            "domains": [pack(d) for d in domains],
        }  # fmt: skip
        return {"tree": np.frombuffer(orjson.dumps(tree), np.uint8).copy(), **self.slots.arrays()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        tree = orjson.loads(state["tree"].tobytes())
        self.slots.restore(tree["slots"], state)
        self.counters, self.serials, self.number = tree["counters"], tree["serials"], tree["number"]
        self.known = {f.encode("latin-1"): [x.encode("latin-1") for x in lines] for f, lines in tree["known"]}
        self.now_in = {(f.encode("latin-1"), x.encode("latin-1")): s for f, x, s in tree["now_in"]}
        self.domains = {feed: [] for feed in self.known}
        self.active = {}
        for packed in tree["domains"]:
            domain = unpack(packed)
            self.domains[domain.feed].append(domain)
            self._store(domain)


__all__ = ["DATA", "Arbiter", "Arbitrated", "Cause", "Domain", "Event"]
