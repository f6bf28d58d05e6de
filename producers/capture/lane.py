"""One capture on its way from frames to rows: headers, decoders, counts, watermark; opens nothing and waits for nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from akbypass import order
from akbypass.accounts import CAPTURE, Accounts
from akbypass.order import END_NS, START_NS
from akbypass.producers.capture.duplicates import Duplicates
from akbypass.producers.capture.headers import HeaderParser
from akbypass.producers.capture.reader import Reader
from akbypass.producers.capture.seconds import Seconds
from akbypass.producers.frames import FrameBatch, PacketBatch
from akbypass.producers.spool.degrade import Lost
from akbypass.rows import Rows
from akbypass.topics import CAPTURE_TOPICS, LEDGER

SLICE_FRAMES = 2_500  # of a paced replay; more of them cost less a frame, but wait longer for the last
BEHIND_ALL = (END_NS, 0, 0, 0)
IDLE_SLACK_NS = 1_000_000_000  # a silent live capture's watermark follows the clock this far behind


class Decoder(Protocol):
    """What turns payloads into rows of one capture; keeps what it needs from batch to batch."""

    def decode(self, batch: PacketBatch) -> dict[str, Rows]:
        """Return rows by topic; every row's run_ns is that of a packet of this batch."""
        ...

    def finish(self, run_ns: int, capture_id: int, capture_pos: int) -> dict[str, Rows]:
        """Return what the end of the capture brings, with this order key."""
        ...


@dataclass(frozen=True, slots=True)
class EdgeBatch:
    """Rows of one capture by topic, each topic in order; a topic without rows is absent.

    `watermark_ns`: all rows with run_ns below it have been delivered, rows at it may follow. `end_ns` is set in the
    last batch of a capture: its last run_ns + 1.
    """

    capture_id: int
    rows: dict[str, Rows]
    watermark_ns: int
    end_ns: int | None


