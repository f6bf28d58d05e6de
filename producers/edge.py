"""The edge: captures in, rows by topic with watermarks out; joins readers, headers and decoders and adds no meaning.

    source ─▶ Reader ─▶ FrameBatch ─▶ HeaderParser ─▶ PacketBatch ─▶ decoders ─▶ EdgeBatch
    bytes     records   frames        layers 2 to 4   payloads       rows        rows, watermark

One capture is one source of the run. Of several captures the one that has come least far is read on, so that whoever
merges them by order key holds little back. How frames are cut into batches never shows in the rows.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np

import akbypass
from akbypass import order
from akbypass.config import Config, Point
from akbypass.errors import CaptureError
from akbypass.order import START_NS
from akbypass.producers.capture import live
from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.headers import HeaderParser
from akbypass.producers.capture.reader import FRAMES_MAX, Reader
from akbypass.producers.capture.seconds import COUNTERS, Seconds
from akbypass.producers.capture.source import Problem
from akbypass.producers.frames import FrameBatch, PacketBatch
from akbypass.rows import Rows
from akbypass.topics import CAPTURE_TOPICS

IDLE_SLACK_NS = 1_000_000_000  # a silent live capture's watermark follows the clock this far behind
PACE_SLICE_NS = 10_000_000  # replay in original timing hands out this much wall time at once
FEED_TOPICS = frozenset({"feed_frames", "market_data", "captures", "rejected"})  # these need the feed decoder
ORDER_TOPICS = frozenset({"orders", "captures", "rejected"})


class Decoder(Protocol):
    """What turns payloads into rows of one capture; keeps what it needs from batch to batch."""

    def decode(self, batch: PacketBatch) -> dict[str, Rows]:
        """Return rows by topic; every row's run_ns is that of a packet of this batch."""
        ...

    def finish(self, run_ns: int, capture_id: int, capture_pos: int) -> dict[str, Rows]:
        """Return what the end of the capture brings, with this order key."""
        ...


DecoderMaker = Callable[[Config, Collection[str]], Sequence[Decoder]]


def make_decoders(config: Config, wanted: Collection[str]) -> list[Decoder]:
    """Make the decoders of one capture whose topics are wanted; imports only those."""
    decoders: list[Decoder] = []
    if FEED_TOPICS & set(wanted):
        from akbypass.producers.decoders.feed import FeedDecoder

        decoders.append(FeedDecoder(config))
    if ORDER_TOPICS & set(wanted):
        from akbypass.producers.decoders.orders import OrderDecoder

        decoders.append(OrderDecoder(config))
    return decoders


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


