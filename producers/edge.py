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
from dataclasses import dataclass
from pathlib import Path

import akbypass
from akbypass import beats
from akbypass.config import Config, Point
from akbypass.errors import CaptureError, ConfigError
from akbypass.order import START_NS
from akbypass.producers.capture import live
from akbypass.producers.capture.duplicates import Duplicates
from akbypass.producers.capture.formats import open_capture
from akbypass.producers.capture.lane import Decoder, EdgeBatch, Lane
from akbypass.producers.capture.pace import Pace
from akbypass.producers.capture.reader import FRAMES_MAX, Reader
from akbypass.producers.capture.seconds import COUNTERS, Seconds
from akbypass.producers.capture.source import Problem
from akbypass.producers.spool.degrade import Lost
from akbypass.topics import CAPTURE_TOPICS, LEDGER

PACE_SLICE_NS = 200_000_000  # replay in original timing hands out at most this much wall time at once
NAP_S = 0.2  # a replay that waits hears a stop within this
FEED_TOPICS = frozenset({"feed_frames", "market_data", "captures", "rejected"})  # these need the feed decoder
ORDER_TOPICS = frozenset({"orders", "captures", "rejected"})


@dataclass(frozen=True)
class Group:
    """Several processes that capture one run: this is capture number `member`, from 0, of `members`."""

    name: str
    member: int
    members: int

    def __post_init__(self) -> None:
        if not (self.name and 0 <= self.member < self.members):
            raise ConfigError(f"expected a group with a name and a member below {self.members}, found {self.member}")


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
        begin_ns: Wall clock (ns since the UNIX epoch) at which a replay's first frame is due; None for now.
        topics: Topics wanted; None for all.
        stream_id: Stands for the bytes of what cannot be read twice (live, standard input) in the run's identity;
            by default the time of the start (ns), so that each is a run of its own.
        group: This is one capture of several processes that share a run; `sources` or `interface` is then one.
        point: Capture point of files; by default the first that is configured.
        decoders: Makes the decoders of one capture.
        monotonic, sleep: Clock (s) that paces a replay; by default one that hears `stop`.
        now_ns: Wall clock (ns since the UNIX epoch) for a live capture's start and silence.
    """

    def __init__(
        self, config: Config, sources: Sequence[str], *, interface: str | None = None, capture_filter: str = "",
        salt: str = "", frames_max: int = FRAMES_MAX, speed: float | None = None, begin_ns: int | None = None, topics: Collection[str] | None = None,
        stream_id: str | None = None, group: Group | None = None, point: str = "", decoders: DecoderMaker = make_decoders,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        assert bool(sources) != (interface is not None), "either files or an interface"
        self.config, self.interface, self.capture_filter, self.salt = config, interface, capture_filter, salt
        self.sources = [interface] if interface is not None else [str(s) for s in sources]
        self.group, self.point = group, point
        self.first = 0 if group is None else group.member  # number of the first capture of this process in the run
        self.captures = len(self.sources) if group is None else group.members
        assert group is None or len(self.sources) == 1, "a member of a group is one capture"
        self.frames_max, self.speed, self.begin_ns = frames_max, speed, begin_ns
        self.topics = frozenset((*CAPTURE_TOPICS, LEDGER) if topics is None else topics)
        self.now_ns, self.decoders = now_ns, decoders
        self._stream_id, self._monotonic, self._sleep = stream_id, monotonic, sleep or self._nap
        self._lanes: list[Lane] = []
        self._stop = False
        self.is_waiting = False  # for the time of a paced replay's next frame
        self.is_cut = False  # stopped before the end of its files

    # -- identity and accounts -------------------------------------------------------------------------------------

    @functools.cached_property
    def run_id(self) -> str:
        """Identity of the run (16 hexadecimal digits): bytes and order of the captures, what decides results, salt.

        Of a group it is the group's name instead of the bytes. Raises CaptureError when a file cannot be read.
        """
        if self.group is not None:
            return self._digest("group", self.group.name, str(self.group.members))
        stream = self._stream_id if self._stream_id is not None else str(self.now_ns())
        parts = [stream if self.interface is not None else file_digest(s) or stream for s in self.sources]
        return self._digest(*parts)

    def _digest(self, *parts: str) -> str:
        text = "\x1f".join([*parts, self.config.meaning_digest, akbypass.__version__, self.salt])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def name(self) -> str:
        """What tells this process from the others of its run, for what it keeps on disk."""
        return self.run_id if self.group is None else f"{self.run_id}-{self.group.member}"

    def point_of(self, capture: int) -> str:
        """Capture point of one capture of this process."""
        return self._point(self.sources[capture - self.first]).name

    @property
    def counters(self) -> dict[str, int]:
        """Counters of the captures rows, summed over all captures so far."""
        return {name: sum(c.seconds.totals[name] for c in self._lanes) for name in COUNTERS}

    def totals(self) -> dict[str, int]:
        """What a progress display shows: packets, bytes, dropped_… by reason, feed_messages, order_messages, rejected."""
        return self.counters

    @property
    def problems(self) -> list[Problem]:
        """What could not be read, by capture."""
        return [problem for lane in self._lanes for problem in lane.reader.problems]

    @property
    def bytes_total(self) -> int | None:
        """Size of all captures as stored, bytes; None when one cannot tell."""
        if self.interface is not None or not all(Path(s).is_file() for s in self.sources):
            return None
        return sum(Path(s).stat().st_size for s in self.sources)

    @property
    def bytes_read(self) -> int:
        """Bytes taken from files or pipes so far, before decompression."""
        return sum(lane.reader.source.bytes_read for lane in self._lanes)

    @property
    def watermark_ns(self) -> int:
        """How far the capture that has come least far has come (run_ns); START_NS before the first frame."""
        return min((lane.watermark_ns for lane in self._lanes), default=START_NS)

    def with_lost(self, made: EdgeBatch, lost: Sequence[Lost]) -> EdgeBatch:
        """Add to a batch the captures rows about rows that were dropped behind the edge; see `Lane.with_lost`."""
        return self._lanes[made.capture_id - self.first].with_lost(made, lost)

    # -- running ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End in order; may come from a signal or thread.

        Live: what dumpcap has is still delivered, then the end. Files: nothing more is read and the run does not end,
        `is_cut` says so; the same files again are the same run, which then goes on where it was left.
        """
        self._stop = True
        for lane in self._lanes:
            if isinstance(lane.reader.source, live.LiveSource):
                lane.reader.source.stop()

    def __iter__(self) -> Iterator[EdgeBatch]:
        """Read all captures to their ends.

        Raises:
            CaptureError: One of the captures is none, or cannot be opened; nothing has been delivered then.
            MissingError: Live capture lacks dumpcap, the privilege or the interface.
        """
        run_id, self._lanes = self.run_id, []
        try:
            for number, source in enumerate(self.sources, self.first):
                self._lanes.append(self._lane(number, run_id, source))
            if self.interface is None:
                yield from self._merged()
                return
            stream = self._lanes[0].reader.source
            assert isinstance(stream, live.LiveSource)
            with live.stop_on_interrupt(stream):
                if self._stop:
                    stream.stop()
                yield from self._merged()
        finally:
            for lane in self._lanes:
                lane.reader.close()

    def _lane(self, number: int, run_id: str, source: str) -> Lane:
        is_live = self.interface is not None
        point = self._point(source)
        clock = "kernel" if is_live and point.clock == "file" else point.clock
        return Lane(
            number, run_id, self._reader(source), self.decoders(self.config, self.topics),
            Seconds(number, point=point.name, source=source, clock_source=clock), topics=self.topics,
            slice_ns=None if self.speed is None else max(int(PACE_SLICE_NS * self.speed), 1),
            now_ns=self.now_ns if is_live else None,
            duplicates=Duplicates(point.duplicate_window_us * 1000) if point.duplicate_window_us else None,
        )  # fmt: skip

    def _point(self, source: str) -> Point:
        points = self.config.points
        if self.point:
            return next(p for p in points if p.name == self.point)
        named = (p for p in points if self.interface is not None and source in p.interfaces)
        return next(named, points[0] if points else Point())

    def _reader(self, source: str) -> Reader:
        if self.interface is not None:
            return live.open_live(source, self.capture_filter, frames_max=self.frames_max)
        return open_capture(source, frames_max=self.frames_max)

    def _begin_s(self) -> float | None:
        if self.begin_ns is None:
            return None
        return self._monotonic() + (self.begin_ns - self.now_ns()) / 1e9

    def _merged(self) -> Iterator[EdgeBatch]:
        running = list(self._lanes)
        pace = Pace(self.speed, self._monotonic, self._sleep, self._begin_s())
        if len(running) > 1 or self.speed is not None:
            for lane in running:
                lane.look_ahead()
        if len(running) > 1:  # so that no capture holds the merge back before its first frame
            yield from (EdgeBatch(c.number, {}, c.watermark_ns, None) for c in running if c.watermark_ns != START_NS)
        while running:
            lane = min(running, key=lambda c: (c.watermark_ns, c.number))
            self.is_waiting = True
            yield from self._signs_of_life(running, pace)
            pace.wait(lane.next_ns, lane.due_ns)
            self.is_waiting = False
            if self._stop and self.interface is None:
                self.is_cut = True
                return
            batch = lane.step()
            yield batch
            if batch.end_ns is not None:
                running.remove(lane)

    def _signs_of_life(self, running: Sequence[Lane], pace: Pace) -> Iterator[EdgeBatch]:
        """Say how far the captures have come while a replay waits, so that nobody takes them for silent."""
        lane = min(running, key=lambda c: (c.watermark_ns, c.number))
        while self.captures > 1 and not self._stop and pace.left_s(lane.next_ns, lane.due_ns) > beats.PAUSE_S:
            self._sleep(beats.PAUSE_S)
            yield from (EdgeBatch(c.number, {}, c.watermark_ns, None) for c in running if c.watermark_ns != START_NS)

    def _nap(self, seconds: float) -> None:
        until_s = self._monotonic() + seconds
        while not self._stop and (left_s := until_s - self._monotonic()) > 0:
            time.sleep(min(left_s, NAP_S))


def file_digest(name: str) -> str | None:
    """Hash the bytes of a file; None for what cannot be read twice. Raises CaptureError when it cannot be read."""
    if not Path(name).is_file():
        return None
    try:
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CaptureError(f"{name}: expected a capture file, found none: {error.strerror}") from error


__all__ = ["Decoder", "Edge", "EdgeBatch", "Group", "make_decoders"]