class Lane:
    """One capture: `step` delivers its next rows, at last its end. It looks one frame batch ahead where that never waits.

    Args:
        number: Ordinal of the capture in its run.
        run_id: Identity of the run.
        reader: Its frames.
        decoders: Its decoders, for no other capture.
        seconds: Its counters.
        topics: Topics wanted.
        slice_ns: Capture time (ns) handed out at once in a paced replay, with at most SLICE_FRAMES frames; None for no such limit.
        now_ns: Wall clock (ns since the UNIX epoch) of a live capture; None for files.
        duplicates: What tells copies of frames; None where they are not looked for.
    """

    def __init__(
        self, number: int, run_id: str, reader: Reader, decoders: Sequence[Decoder], seconds: Seconds, *,
        topics: Collection[str], slice_ns: int | None, now_ns: Callable[[], int] | None, duplicates: Duplicates | None = None,
    ) -> None:  # fmt: skip
        self.number, self.run_id, self.reader, self.decoders, self.seconds = number, run_id, reader, decoders, seconds
        self.topics, self.slice_ns, self.now_ns, self.duplicates = topics, slice_ns, now_ns, duplicates
        self.parser = HeaderParser(number)
        self.accounts = Accounts(run_id, CAPTURE, number, CAPTURE_TOPICS)
        self._pending: FrameBatch | None = None
        self._ended = False
        self._accounted_ns = START_NS  # watermark up to which the accounts are made

    @property
    def next_ns(self) -> int | None:
        """run_ns of the next frame, when it is known."""
        if self._pending is None or len(self._pending) == 0:
            return None
        return max(self.parser.run_ns, int(self._pending.ts_ns[0]))

    @property
    def due_ns(self) -> int | None:
        """run_ns of the last frame of the next step, when it is known."""
        if self._pending is None or len(self._pending) == 0:
            return None
        return max(self.parser.run_ns, int(self._pending.ts_ns[: self._size(self._pending)].max()))

    @property
    def watermark_ns(self) -> int:
        """How far this capture has come: run_ns of the next frame when it is known, else of the last one."""
        return self.next_ns or self.parser.run_ns

    def look_ahead(self) -> None:
        """Read the next frames, when that cannot wait for something to happen."""
        if self.reader.source.lookahead:
            self._load()

    def _load(self) -> None:
        if self._pending is None and not self._ended:
            self._pending = self.reader.read()
            self._ended = self._pending is None

    def step(self) -> EdgeBatch:
        """Deliver the next frames, or the end."""
        self._load()
        if self._pending is None:
            return self._finish()
        frames, self._pending = self._cut(self._pending)
        if not len(frames):  # live and silent: frames to come are stamped later than this, or ordered as if they were
            if self.now_ns is not None:
                self.parser.run_ns = max(self.parser.run_ns, self.now_ns() - IDLE_SLACK_NS)
            return EdgeBatch(self.number, {}, self.parser.run_ns, None)
        rows = self._rows_of(frames)
        self.look_ahead()
        return EdgeBatch(self.number, self._accounted(rows, self.watermark_ns, False), self.watermark_ns, None)

    def _cut(self, frames: FrameBatch) -> tuple[FrameBatch, FrameBatch | None]:
        at = self._size(frames)
        return (frames, None) if at == len(frames) else (_part(frames, slice(0, at)), _part(frames, slice(at, None)))

    def _size(self, frames: FrameBatch) -> int:
        """Frames of the next step."""
        if self.slice_ns is None or not len(frames):
            return len(frames)
        run_ns = np.maximum.accumulate(np.maximum(frames.ts_ns[:SLICE_FRAMES], self.parser.run_ns))
        return int(np.searchsorted(run_ns, run_ns[0] + self.slice_ns, "left"))

    def with_lost(self, made: EdgeBatch, lost: Sequence[Lost]) -> EdgeBatch:
        """Add captures rows about rows that were dropped behind the capture; a batch without rows must be its last.

        Each stands at the last row that it tells of, or behind the whole batch when that row came before the batch.
        """
        parts = [rows for topic, rows in made.rows.items() if topic != LEDGER]
        first = min((order.key_at(part, 0) for part in parts), default=BEHIND_ALL)
        behind = (self.parser.run_ns, self.number, self.reader.position, 0)
        last = behind if made.end_ns is not None else max(order.key_at(part, -1) for part in parts)
        told = [self.seconds.lost(one, one.last_key if one.last_key >= first else last) for one in lost]
        captures = [made.rows["captures"]] if "captures" in made.rows else []
        rows = {"captures": order.number_rows(Rows.concat([*captures, *told]), "capture", self.run_id)}
        self.accounts.give({"captures": Rows.concat(told)})
        if made.end_ns is not None and LEDGER in made.rows:
            rows[LEDGER] = self.accounts.statement({}, made.end_ns, True)  # once more, as there are more rows
        return EdgeBatch(made.capture_id, made.rows | rows, made.watermark_ns, made.end_ns)

    def _rows_of(self, frames: FrameBatch) -> dict[str, Rows]:
        before = self.parser.run_ns
        parsed = self.parser.parse(frames, None if self.duplicates is None else self.duplicates.find(frames))
        parts = [{"rejected": parsed.rejected}, *(d.decode(parsed.packets) for d in self.decoders)]
        rows = self._joined(parts, before)
        captures = self.seconds.add(frames, parsed, rows, self.reader.kernel_drops)
        return self._wanted(rows | {"packets": parsed.packets.packets, "captures": captures})

    def _finish(self) -> EdgeBatch:
        run_ns, position = self.parser.run_ns, self.reader.position
        if run_ns == START_NS:  # not one frame: there is no time to put anything at
            return EdgeBatch(self.number, self._accounted({}, 1, True), 0, 1)
        parts = [d.finish(run_ns, self.number, position) for d in self.decoders]
        rows = self._joined([{"rejected": self._problem_rows(run_ns, position)}, *parts], run_ns)
        captures = self.seconds.finish(run_ns, position, rows, self.reader.kernel_drops)
        rows = self._accounted(self._wanted(rows | {"captures": captures}), run_ns + 1, True)
        return EdgeBatch(self.number, rows, run_ns, run_ns + 1)

    def _accounted(self, rows: dict[str, Rows], until_ns: int, ended: bool) -> dict[str, Rows]:
        """Add the capture's accounts when they are due."""
        if LEDGER not in self.topics:
            return rows
        before_ns, self._accounted_ns = self._accounted_ns, until_ns
        return rows | self.accounts.advance(rows, {}, before_ns, until_ns, ended)

    def _joined(self, parts: Sequence[dict[str, Rows]], floor_ns: int) -> dict[str, Rows]:
        joined: dict[str, Rows] = {}
        for topic in sorted({t for part in parts for t in part}):
            rows = Rows.concat([part[topic] for part in parts if topic in part])
            if len(rows):
                assert rows["run_ns"].min() >= floor_ns, f"{topic} rows must not lie behind the watermark"
                joined[topic] = rows.sorted_by_order()
        return joined

    def _wanted(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        numbered = {
            t: order.number_rows(rows[t], "capture", self.run_id) for t in ("captures", "rejected") if t in rows
        }
        return {t: r for t, r in (rows | numbered).items() if t in self.topics and len(r)}

    def _problem_rows(self, run_ns: int, position: int) -> Rows:
        problems = self.reader.problems
        return Rows.build(
            "rejected", len(problems), run_ns=run_ns, capture_id=self.number, capture_pos=position, ts_capture_ns=run_ns,
            stage=np.array([b"capture"] * len(problems), "S16"), detail=[str(p) for p in problems],
            reason=np.array([p.reason.encode() for p in problems], "S48"),
        )  # fmt: skip


def _part(frames: FrameBatch, cut: slice) -> FrameBatch:
    rest = {f.name: getattr(frames, f.name)[cut] for f in fields(frames) if f.name != "buffer"}
    return FrameBatch(buffer=frames.buffer, **rest)