class Edge:
    """All captures of one run.

    >>> edge = Edge(Config(), ["day.pcap"], stream_id="example")
    >>> edge.captures
    1

    Args:
        config: The configuration.
        sources: Capture files, `-` for standard input; empty with `interface`.
        interface: Network interface for live capture.
        capture_filter: BPF expression, live only.
        salt: Makes another run of the same captures.
        frames_max: Frames in one batch.
        speed: Replay at this multiple of the original timing; None for flat out.
        topics: Topics wanted; None for all.
        stream_id: Stands for the bytes of what cannot be read twice (live, standard input) in the run's identity;
            by default the time of the start (ns), so that each is a run of its own.
        decoders: Makes the decoders of one capture.
        monotonic, sleep: Clock (s) that paces a replay.
        now_ns: Wall clock (ns since the UNIX epoch) for a live capture's start and silence.
    """

    def __init__(
        self, config: Config, sources: Sequence[str], *, interface: str | None = None, capture_filter: str = "",
        salt: str = "", frames_max: int = FRAMES_MAX, speed: float | None = None, topics: Collection[str] | None = None,
        stream_id: str | None = None, decoders: DecoderMaker = make_decoders,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        assert bool(sources) != (interface is not None), "either files or an interface"
        self.config, self.interface, self.capture_filter, self.salt = config, interface, capture_filter, salt
        self.sources = [interface] if interface is not None else [str(s) for s in sources]
        self.captures = len(self.sources)
        self.frames_max, self.speed = frames_max, speed
        self.topics = frozenset(CAPTURE_TOPICS if topics is None else topics)
        self.now_ns, self.decoders = now_ns, decoders
        self._stream_id, self._monotonic, self._sleep = stream_id, monotonic, sleep
        self._open: list[Capture] = []
        self._stop = False

    # -- identity and accounts -------------------------------------------------------------------------------------

    @functools.cached_property
    def run_id(self) -> str:
        """Identity of the run (16 hexadecimal digits): bytes and order of the captures, what decides results, salt.

        Raises CaptureError when a file cannot be read.
        """
        stream = self._stream_id if self._stream_id is not None else str(self.now_ns())
        parts = [stream if self.interface is not None else file_digest(s) or stream for s in self.sources]
        text = "\x1f".join([*parts, self.config.meaning_digest, akbypass.__version__, self.salt])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def counters(self) -> dict[str, int]:
        """Counters of the captures rows, summed over all captures so far."""
        return {name: sum(c.seconds.totals[name] for c in self._open) for name in COUNTERS}

    def totals(self) -> dict[str, int]:
        """What a progress display shows: packets, bytes, dropped_… by reason, feed_messages, order_messages, rejected."""
        return self.counters

    @property
    def problems(self) -> list[Problem]:
        """What could not be read, by capture."""
        return [problem for capture in self._open for problem in capture.reader.problems]

    @property
    def bytes_total(self) -> int | None:
        """Size of all captures as stored, bytes; None when one cannot tell."""
        if self.interface is not None or not all(Path(s).is_file() for s in self.sources):
            return None
        return sum(Path(s).stat().st_size for s in self.sources)

    @property
    def bytes_read(self) -> int:
        """Bytes taken from files or pipes so far, before decompression."""
        return sum(capture.reader.source.bytes_read for capture in self._open)

    # -- running ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End a live capture in order: what dumpcap has is still delivered, then the end. May come from a signal or thread."""
        self._stop = True
        for capture in self._open:
            if isinstance(capture.reader.source, live.LiveSource):
                capture.reader.source.stop()

    def __iter__(self) -> Iterator[EdgeBatch]:
        """Read all captures to their ends.

        Raises:
            CaptureError: One of the captures is none, or cannot be opened; nothing has been delivered then.
            MissingError: Live capture lacks dumpcap, the privilege or the interface.
        """
        run_id, self._open = self.run_id, []
        try:
            for number, source in enumerate(self.sources):
                self._open.append(Capture(self, run_id, number, source, self._reader(source)))
            if self.interface is None:
                yield from self._merged()
                return
            stream = self._open[0].reader.source
            assert isinstance(stream, live.LiveSource)
            with live.stop_on_interrupt(stream):
                if self._stop:
                    stream.stop()
                yield from self._merged()
        finally:
            for capture in self._open:
                capture.reader.close()

    def _reader(self, source: str) -> Reader:
        if self.interface is not None:
            return live.open_live(source, self.capture_filter, frames_max=self.frames_max)
        return open_capture(source, frames_max=self.frames_max)

    def _merged(self) -> Iterator[EdgeBatch]:
        running = list(self._open)
        pace = Pace(self.speed, self._monotonic, self._sleep)
        if len(running) > 1 or self.speed is not None:
            for capture in running:
                capture.look_ahead()
        if len(running) > 1:  # so that no capture holds the merge back before its first frame
            yield from (EdgeBatch(c.number, {}, c.watermark_ns, None) for c in running if c.watermark_ns != START_NS)
        while running:
            capture = min(running, key=lambda c: (c.watermark_ns, c.number))
            pace.wait(capture.next_ns)
            batch = capture.step()
            yield batch
            if batch.end_ns is not None:
                running.remove(capture)


class Capture:
    """One capture on its way through headers and decoders."""

    def __init__(self, edge: Edge, run_id: str, number: int, source: str, reader: Reader) -> None:
        self.number, self.reader, self.run_id, self.topics = number, reader, run_id, edge.topics
        self.is_live = edge.interface is not None
        point = _point(edge.config, source if self.is_live else None)
        clock = "kernel" if self.is_live and point.clock == "file" else point.clock
        self.seconds = Seconds(number, point=point.name, source=source, clock_source=clock)
        self.now_ns = edge.now_ns
        self.slice_ns = None if edge.speed is None else max(int(PACE_SLICE_NS * edge.speed), 1)
        self.parser = HeaderParser(number)
        self.decoders = edge.decoders(edge.config, edge.topics)
        self._pending: FrameBatch | None = None
        self._ended = False

    @property
    def next_ns(self) -> int | None:
        """run_ns of the next frame, when it is known."""
        if self._pending is None or len(self._pending) == 0:
            return None
        return max(self.parser.run_ns, int(self._pending.ts_ns[0]))

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
            if self.is_live:
                self.parser.run_ns = max(self.parser.run_ns, self.now_ns() - IDLE_SLACK_NS)
            return EdgeBatch(self.number, {}, self.parser.run_ns, None)
        rows = self._rows_of(frames)
        self.look_ahead()
        return EdgeBatch(self.number, rows, self.watermark_ns, None)

    def _cut(self, frames: FrameBatch) -> tuple[FrameBatch, FrameBatch | None]:
        if self.slice_ns is None or not len(frames):
            return frames, None
        run_ns = np.maximum.accumulate(np.maximum(frames.ts_ns, self.parser.run_ns))
        at = int(np.searchsorted(run_ns, run_ns[0] + self.slice_ns, "left"))
        return (frames, None) if at == len(frames) else (_part(frames, slice(0, at)), _part(frames, slice(at, None)))

    def _rows_of(self, frames: FrameBatch) -> dict[str, Rows]:
        before = self.parser.run_ns
        parsed = self.parser.parse(frames)
        parts = [{"rejected": parsed.rejected}, *(d.decode(parsed.packets) for d in self.decoders)]
        rows = self._joined(parts, before)
        captures = self.seconds.add(frames, parsed, rows, self.reader.kernel_drops)
        return self._wanted(rows | {"packets": parsed.packets.packets, "captures": captures})

    def _finish(self) -> EdgeBatch:
        run_ns, position = self.parser.run_ns, self.reader.position
        if run_ns == START_NS:  # not one frame: there is no time to put anything at
            return EdgeBatch(self.number, {}, 0, 1)
        parts = [d.finish(run_ns, self.number, position) for d in self.decoders]
        rows = self._joined([{"rejected": self._problem_rows(run_ns, position)}, *parts], run_ns)
        captures = self.seconds.finish(run_ns, position, rows, self.reader.kernel_drops)
        return EdgeBatch(self.number, self._wanted(rows | {"captures": captures}), run_ns, run_ns + 1)

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


class Pace:
    """Holds a replay to its original timing, or does nothing."""

    def __init__(self, speed: float | None, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._speed, self._monotonic, self._sleep = speed, monotonic, sleep
        self._start: tuple[int, float] | None = None  # capture time (ns) and clock (s) of the first frame

    def wait(self, next_ns: int | None) -> None:
        """Sleep until the frame with this run_ns is due."""
        if self._speed is None or next_ns is None:
            return
        if self._start is None:
            self._start = next_ns, self._monotonic()
        first_ns, first_s = self._start
        left_s = first_s + (next_ns - first_ns) / 1e9 / self._speed - self._monotonic()
        if left_s > 0:
            self._sleep(left_s)


def file_digest(name: str) -> str | None:
    """Hash the bytes of a file; None for what cannot be read twice. Raises CaptureError when it cannot be read."""
    if not Path(name).is_file():
        return None
    try:
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).hexdigest()
    except OSError as error:
        raise CaptureError(f"{name}: expected a capture file, found none: {error.strerror}") from error


def _point(config: Config, interface: str | None) -> Point:
    named = (p for p in config.points if interface in p.interfaces)
    return next(named, config.points[0] if config.points else Point())


def _part(frames: FrameBatch, cut: slice) -> FrameBatch:
    rest = {f.name: getattr(frames, f.name)[cut] for f in fields(frames) if f.name != "buffer"}
    return FrameBatch(buffer=frames.buffer, **rest)
