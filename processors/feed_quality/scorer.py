"""The core of feed quality: follows every line's numbers and the feed's, and closes windows.

What is new, a copy or lost on all lines is decided by `sequencing.Arbiter`, as in arbitration; this core adds what
each line missed. It recovers nothing and knows no messages.

The rule of one line (MoldUDP64 and alike), with `expected` its next number:
    starts behind expected   a gap opens; heartbeats and end of session reveal a lost tail in the same way
    lies below expected      late fill where the line has missed it, else duplicate; a heartbeat says nothing there
    overlaps                 both: its tail is new
A line's first packet sets `expected`, unless the session was seen from number 1 on: then that is what it expected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson

from akbypass.config import Config
from akbypass.order import END_NS, restrict
from akbypass.processors.feed_quality import tally as t
from akbypass.processors.feed_quality.gaps import Line
from akbypass.processors.feed_quality.ledger import FEED_NAME, Ledger, Session
from akbypass.processors.feed_quality.reports import WindowRows
from akbypass.processors.sequencing import DATA, Arbiter, Cause, Event
from akbypass.rows import Array, Rows

SAMPLES_MAX = 1 << 20  # leads kept per window and partition; further packets are counted as not sampled
NOT_NEW = -1


class FeedQualityCore:
    """feed_frames → feed_gaps, feed_quality and alerts, for one run and one partition."""

    def __init__(self, config: Config, run_id: str, partition: int) -> None:
        self.arbiter = Arbiter(config)
        self.ledger = Ledger(config, run_id)
        self.windows = WindowRows(config, run_id)
        self.settle_ns = config.thresholds.gap_settle_ms * 1_000_000
        self.large_bytes = config.thresholds.large_packet_bytes
        self.window_end_ns = 0  # of the open window; 0 when none is open
        self.samples = np.zeros((1_024, 2), np.int64)  # line slot, lead in ns
        self.sampled = 0

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped or merely counted, by reason (count)."""
        return dict(self.arbiter.counters)

    def step(self, inputs: Mapping[str, Rows], watermark_ns: int, end: bool) -> dict[str, Rows]:
        """Follow the packets below the watermark, fire timers, and at the end settle and flush everything."""
        frames = restrict(inputs, "feed_frames", "feed_frames")
        judged = self.arbiter.advance(frames, watermark_ns, end)
        self._frames, self._judged = frames, judged
        self._run(frames["run_ns"], judged.events, watermark_ns)
        if end:
            self._finish(watermark_ns)
        return {
            "feed_gaps": self.ledger.rows.take(),
            "feed_quality": self.windows.take(),
            "alerts.feed_quality": self.windows.alerts.take(),
        }

    def _finish(self, end_ns: int) -> None:
        """Settle what stragglers of closed sessions opened, and close the last window."""
        for gap in list(self.ledger.gaps.values()):
            self._touch(end_ns)
            self.ledger.settle(gap, (end_ns, *gap.opened[1:]))
        if self.window_end_ns:
            self._flush(end_ns)

    def _run(self, run_ns: Array, events: list[Event], watermark_ns: int) -> None:
        """Take frames, the arbiter's events and timers in order of time; timers go before what has their time."""
        i, done, n = 0, 0, len(run_ns)
        while True:
            due = self._next_due()
            stop = events[done].at if done < len(events) else n
            if i < stop:
                if due <= run_ns[i]:
                    self._fire(due)
                    continue
                self._touch(int(run_ns[i]))
                limit = min(self._next_due(), int(run_ns[stop - 1]) + 1)
                i = self._frames_below(i, i + int(np.searchsorted(run_ns[i:stop], limit, "left")))
            elif done < len(events):
                if due <= events[done].cause[0]:
                    self._fire(due)
                    continue
                self._touch(events[done].cause[0])
                self._event(events[done], i)
                done += 1
            elif due < watermark_ns:
                self._fire(due)
            else:
                return

    def _next_due(self) -> int:
        oldest = next(iter(self.ledger.gaps.values()), None)
        settle = END_NS if oldest is None else oldest.opened[0] + self.settle_ns
        return min(settle, self.window_end_ns or END_NS)

    def _fire(self, due: int) -> None:
        if due == self.window_end_ns:
            self._flush(due)
            return
        gap = next(iter(self.ledger.gaps.values()))
        self._touch(due)
        self.ledger.settle(gap, (due, *gap.opened[1:]))

    def _touch(self, run_ns: int) -> None:
        """Open the window of this time unless one is open."""
        if self.window_end_ns == 0:
            self.window_end_ns = (run_ns // self.windows.window_ns + 1) * self.windows.window_ns

    # -- frames --------------------------------------------------------------------------------------------------------

    def _frames_below(self, i: int, limit: int) -> int:
        """Take frames up to `limit`, or up to and including one that needs thought."""
        i = self._tally(i, limit)
        if i < limit:
            self._tally(i, limit, self._line_rule(i), forced=True)
            for first, end in self._judged.firsts.get(i, ()):
                self._remember(i, first, end)
            i += 1
        return i

    def _tally(self, i: int, limit: int, one_new: int = NOT_NEW, *, forced: bool = False) -> int:
        self._room(2 if forced else 2 * (limit - i))
        f, j, book = self._frames, self._judged, self.ledger
        i, self.sampled = t.tally(
            i, limit, one_new, forced, j.slot, f["kind"], f["first_seq"], f["count"], f["ts_capture_ns"],
            f["ts_resolution_ns"], f["wire_length"], self.large_bytes, j.fresh_first, j.fresh_count, j.copies,
            book.session_of, book.expected, book.watch, book.ring_of, book.counters, book.ring, book.ring_n,
            self.samples, self.sampled,
        )  # fmt: skip
        return i

    def _remember(self, i: int, first: int, end: int) -> None:
        book, slot = self.ledger, self._judged.slot[i]
        ring = book.ring_of[book.session_of[slot]]
        if ring >= 0:
            t.remember(book.ring, book.ring_n, ring, first, end, self._frames["ts_capture_ns"][i], slot)

    def _room(self, more: int) -> None:
        wanted = min(self.sampled + more, SAMPLES_MAX)
        if wanted > len(self.samples):
            grown = np.zeros((min(2 * wanted, SAMPLES_MAX), 2), np.int64)
            grown[: self.sampled] = self.samples[: self.sampled]
            self.samples = grown

    def _line_rule(self, i: int) -> int:
        """Apply the rule of one line to frame i; returns its first number that is new on the line, or NOT_NEW."""
        f, book = self._frames, self.ledger
        slot = int(self._judged.slot[i])
        session = book.sessions[int(book.session_of[slot])]
        first, ts, resolution = int(f["first_seq"][i]), int(f["ts_capture_ns"][i]), int(f["ts_resolution_ns"][i])
        end = first + (int(f["count"][i]) if f["kind"][i] == DATA else 0)
        cause: Cause = (int(f["run_ns"][i]), int(f["capture_id"][i]), int(f["capture_pos"][i]))
        line = session.lines.get(slot)
        if line is None:
            line = book.first_packet(session, slot, bytes(f["line"][i]), first, cause, ts, resolution)
        expected = int(book.expected[slot])
        new = expected if end > expected else NOT_NEW
        if first > expected:
            book.open_gap(session, line, expected, first, cause, ts, resolution)
            new = first if end > first else NOT_NEW
        elif first < min(end, expected):
            seen_before = self._below(session, line, first, min(end, expected), cause, ts, resolution)
            new = seen_before if seen_before != NOT_NEW else new
        book.expected[slot] = max(expected, first, end)
        if end > first:
            book.delivered(session, line, first, end, ts, resolution)
        return new

    def _below(self, session: Session, line: Line, first: int, end: int, cause: Cause, ts: int, resolution: int) -> int:
        """Part of a packet below what its line expected: late fills, the rest duplicates."""
        early = max(0, min(end, line.start) - first)
        fills = line.missing.common(first, end)
        for a, b in fills:
            self.ledger.fill(session, line, a, b, cause, ts, resolution)
        duplicates = end - first - early - sum(b - a for a, b in fills)
        self.ledger.counters[line.slot, t.DUPLICATES] += duplicates
        if early:  # it began with packets out of order: what lies between was never shown, so it is no gap
            if end < line.start:
                line.missing.add(end, line.start)
            line.start = first
            return first
        return fills[0][0] if fills else NOT_NEW

    # -- events of the arbiter -----------------------------------------------------------------------------------------

    def _event(self, event: Event, i: int) -> None:
        book, domain = self.ledger, event.domain
        if event.kind == "joined":
            book.join(domain, event.first, len(self.arbiter.configured.get(domain.feed, ())) > 1)
            return
        session = book.sessions[domain.slot]
        if event.kind == "moved":
            book.counters[event.first, t.RESETS] += 1
        elif event.kind == "started":
            book.started(session, event.first, event.cause)
            if any(s.feed == session.feed and s.serial < session.serial for s in book.sessions.values()):
                book.feed_counters[session.slot, t.RESETS] += 1
        elif event.kind == "lost":
            ts, resolution = self._stamp(event, i)
            book.open_gap(session, None, event.first, event.end, event.cause, ts, resolution)
        elif event.kind == "late":
            ts, resolution = self._stamp(event, i)
            book.fill_feed(session, event.first, event.end, event.cause, ts, resolution)
        elif event.kind == "closed":
            book.close(session, event.left, event.end, event.cause)
        elif event.kind == "dropped":
            book.settle_all(session, event.cause)  # what stragglers opened since it was closed
            self._report(session, event.cause)
            kept = self.samples[: self.sampled][~np.isin(self.samples[: self.sampled, 0], list(session.lines))]
            self.sampled = len(kept)
            self.samples[: self.sampled] = kept
            book.drop(session)

    def _stamp(self, event: Event, i: int) -> tuple[int, int]:
        """Capture time and resolution of the frame that caused an event, or its due time for a timer."""
        f = self._frames
        for k in (i - 1, i):
            if 0 <= k < len(f) and event.cause == (f["run_ns"][k], f["capture_id"][k], f["capture_pos"][k]):
                return int(f["ts_capture_ns"][k]), int(f["ts_resolution_ns"][k])
        return event.cause[0], 0

    # -- windows -------------------------------------------------------------------------------------------------------

    def _flush(self, run_ns: int) -> None:
        """Close the open window: rows for each line and feed with traffic or events."""
        for session in list(self.ledger.sessions.values()):
            self._report(session, (run_ns, 0, 0))
        self.sampled = 0
        self.window_end_ns = 0

    def _report(self, session: Session, cause: Cause) -> None:
        book, end_ns = self.ledger, self.window_end_ns
        whole = book.feed_counters[session.slot].copy()
        samples = self.samples[: self.sampled]
        active = bool(whole.any())
        for line in session.lines.values():
            counters = book.counters[line.slot]
            if not counters.any():
                continue
            active = True
            self.windows.add(cause, end_ns, session, line.name, counters, samples[samples[:, 0] == line.slot, 1])
            for column in (t.PACKETS, t.MESSAGES, t.BYTES, t.LARGE, t.HEARTBEATS, t.FIRST, t.RECOVERED):
                whole[column] += counters[column]
            whole[t.DUPLICATES] += counters[t.COPIES]
            counters[:] = 0
        if active:
            score = self.windows.add(cause, end_ns, session, FEED_NAME, whole, samples[:0, 1])
            self.windows.judge(cause, end_ns, session, score)
        book.feed_counters[session.slot] = 0
        session.evidence.clear()

    # -- state ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Array]:
        """Copy the whole state as named arrays of numbers or bytes."""
        firing = [[feed.decode("latin-1"), *held] for feed, held in self.windows.firing.items()]
        tree: dict[str, object] = {"window_end_ns": self.window_end_ns, "firing": firing, "ledger": self.ledger.pack()}
        own: dict[str, Array] = {
            "tree": np.frombuffer(orjson.dumps(tree), np.uint8).copy(),
            "samples": self.samples[: self.sampled].copy(),
        }
        arbiter = {f"arbiter.{k}": v for k, v in self.arbiter.snapshot().items()}
        ledger = {f"ledger.{k}": v for k, v in self.ledger.arrays().items()}
        return {**own, **arbiter, **ledger}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take over a snapshot."""
        tree = orjson.loads(state["tree"].tobytes())
        self.window_end_ns = tree["window_end_ns"]
        self.windows.firing = {feed.encode("latin-1"): (alert, revision) for feed, alert, revision in tree["firing"]}
        self.sampled = len(state["samples"])
        self.samples = np.concatenate([state["samples"], np.zeros((1_024, 2), np.int64)])
        self.arbiter.restore({k.removeprefix("arbiter."): v for k, v in state.items() if k.startswith("arbiter.")})
        ledger = {k.removeprefix("ledger."): v for k, v in state.items() if k.startswith("ledger.")}
        self.ledger.restore(tree["ledger"], ledger)


__all__ = ["FeedQualityCore"]
